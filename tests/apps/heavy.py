"""Tasks that are hard on their process. While the file ``$STREAMQ_TEST_BROKEN`` is there, they cannot be loaded."""

from __future__ import annotations

import asyncio
import os
import re
import time
from pathlib import Path

from streamq import StreamQ, current

if Path(os.environ.get("STREAMQ_TEST_BROKEN", "/nonexistent")).exists():
    raise RuntimeError("in the middle of a deployment")

app = StreamQ()


@app.task
async def quick(n: int) -> tuple[int, int]:
    return n, os.getpid()


@app.task
async def short(n: int) -> int:
    await asyncio.sleep(0.02)
    return n


@app.task
def short_in_thread(n: int) -> int:
    time.sleep(0.02)
    return n


@app.task
async def until_there(started: Path, there: Path) -> int:
    """Run until a file is there; return how often this task was delivered."""
    started.touch()  # noqa: ASYNC240 - for another process
    while not there.exists():  # noqa: ASYNC110, ASYNC240 - see above
        await asyncio.sleep(0.01)
    return current().deliveries


@app.task
def eat(mib: int) -> int:
    return len(b"x" * (mib * 1024 * 1024))


@app.task
async def block(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 - a mistake that users make


@app.task
async def block_at_first() -> int:
    """Block the event loop for ever, unless a worker has died of that."""
    if current().deliveries == 1:
        await asyncio.gather(_block_for_ever())
    return current().deliveries


async def _block_for_ever() -> None:
    while True:
        time.sleep(0.01)  # noqa: ASYNC251 - see above


@app.task
def keep_interpreter_at_first() -> int:
    """Keep the interpreter in C for ever, unless a worker has died of that."""
    if current().deliveries == 1:
        re.match(r"(a|a)*b", "a" * 60)
    return current().deliveries


@app.task(timeout=0.3)
def deaf() -> None:
    """Do what no time limit can end: a thread that is in C code."""
    time.sleep(3600)


@app.task(hard_timeout=0.3)
def deaf_at_the_hard_limit() -> None:
    time.sleep(3600)
