"""Handlers of events, which write down what they were called with. ``$HEARD`` is the file."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

from streamq import StreamQ, events

app = StreamQ(durable_events="DURABLE_EVENTS" in os.environ)
_lock = threading.Lock()


def note(*words: object) -> None:
    with _lock, Path(os.environ["HEARD"]).open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


@app.task
async def work() -> None:
    pass


@app.on("task.queued", tasks="tests.apps.listening.work")
async def on_queued(event: events.Event) -> None:
    note("async", event.id)
    if event.id == "bad":
        raise ValueError("a bad one")
    if event.id == "slow":
        await asyncio.sleep(0.3)
        note("ended", event.id)
    if event.id == "endless":
        await asyncio.sleep(600)


@app.on(events.TaskCancelled)
def on_cancelled(event: events.TaskCancelled) -> None:
    note("thread", event.id, threading.current_thread() is not threading.main_thread())
    if event.id == "bad":
        raise ValueError("a bad one in a thread")
    if event.id == "endless":
        note("sleeps")
        time.sleep(600)
