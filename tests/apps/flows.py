"""Tasks that are put together to flows. ``$STREAMQ_URL`` says which server.

A worker in the process of the test counts their runs in `runs`; one in a process of its own tells of them in a file.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Any

from tenacity import stop_after_attempt, wait_fixed

from streamq import Context, Failure, Retry, StreamQ, current, group

OTHER = "other"  # a second queue

app = StreamQ(result_ttl=float(os.environ.get("RESULT_TTL", "3600")))
runs: Counter[str] = Counter()
told: dict[int, str] = {}


def weigh(value: Any) -> int:
    """Make a number of a value; the order of lists counts."""
    match value:
        case list():
            return (sum((place + 3) * weigh(one) for place, one in enumerate(value)) + 7 * len(value) + 11) % 1_000_003
        case dict():
            return 1000  # a failure
    return value


def mixed(values: list[Any], n: int) -> int:
    """Give the result of `mix`."""
    return (sum((place + 2) * weigh(value) for place, value in enumerate(values)) + n) % 1_000_003


@app.task(raises=(ValueError,))
async def mix(*values: Any, n: int, fails: bool = False) -> int:
    runs[str(n)] += 1
    for value in values:
        if isinstance(value, dict):
            told[n] = value["message"]
    if fails:
        raise ValueError(str(n))
    return mixed(list(values), n)


@app.task
async def give(value: Any) -> Any:
    runs[current().id] += 1
    return value


@app.task
def give_in_thread(value: Any) -> Any:
    return value


@app.task
async def add(x: int, y: int) -> int:
    runs[current().id] += 1
    return x + y


@app.task
async def total(numbers: list[int]) -> int:
    runs[current().id] += 1
    return sum(numbers)


@app.task
async def measure(texts: list[str]) -> list[int]:
    return [len(texts), sum(map(len, texts))]


@app.task
async def large(size: int) -> str:
    return "x" * size


@app.task(raises=(ValueError,))
async def fail(message: str = "no tea") -> int:
    runs[current().id] += 1
    raise ValueError(message)


@app.task(retry=Retry(stop=stop_after_attempt(3), wait=wait_fixed(0.02)), bind=True)
async def third_time(context: Context, value: int) -> int:
    runs[context.id] += 1
    if context.attempt < 3:
        raise OSError("not yet")
    return value


@app.task(bind=True)
async def reject(context: Context) -> int:
    context.reject("no such customer")


@app.task
async def describe(failure: Failure) -> str:
    return f"{failure.type}: {failure.message}"


@app.task
async def note(value: Any, file: Path) -> Any:
    """Write down that it has run, and with what."""
    with file.open("a") as out:
        out.write(f"{value}\n")
    return value


@app.task
async def until_file(value: Any, started: Path, ready: Path) -> Any:
    """Tell by one file that it runs, and end when another is there."""
    with started.open("a") as out:
        out.write(f"{os.getpid()}\n")
    while not ready.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(0.01)
    return value


@app.task
async def swap(a: int) -> Any:
    runs[f"swap {a}"] += 1
    return add.s(a, 1) | add.using(queue=OTHER).s(4)


@app.task(bind=True)
async def grow(context: Context, a: int) -> int:
    runs[f"grow {a}"] += 1
    context.add_to(group(add.s(a, 18 + n) for n in range(2)))
    return a
