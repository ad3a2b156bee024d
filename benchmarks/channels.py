"""The streamq side of channels, through its public API.

``python -m benchmarks.channels JOB COUNT SERVER_PID``
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable

import redis.asyncio
from pydantic import BaseModel

from benchmarks.bare_channels import PAUSE_SECONDS
from benchmarks.loops import run
from benchmarks.machine import Figure, Meter
from benchmarks.names import CHANNEL, CHANNEL_NAME
from benchmarks.report import WARM_UP, say, say_times
from benchmarks.tasks import app
from streamq import Agent
from streamq.channels.envelope import Envelope, EnvelopeCodec

LISTENERS = 1000

_CHUNK = 250


class Price(BaseModel):
    """A small message."""

    item: str
    cents: int
    at: int


prices = app.channel(CHANNEL_NAME, Price)


def _price(at: int) -> Price:
    return Price(item="tea", cents=499, at=at)


async def tell(_count: int, _server: int) -> None:
    """Publish what time it is; for ever."""
    while True:
        await prices.publish(_price(time.perf_counter_ns()))
        await asyncio.sleep(PAUSE_SECONDS)


async def hear(count: int, _server: int) -> None:
    """Hear what `tell` publishes, and how old it is."""
    took: list[float] = []
    async with prices.listen(gaps=False) as heard:
        async for message in heard:
            took.append((time.perf_counter_ns() - message.payload.at) / 1e6)
            if len(took) == count + WARM_UP:
                break
    say_times(took[WARM_UP:])


async def flood(count: int, _server: int) -> None:
    """Publish what was encoded before, as fast as can be, when somebody listens; then wait for ever."""
    codec: EnvelopeCodec[Price] = EnvelopeCodec(Price, CHANNEL_NAME, 65_536)
    messages = [
        codec.encode(Envelope(_price(0), "flood", "Price", CHANNEL_NAME, 0, "a1b2c3d4e5f6", number + 1))
        for number in range(count)
    ]
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(os.environ["BENCHMARK_URL"])
    while (await client.pubsub_numsub(CHANNEL))[0][1] == 0:  # noqa: ASYNC110 - the server is asked
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)  # the others of this process who listen are no more than a name
    for start in range(0, count, _CHUNK):
        pipeline = client.pipeline(transaction=False)
        for data in messages[start : start + _CHUNK]:
            pipeline.publish(CHANNEL, data)
        await pipeline.execute()
    await asyncio.Event().wait()


async def hear_flood(count: int, server: int) -> None:
    """Hear what `flood` publishes."""
    number, meter = 0, None
    async with prices.listen(buffer=count) as heard:
        async for _ in heard:
            meter = meter or Meter(os.getpid(), server)
            number += 1
            if number == count:
                say(meter.stop(count))
                break


async def hear_by_many(count: int, server: int) -> None:
    """Hear it with a thousand listeners; tells the deliveries, and the memory of each listener in KB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    listeners = [prices.listen(buffer=count) for _ in range(LISTENERS)]
    for one in listeners:
        await one.__aenter__()
    kilobytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / LISTENERS
    meters: list[Meter] = []

    async def read(number: int) -> None:
        async for _ in listeners[number]:
            if not meters:
                meters.append(Meter(os.getpid(), server))
            if (left := lefts[number] - 1) == 0:
                return
            lefts[number] = left

    lefts = [count] * LISTENERS
    await asyncio.gather(*map(read, range(LISTENERS)))
    print(json.dumps((meters[0].stop(count * LISTENERS), Figure(kilobytes, None, None))))


async def publish(count: int, server: int) -> None:
    """Publish with many calls at a time."""
    await prices.publish(_price(0))
    meter = Meter(os.getpid(), server)
    for start in range(0, count, _CHUNK):
        await asyncio.gather(*(prices.publish(_price(at)) for at in range(start, min(start + _CHUNK, count))))
    say(meter.stop(count))


async def stuck(_count: int, _server: int) -> None:
    """Listen, and read nothing; for ever."""
    async with prices.listen():
        await asyncio.Event().wait()


async def answer(_count: int, _server: int) -> None:
    """Be an agent that answers; for ever."""
    agent = Agent("answering", app)

    @agent.on(Price)
    async def repeat(message: Envelope[Price]) -> Price:
        return message.payload

    async with agent:
        await asyncio.Event().wait()


async def ask(count: int, _server: int) -> None:
    """Ask the agent that `answer` is, and wait for each reply."""
    took: list[float] = []
    async with Agent("asking", app) as agent:
        for _ in range(count + WARM_UP):
            start = time.perf_counter()
            await agent.request("answering", _price(0), reply=Price, timeout=20)
            took.append((time.perf_counter() - start) * 1000)
    say_times(took[WARM_UP:])


async def _main(job: Callable[[int, int], Awaitable[None]], count: int, server: int) -> None:
    async with app:
        await job(count, server)


if __name__ == "__main__":
    jobs = {one.__name__: one for one in (tell, hear, flood, hear_flood, hear_by_many, publish, stuck, answer, ask)}
    run(_main(jobs[sys.argv[1]], int(sys.argv[2]), int(sys.argv[3])))
