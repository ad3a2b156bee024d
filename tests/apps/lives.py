"""Tasks for a worker in the process of the test, which counts their runs and holds them up."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, defaultdict

from tenacity import wait_fixed

from streamq import Context, Limit, Retry, StreamQ, current

app = StreamQ()
runs: Counter[str] = Counter()
_may_end: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
go_on_in_thread = threading.Event()


def go_on(last: int = 100) -> None:
    """Have runs of ``held`` end, up to the `last` of each task."""
    for number in range(1, last + 1):
        _may_end[number].set()


def _run() -> int:
    runs[current().id] += 1
    return runs[current().id]


@app.task
async def once() -> str:
    return f"run {_run()}"


@app.task(retry=Retry(wait=wait_fixed(0.01)))
async def second_time() -> str:
    number = _run()
    if number == 1:
        raise ConnectionError("not yet")
    return f"run {number}"


@app.task(limits=[Limit(rate="10/s", burst=1, concurrency=1)])
async def limited() -> str:
    return f"run {_run()}"


@app.task(limits=[Limit(rate="1/s", weight="units")])
async def weighed(units: int) -> int:
    return units


@app.task(bind=True)
async def emitting(context: Context) -> str:
    number = _run()
    context.progress(0.5)
    for letter in "ab":
        await context.emit(f"{number}{letter}")
        await asyncio.sleep(0.01)
    return f"run {number}"


@app.task
async def held() -> str:
    number = _run()
    await _may_end[number].wait()
    return f"run {number}"


@app.task
def held_in_thread() -> str:
    number = _run()
    go_on_in_thread.wait(10)
    return f"run {number}"
