"""Tasks that emit and yield, for tests. ``$STREAMQ_URL`` says which server."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from tenacity import stop_after_attempt, wait_fixed

from streamq import Context, Retry, StreamQ, current

app = StreamQ(max_result=100_000, max_stream=2_000_000)


@contextmanager
def noted(file: Path) -> Iterator[None]:
    """Write to a file that something begins, and how it ends."""

    def note(text: str) -> None:
        with file.open("a") as out:
            out.write(f"{text}\n")

    note("began")
    try:
        yield
    except BaseException as error:
        note(type(error).__name__)
        raise
    finally:
        note("closed")


@app.task
async def count(number: int) -> AsyncIterator[int]:
    for n in range(number):
        yield n


@app.task
def count_in_thread(number: int) -> Generator[int, None, str]:
    yield from range(number)
    return f"{number} in all"


@app.task(pool="process")
def count_in_process(number: int) -> Generator[int, None, str]:
    yield from range(number)
    return f"{number} in all"


@app.task(pool="process")
async def count_on_the_loop_of_a_process(number: int) -> AsyncIterator[int]:
    for n in range(number):
        yield n


@app.task(bind=True)
async def emit(context: Context, number: int) -> str:
    for n in range(number):
        await context.emit(n)
    return f"{number} in all"


@app.task
def emit_in_thread(number: int) -> str:
    for n in range(number):
        current().emit(n)
    return f"{number} in all"


@app.task(pool="process")
def emit_in_process(number: int) -> str:
    for n in range(number):
        current().emit(n)
    return f"{number} in all"


@app.task
async def days() -> AsyncIterator[date]:
    yield date(2030, 1, 1)
    yield date(2030, 1, 2)


@app.task
def untyped():
    yield date(2030, 1, 1)


@app.task
async def mistyped() -> AsyncIterator[int]:
    yield "no number"  # type: ignore[misc]


@app.task(retry=Retry(stop=stop_after_attempt(3), wait=wait_fixed(0.01)), bind=True)
async def flaky(context: Context, second: int) -> AsyncIterator[str]:
    """Fail after three chunks; the second attempt has as many as it is told."""
    for n in range(3 if context.attempt == 1 else second):
        yield f"{context.attempt}:{n}"
    if context.attempt == 1:
        await until_read(context)
        raise OSError("the first attempt")


read: set[str] = set()


async def until_read(context: Context) -> None:
    while context.id not in read:  # noqa: ASYNC110 - the test says so
        await asyncio.sleep(0.005)


@app.task
async def fail(number: int) -> AsyncIterator[int]:
    for n in range(number):
        yield n
    raise ValueError("no more")


@app.task
async def chunk_of(size: int) -> AsyncIterator[str]:
    yield "x" * size


@app.task
async def unencodable() -> AsyncIterator[object]:
    yield 1
    yield object()


@app.task
async def too_many(size: int) -> AsyncIterator[str]:
    while True:
        yield "x" * size


@app.task
async def too_large() -> AsyncIterator[str]:
    try:
        yield "x" * 200_000
    finally:
        await asyncio.sleep(0.02)
        logging.getLogger("tests").info("it was closed")


@app.task
def too_large_in_thread() -> Iterator[str]:
    try:
        yield "x" * 200_000
    finally:
        logging.getLogger("tests").info("it was closed")


@app.task(timeout=0.2)
async def limited(file: Path) -> AsyncIterator[int]:
    with noted(file):
        yield 0
        await asyncio.sleep(60)


@app.task(timeout=0.2)
def limited_in_thread(file: Path) -> Iterator[int]:
    with noted(file):
        yield 0
        while True:
            time.sleep(0.005)


@app.task(timeout=0.2, pool="process")
def limited_in_process(file: Path) -> Iterator[int]:
    with noted(file):
        yield 0
        time.sleep(60)


@app.task
async def endless(file: Path) -> AsyncIterator[int]:
    with noted(file):
        n = 0
        while True:
            yield n
            n += 1
            await asyncio.sleep(0.005)


@app.task
def endless_in_thread(file: Path) -> Iterator[int]:
    with noted(file):
        n = 0
        while True:
            yield n
            n += 1
            time.sleep(0.005)


@app.task
async def flood(file: Path) -> AsyncIterator[str]:
    """Yield as much as there is room for."""
    with noted(file):
        while True:
            yield "x" * 1000


@app.task
def flood_in_thread(file: Path) -> Iterator[str]:
    with noted(file):
        while True:
            yield "x" * 1000


@app.task
async def until_file(marker: Path, ready: Path) -> AsyncIterator[str]:
    """Yield how often this task was delivered, and then once more when a file is there."""
    deliveries = current().deliveries
    yield f"{deliveries}a"
    yield f"{deliveries}b"
    with marker.open("a") as out:
        out.write(f"{os.getpid()}\n")
    while not ready.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(0.01)
    yield f"{deliveries}c"


@app.task(bind=True)
async def advance(context: Context, file: Path) -> None:
    """Say how far it is, and go on when a file is there."""
    context.progress(0.25, "a quarter")
    while not file.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(0.005)
    for n in range(100):
        context.progress(n / 100)
    context.progress(1, "x" * 2000)


@app.task(pool="process")
def advance_in_process() -> None:
    current().progress(0.5, "half")
