"""The bare side: what one would write by hand with redis-py.

``python -m benchmarks.bare JOB COUNT SERVER_PID``
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import redis
import redis.asyncio

from benchmarks.machine import Meter
from benchmarks.names import BARE_REPLY, BARE_RESULT, BARE_STREAM
from benchmarks.report import WARM_UP, say, say_latency

URL = os.environ.get("BENCHMARK_URL", "")
GROUP = "workers"
FIELDS: dict[Any, Any] = {"task": b"x" * 100}

_READ = 100
_CHUNK = 250
_SETTLE = """
for i, entry in ipairs(ARGV) do
  if i > 1 then
    redis.call('XACK', KEYS[1], ARGV[1], entry)
    redis.call('XDEL', KEYS[1], entry)
    redis.call('SET', KEYS[i], 'null', 'PX', 3600000)
  end
end
"""


def enqueue(count: int, server: int) -> None:
    """XADD one by one."""
    client = redis.Redis.from_url(URL)
    for _ in range(WARM_UP):
        client.xadd(BARE_STREAM, FIELDS)
    meter = Meter(os.getpid(), server)
    for _ in range(count):
        client.xadd(BARE_STREAM, FIELDS)
    say(meter.stop(count))


def enqueue_many(count: int, server: int) -> None:
    """XADD, some hundred to a round trip."""
    client = redis.Redis.from_url(URL)
    client.ping()
    meter = Meter(os.getpid(), server)
    for start in range(0, count, _CHUNK):
        pipeline = client.pipeline(transaction=False)
        for _ in range(min(_CHUNK, count - start)):
            pipeline.xadd(BARE_STREAM, FIELDS)
        pipeline.execute()
    say(meter.stop(count))


async def _noop(_fields: Any) -> None:
    """Do what the task under test does."""


async def _drain() -> None:
    client: Any = redis.asyncio.Redis.from_url(URL)
    await client.xgroup_create(BARE_STREAM, GROUP, "0", mkstream=True)
    settle = client.register_script(_SETTLE)
    while True:
        for _, entries in await client.xreadgroup(GROUP, "bare", {BARE_STREAM: ">"}, count=_READ, block=1000) or ():
            await asyncio.gather(*(asyncio.create_task(_noop(fields)) for _, fields in entries))
            ids = [entry.decode() for entry, _ in entries]
            await settle(keys=[BARE_STREAM, *(BARE_RESULT + entry for entry in ids)], args=[GROUP, *ids])


def drain() -> None:
    """Read 100, run each in an asyncio task, commit all in one script; for ever."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        asyncio.run(_drain())
    else:
        uvloop.run(_drain())


def echo() -> None:
    """Answer each message; for ever."""
    client: Any = redis.Redis.from_url(URL)
    client.xgroup_create(BARE_STREAM, GROUP, "0", mkstream=True)
    while True:
        for _, entries in client.xreadgroup(GROUP, "bare", {BARE_STREAM: ">"}, count=1, block=1000) or ():
            for entry, _ in entries:
                client.lpush(BARE_REPLY, entry)
                client.xack(BARE_STREAM, GROUP, entry)


def latency(count: int, _server: int) -> None:
    """Send, and wait for the answer of `echo`."""
    client: Any = redis.Redis.from_url(URL)

    def once() -> None:
        client.xadd(BARE_STREAM, FIELDS)
        client.blpop(BARE_REPLY)

    say_latency(count, once)


if __name__ == "__main__":
    job, number, server_pid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if job in ("drain", "echo"):
        {"drain": drain, "echo": echo}[job]()
    else:
        {"enqueue": enqueue, "enqueue_many": enqueue_many, "latency": latency}[job](number, server_pid)
