"""The tasks of the campaign. Each counts its run before anything else, and returns the fence under which it ran."""

from __future__ import annotations

import asyncio
import os
import time

from tenacity import stop_after_attempt, wait_fixed

from streamq import Retry, StreamQ, current
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
