"""Tasks that go on until somebody ends them, and write to a file when they begin and how they end."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from streamq import StreamQ, current

app = StreamQ()


def _say(path: str, word: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{word}\n")


@app.task
async def on_loop(path: str) -> None:
    _say(path, "began")
    try:
        await asyncio.sleep(60)
    except BaseException as error:
        _say(path, type(error).__name__)
        raise


def _spin(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass


@app.task
def in_thread(path: str) -> None:
    _say(path, "began")
    try:
        _spin(60)
    except BaseException as error:
        _say(path, type(error).__name__)
        raise


@app.task(timeout=60)
def in_thread_with_limit(path: str) -> None:
    _say(path, "began")
    try:
        _spin(60)
    except BaseException as error:
        _say(path, type(error).__name__)
        raise


@app.task
def in_thread_to_its_end(path: str) -> str:
    """Take no notice of an exception, but look where it may stop."""
    _say(path, "began")
    while not current().cancelled:
        try:
            _spin(60)
        except BaseException as error:  # noqa: BLE001 - it is stubborn
            _say(path, type(error).__name__)
    _say(path, "saw it")
    return "done all the same"


@app.task(pool="process")
def in_process(path: str) -> None:
    _say(path, str(os.getpid()))
    _say(path, "began")
    _spin(60)
    _say(path, "ended")
