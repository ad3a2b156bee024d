"""The tasks of the campaign. Each counts its run before anything else, and returns the fence under which it ran."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
import time
from typing import Any

from tenacity import stop_after_attempt, wait_fixed

from streamq import Flow, Limit, Retry, StreamQ, chain, chord, current
from tests.chaos import instrument
from tests.chaos.ledger import counted

MAX_DEATHS = "CHAOS_MAX_DEATHS"  # environment variable
RELEASE = "CHAOS_RELEASE"  # environment variable: "old" does not have all tasks

instrument.apply()
app = StreamQ(max_deaths=int(os.environ.get(MAX_DEATHS, "100")))


@app.task
async def on_loop(seconds: float = 0.0) -> int:
    with counted() as fence:
        await asyncio.sleep(seconds)
        return fence


@app.task
def in_thread(seconds: float = 0.0) -> int:
    with counted() as fence:
        time.sleep(seconds)
        return fence


@app.task(pool="process")
def in_process(seconds: float = 0.0) -> int:
    with counted() as fence:
        time.sleep(seconds)
        return fence


@app.task(retry=Retry(stop=stop_after_attempt(5), wait=wait_fixed(0.1)))
async def third_time(seconds: float = 0.0) -> int:
    with counted() as fence:
        await asyncio.sleep(seconds)
        if current().attempt < 3:
            raise ConnectionError("not yet")
        return fence


# ---- tasks that wait for their turn

RATE, BURST, PLACES = 40, 5, 4


@app.task(limits=[Limit(rate=f"{RATE}/s", burst=BURST)])
async def paced(seconds: float) -> int:
    with counted() as fence:
        await asyncio.sleep(seconds)
        return fence


@app.task(concurrency=PLACES)
async def narrow(seconds: float) -> int:
    with counted() as fence:
        await asyncio.sleep(seconds)
        return fence


@app.task(ordering_key="key", retry=Retry(stop=stop_after_attempt(3), wait=wait_fixed(0.1)))
async def in_line(key: str, seconds: float, fails_first: bool) -> int:  # noqa: FBT001 - as its order has it
    with counted() as fence:
        await asyncio.sleep(seconds)
        if fails_first and current().attempt == 1:
            raise ConnectionError("not yet")
        return fence


# ---- flows, of ten tasks each over two queues; what they do follows from their numbers

OTHER = "other"
MEMBERS = 10


@app.task(retry=Retry(stop=stop_after_attempt(5), wait=wait_fixed(0.1)))
async def plus(value: int, number: int, seconds: float) -> int:
    with counted():
        await asyncio.sleep(seconds)
        if number % 7 == 6 and current().attempt == 1:
            raise ConnectionError("not yet")
        return value + number


@app.task
async def total(values: list[int], seconds: float) -> int:
    with counted():
        await asyncio.sleep(seconds)
        return sum(values)


@app.task
async def of_both(first: int, second: int, seconds: float) -> int:
    with counted():
        await asyncio.sleep(seconds)
        return first + second


def _plus(number: int, seconds: float) -> Any:
    return plus.using(queue=OTHER if number % 2 else None).s(number, seconds)


def a_chain(seconds: float) -> Any:
    first = plus.s(0, 0, seconds)
    return chain(first, *(_plus(number, seconds) for number in range(1, MEMBERS)))


def a_chord(seconds: float) -> Any:
    members = [plus.using(queue=OTHER if number % 2 else None).s(0, number, seconds) for number in range(MEMBERS - 1)]
    return chord(members, total.using(queue=OTHER).s(seconds))


def a_graph(seconds: float) -> Any:
    """Three diamonds, one after the other."""
    flow = Flow()
    last = flow.add(plus.s(1, 0, seconds))
    for number in (1, 2, 3):
        left, right = (flow.add(_plus(one, seconds), after=[last]) for one in (number, number + 5))
        last = flow.add(of_both.s(seconds), after=[left, right])
    return flow


FLOWS = {"a_chain": 45, "a_chord": 36, "a_graph": 65}
"""The functions that make flows, and the values of these."""


# ---- what a task may do to its process


def _spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def _hold_interpreter(seconds: float) -> None:
    """Look for what is not there, in one call of C code, which lets no other thread run."""
    pattern, some = re.compile("a*a*a*b"), 300
    began = time.thread_time()
    pattern.match("a" * some)
    took = time.thread_time() - began
    pattern.match("a" * round(some * (seconds / took) ** (1 / 3)))  # its time grows with the third power


_BLOCKS = {"sleep": time.sleep, "busy": _spin, "regex": _hold_interpreter}


@app.task
async def blocking(how: str, seconds: float, seconds_again: float) -> int:
    """Hold up the event loop; when it is delivered again, for another time."""
    with counted() as fence:
        _BLOCKS[how](seconds if fence == 0 else seconds_again)
        return fence


def _die(how: str) -> None:
    match how:
        case "crash":
            ctypes.string_at(0)
        case "exit":
            os._exit(7)
        case "out of memory":
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does then


@app.task
async def poison_on_loop(how: str) -> int:
    with counted() as fence:
        _die(how)
        return fence


@app.task
def poison_in_thread(how: str) -> int:
    with counted() as fence:
        _die(how)
        return fence


@app.task(pool="process")
def poison_in_process(how: str) -> int:
    with counted() as fence:
        _die(how)
        return fence


@app.task(retry=Retry(stop=stop_after_attempt(3), wait=wait_fixed(0.1)))
async def never(_seconds: float = 0.0) -> int:
    with counted():
        raise ConnectionError("never")


@app.task
async def again_later(seconds: float) -> int:
    with counted() as fence:
        if current().attempt < 3:
            current().retry(countdown=seconds)
        return fence


if os.environ.get(RELEASE) != "old":

    @app.task
    async def new_in_release(seconds: float = 0.0) -> int:
        with counted() as fence:
            await asyncio.sleep(seconds)
            return fence
