"""The app under test; ``$STREAMQ_URL`` says where its server is."""

from __future__ import annotations

import time

from benchmarks.names import NAMESPACE
from streamq import StreamQ

app = StreamQ(namespace=NAMESPACE)


@app.task
async def noop() -> None:
    """Do nothing, on the event loop."""


@app.task
def noop_in_thread() -> None:
    """Do nothing, in a thread."""


@app.task(rate_limit="1000000/s", concurrency=10_000)
async def noop_limited() -> None:
    """Do nothing, under limits that let in all."""


_starts: list[float] = []


@app.task
async def mark(_value: object = None) -> None:
    """Do nothing, and remember when that began."""
    _starts.append(time.perf_counter())


@app.task
async def marks(_value: object = None) -> list[float]:
    """Return when each `mark` in this process began since this was last asked."""
    starts = _starts.copy()
    _starts.clear()
    return starts


@app.task
async def follow(_value: object) -> None:
    """Do nothing, after something else."""
