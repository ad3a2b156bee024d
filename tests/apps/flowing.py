"""Tasks for flows that are looked at from outside. ``$STREAMQ_URL`` says which server."""

from __future__ import annotations

import asyncio
from pathlib import Path

from streamq import StreamQ

app = StreamQ()


@app.task
async def add(x: int, y: int) -> int:
    return x + y


@app.task
async def total(numbers: list[int], extra: int = 0) -> int:
    return sum(numbers) + extra


@app.task(queue="slow")
async def report(value: object) -> str:
    return f"it is {value}"


@app.task
async def check(number: int, folder: str) -> int:
    """Fail as long as the folder has a file with the name of the number."""
    if (Path(folder) / str(number)).exists():
        raise ValueError(f"number {number} cannot be had:\n no such shelf")
    return number


@app.task
async def until_file(number: int, ready: str) -> int:
    """Run until a file is there."""
    while not Path(ready).exists():  # noqa: ASYNC110, ASYNC240 - it is there at once or soon
        await asyncio.sleep(0.01)
    return number


@app.task
async def sorry(failure: object) -> str:
    return f"sorry: {failure}"
