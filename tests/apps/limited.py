"""Tasks with limits and orders, for workers in the process of the test; each start is noted by the server's clock."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from tenacity import wait_fixed

from streamq import Limit, Retry, StreamQ, current

app = StreamQ(queue_limits={"narrow": Limit(concurrency=2)}, fairness_weights={"gold": 3})
log: list[tuple[str, str, float]] = []
running: defaultdict[str, int] = defaultdict(int)
most: defaultdict[str, int] = defaultdict(int)
may_end = asyncio.Event()


def _now() -> float:
    """Ask for the server's time."""
    seconds, micros = app.broker.sync.client.execute_command("TIME")
    return int(seconds) + int(micros) / 1_000_000


def _note(key: str) -> None:
    """Note a start."""
    log.append((key, current().id, _now()))


async def _hold(key: str) -> None:
    """Take part in what runs under a key."""
    running[key] += 1
    most[key] = max(most[key], running[key])
    try:
        _note(key)
        await may_end.wait()
    finally:
        running[key] -= 1


@app.task(rate_limit="100/s")
async def quick(number: int) -> int:
    _note("quick")
    return number


@app.task(limits=[Limit(rate="20/s", burst=3)])
async def paced(number: int) -> int:
    _note("paced")
    return number


@app.task(concurrency=2)
async def narrow(number: int) -> int:
    await _hold("narrow")
    return number


@app.task(limits=[Limit(concurrency=1, by="user")])
async def by_user(user: str) -> str:
    await _hold(user)
    return user


@app.task(limits=[Limit(rate="1000/h", weight="tokens", burst=100)], bind=True)
async def weighed(context, tokens: int, used: int | None = None) -> int:
    _note("weighed")
    if used is not None:
        await context.asettle(used)
    return tokens


@app.task(limits=[Limit(rate="1000/h", weight="tokens", burst=100)], bind=True)
def weighed_in_thread(context, tokens: int, used: int) -> bool:
    return context.settle(used)


@app.task(limits=[Limit(rate="1000/h", weight="tokens", burst=100)], bind=True, pool="process")
def weighed_in_process(context, tokens: int, used: int) -> bool:
    return context.settle(used)


@app.task(limits=[Limit(concurrency=1, name="one"), Limit(concurrency=2, name="two")])
async def twice_limited(number: int) -> int:
    await _hold("twice")
    return number


@app.task
async def plain(number: int) -> int:
    _note("plain")
    return number


@app.task(queue="narrow")
async def in_narrow_queue(number: int) -> int:
    await _hold("queue")
    return number


@app.task(fairness_key="tenant")
async def fair(tenant: str) -> str:
    _note(tenant)
    return tenant


@app.task(ordering_key="key", retry=Retry(wait=wait_fixed(0.02)))
async def ordered(key: str, number: int, fail_first: int = 0) -> int:
    _note(f"{key}-{number}")
    running[key] += 1
    most[key] = max(most[key], running[key])
    await asyncio.sleep(0)
    running[key] -= 1
    if current().attempt <= fail_first:
        raise ConnectionError("not yet")
    return number
