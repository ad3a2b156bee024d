"""The bare side of channels: redis-py's Pub/Sub on an event loop, with JSON.

``python -m benchmarks.bare_channels JOB COUNT SERVER_PID``
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio

from benchmarks.loops import run
from benchmarks.machine import Meter
from benchmarks.names import BARE_CHANNEL
from benchmarks.report import WARM_UP, say, say_times

URL = os.environ.get("BENCHMARK_URL", "")
PAUSE_SECONDS = 0.002

_CHUNK = 250


def _encode(at: int) -> bytes:
    return json.dumps({"item": "tea", "cents": 499, "at": at}).encode()


def _client() -> Any:
    return redis.asyncio.Redis.from_url(URL)


@asynccontextmanager
async def _subscribed() -> AsyncIterator[Any]:
    async with _client() as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(BARE_CHANNEL)
        yield pubsub


async def tell(_count: int, _server: int) -> None:
    """Publish what time it is; for ever."""
    client = _client()
    while True:
        await client.publish(BARE_CHANNEL, _encode(time.perf_counter_ns()))
        await asyncio.sleep(PAUSE_SECONDS)


async def hear(count: int, _server: int) -> None:
    """Hear what `tell` publishes, and how old it is."""
    took: list[float] = []
    async with _subscribed() as pubsub:
        async for message in pubsub.listen():
            took.append((time.perf_counter_ns() - json.loads(message["data"])["at"]) / 1e6)
            if len(took) == count + WARM_UP:
                break
    say_times(took[WARM_UP:])


async def flood(count: int, _server: int) -> None:
    """Publish as fast as can be, when somebody listens; then wait for ever."""
    client = _client()
    while (await client.pubsub_numsub(BARE_CHANNEL))[0][1] == 0:  # noqa: ASYNC110 - the server is asked
        await asyncio.sleep(0.01)
    data = _encode(0)
    for start in range(0, count, _CHUNK):
        pipeline = client.pipeline(transaction=False)
        for _ in range(min(_CHUNK, count - start)):
            pipeline.publish(BARE_CHANNEL, data)
        await pipeline.execute()
    await asyncio.Event().wait()


async def hear_flood(count: int, server: int) -> None:
    """Hear what `flood` publishes."""
    number, meter = 0, None
    async with _subscribed() as pubsub:
        async for message in pubsub.listen():
            json.loads(message["data"])
            meter = meter or Meter(os.getpid(), server)
            number += 1
            if number == count:
                say(meter.stop(count))
                break


async def publish(count: int, server: int) -> None:
    """Publish, some hundred to a round trip."""
    async with _client() as client:
        await client.ping()
        meter = Meter(os.getpid(), server)
        for start in range(0, count, _CHUNK):
            pipeline = client.pipeline(transaction=False)
            for number in range(start, min(start + _CHUNK, count)):
                pipeline.publish(BARE_CHANNEL, _encode(number))
            await pipeline.execute()
        say(meter.stop(count))


async def stuck(_count: int, _server: int) -> None:
    """Listen, and read nothing; for ever."""
    async with _subscribed():
        await asyncio.Event().wait()


if __name__ == "__main__":
    jobs = {one.__name__: one for one in (tell, hear, flood, hear_flood, publish, stuck)}
    run(jobs[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3])))
