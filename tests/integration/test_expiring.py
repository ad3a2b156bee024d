"""A run that would begin too late does not begin, and whoever waits for it is told."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from streamq import State, TaskExpired
from streamq.worker import clock
from tests.serving import job, serving, until

LONG_AGO = datetime.now(UTC) - timedelta(days=1)
MINUTE = 60_000


@pytest.fixture
def lives(load_app_at, server_url):
    return load_app_at("tests.apps.lives", server_url)


@pytest.fixture(autouse=True)
def _clock():
    """Have the clock right again at the end."""
    yield
    clock.set_offset(0)


async def expired(result):
    """Wait for a task that has to end as expired, without having run any more."""
    async with asyncio.timeout(10):
        with pytest.raises(TaskExpired, match="it had not begun by") as raised:
            await result.aget()
        assert await result.astatus() is State.EXPIRED
    assert raised.value.type_name == "streamq.errors.TaskExpired"


@pytest.mark.parametrize("options", [{"expires": LONG_AGO}, {"expires": LONG_AGO, "countdown": 0.001}])
async def test_a_worker_that_comes_too_late_does_not_begin(lives, server_url, connection, options):
    """Whether the message was queued or delayed; nothing of it is left but its record."""
    late = await lives.once.using(**options).adelay()
    in_time = await lives.once.using(expires=60).adelay()
    async with serving(job(server_url, lives)):
        await expired(late)
        assert await in_time.aget() == "run 1"
    assert lives.runs == {in_time.id: 1}
    assert connection.client.execute_command("XLEN", "sq:{default}:stream:5") == 0
    await lives.app.aclose()


async def test_seconds_count_from_the_enqueue_on(lives, server_url, connection):
    """By the clock of Redis."""

    def redis_ms():
        seconds, micros = map(int, connection.client.execute_command("TIME"))
        return seconds * 1000 + micros // 1000

    result = await lives.once.using(expires=0.001).adelay()
    moment = redis_ms() + 50  # more than a worker's idea of that clock can be wrong
    await until(lambda: redis_ms() > moment)
    async with serving(job(server_url, lives)):
        await expired(result)
    assert not lives.runs
    await lives.app.aclose()


async def test_a_retry_does_not_begin_too_late(lives, server_url):
    """What the attempts before it came to stays in the record."""
    result = await lives.second_time.using(expires=60).adelay()
    async with serving(job(server_url, lives)):
        await until(lambda: lives.runs[result.id] == 1)
        clock.set_offset(2 * MINUTE)
        await expired(result)
    assert lives.runs == {result.id: 1}
    assert b"not yet" in (await result.arecord()).failure
    await lives.app.aclose()


async def test_a_message_can_expire_in_the_memory_of_a_worker(lives, server_url, connection):
    """It waits there for a place, and is looked at again when there is one. What has begun goes on."""
    first = await lives.held_in_thread.using(expires=60).adelay()
    second = await lives.held_in_thread.using(expires=60).adelay()
    async with serving(job(server_url, lives, threads=1)):
        await until(lambda: connection.client.execute_command("XPENDING", "sq:{default}:stream:5", "workers")[0] == 2)
        await until(lambda: lives.runs)
        clock.set_offset(2 * MINUTE)
        lives.go_on_in_thread.set()
        assert await first.aget() == "run 1"
        await expired(second)
    assert lives.runs == {first.id: 1}
    await lives.app.aclose()
