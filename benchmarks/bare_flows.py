"""The bare side of flows: a worker that puts the next message there when it commits the one before.

``python -m benchmarks.bare_flows JOB COUNT SERVER_PID``
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import redis
import redis.asyncio

from benchmarks.bare import GROUP, URL
from benchmarks.loops import run
from benchmarks.names import BARE_REPLY, BARE_RESULT, BARE_STREAM
from benchmarks.report import HOPS, say_hops, say_latency

_READ = 100
_TASK = b"x" * 100
_COMMIT = """
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], 'null', 'PX', 3600000)
if ARGV[3] == '0' then
  redis.call('LPUSH', KEYS[3], ARGV[4])
else
  redis.call('XADD', KEYS[1], '*', 'task', ARGV[4], 'left', ARGV[3] - 1)
end
"""


async def _mark(starts: list[float]) -> None:
    """Do what the task under test does."""
    starts.append(time.perf_counter())


async def relay() -> None:
    """Run messages; the last one of a chain answers with when each began; for ever."""
    client: Any = redis.asyncio.Redis.from_url(URL)
    await client.xgroup_create(BARE_STREAM, GROUP, "0", mkstream=True)
    commit = client.register_script(_COMMIT)
    starts: list[float] = []

    async def one(entry: bytes, fields: dict[bytes, bytes]) -> None:
        await asyncio.create_task(_mark(starts))
        is_last, text = fields[b"left"] == b"0", fields[b"task"]
        if is_last:
            text = json.dumps(starts).encode()
            starts.clear()
        keys = [BARE_STREAM, BARE_RESULT + entry.decode(), BARE_REPLY]
        await commit(keys=keys, args=[GROUP, entry, fields[b"left"], text])

    while True:
        for _, entries in await client.xreadgroup(GROUP, "bare", {BARE_STREAM: ">"}, count=_READ, block=1000) or ():
            for entry, fields in entries:
                await one(entry, fields)


def _chain(client: Any, length: int) -> list[float]:
    client.xadd(BARE_STREAM, {"task": _TASK, "left": length - 1})
    starts: list[float] = json.loads(client.blpop(BARE_REPLY)[1])
    return starts


def hops(count: int) -> None:
    """Have chains run one after the other."""
    client = redis.Redis.from_url(URL)
    _chain(client, HOPS)
    say_hops([_chain(client, HOPS + 1) for _ in range(count)])


def latency(count: int) -> None:
    """Start a chain of two, and wait for the answer."""
    client = redis.Redis.from_url(URL)
    say_latency(count, lambda: _chain(client, 2))


if __name__ == "__main__":
    if sys.argv[1] == "relay":
        run(relay())
    else:
        {"hops": hops, "latency": latency}[sys.argv[1]](int(sys.argv[2]))
