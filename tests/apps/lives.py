"""Tasks for a worker in the process of the test, which counts their runs and holds them up."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

from streamq import StreamQ, current

app = StreamQ()
runs: Counter[str] = Counter()
go_on = asyncio.Event()
go_on_in_thread = threading.Event()


def _run() -> str:
    runs[current().id] += 1
    return f"run {runs[current().id]}"


@app.task
async def once() -> str:
    return _run()


@app.task
async def held() -> str:
    run = _run()
    await go_on.wait()
    return run


@app.task
def held_in_thread() -> str:
    run = _run()
    go_on_in_thread.wait(10)
    return run
