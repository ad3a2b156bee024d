"""What is done with queues as a whole: a pause that all workers see, a move that callers need not know of, measures."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from streamq import State, UnknownTaskId
from streamq._redis.keys import GROUP, Keys
from streamq.broker import moving
from streamq.errors import ConfigError
from streamq.worker import promoter
from tests.serving import job, serving, until

QUEUE = Keys("sq").queue("default")


@pytest.fixture
def lives(load_app_at, server_url):
    return load_app_at("tests.apps.lives", server_url)


@pytest.fixture
async def closing(lives):
    """Close the connections of the event loop at the end."""
    yield
    await lives.app.aclose()


@pytest.fixture
def quick(monkeypatch):
    """Have workers look often."""
    monkeypatch.setattr(promoter, "_LONGEST_SECONDS", 0.05)


@pytest.fixture
def length(connection):
    return lambda key=QUEUE.ready: connection.client.execute_command("XLEN", key)


async def passed(seconds):
    """Wait until a time is over that is itself what is tested."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    await until(lambda: loop.time() > end)


# ---- pause


async def test_all_workers_see_a_pause_and_its_end_within_a_second(lives, closing, server_url, length):
    """Also those that wait for messages at that moment. What comes meanwhile waits."""
    async with asyncio.timeout(15), contextlib.AsyncExitStack() as stack:
        for name in ("w-1", "w-2"):
            await stack.enter_async_context(serving(job(server_url, lives, name)))
        lives.once.delay()
        await until(lambda: len(lives.runs) == 1)
        assert await lives.app.queues.apause("default")
        await passed(1.1)
        for _ in range(20):
            lives.once.delay()
        await passed(0.3)
        assert (len(lives.runs), length()) == (1, 20)
        assert await lives.app.queues.aresume("default")
        resumed = asyncio.get_running_loop().time()
        await until(lambda: len(lives.runs) == 21)
        assert asyncio.get_running_loop().time() - resumed < 1.3


async def test_a_worker_that_begins_during_a_pause_sees_it(lives, closing, server_url, connection, length):
    """From its first look on; it still puts on their streams what has become due."""
    assert lives.app.queues.pause("default")
    assert not lives.app.queues.pause("default")
    lives.once.using(priority=9).delay()
    lives.once.using(countdown=0.001).delay()
    async with asyncio.timeout(10), serving(job(server_url, lives)) as stop:
        await until(lambda: length() == 1)
        assert connection.client.execute_command("XPENDING", QUEUE.levels[9], GROUP)[0] == 0
        stop.asked.set()
    assert not lives.runs
    assert lives.app.queues.resume("default")
    assert not lives.app.queues.resume("default")


async def test_what_runs_goes_on_during_a_pause(lives, closing, server_url, quick):
    result = lives.held.using(task_id="1").delay()
    async with asyncio.timeout(10), serving(job(server_url, lives)):
        await until(lambda: lives.runs)
        await lives.app.queues.apause("default")
        lives.go_on()
        assert await result.aget() == "run 1"


async def test_other_queues_of_a_worker_are_read_during_a_pause(lives, closing, server_url, quick):
    lives.app.queues.pause("a")
    lives.once.using(queue="a", task_id="in-a").delay()
    lives.once.using(queue="b", task_id="in-b").delay()
    async with asyncio.timeout(10), serving(job(server_url, lives, queues=("a", "b"))):
        await until(lambda: lives.runs)
        assert list(lives.runs) == ["in-b"]
        lives.app.queues.resume("a")
        await until(lambda: len(lives.runs) == 2)


# ---- move


async def test_callers_who_know_the_old_queue_alone_get_their_results(lives, closing, server_url, quick):
    """Those who wait while it is moved, and those who ask afterwards, for the state, the result or nothing more."""
    result = lives.once.using(task_id="1").delay()
    waiting = asyncio.create_task(result.aget(10))
    assert await lives.app.queues.amove("default", "other") == (1, 0)
    assert result.status() is await result.astatus() is State.DELAYED
    async with asyncio.timeout(10), serving(job(server_url, lives, queues=("other",))):
        assert await waiting == "run 1"
    assert result.get(1) == "run 1"
    assert lives.app.result("1").get(1) == lives.app.result("1", queue="other").get(1) == "run 1"
    assert await lives.app.result("1").aget(1) == "run 1"
    assert result.forget()
    assert lives.app.result("1", queue="other").status() is State.UNKNOWN
    with pytest.raises(UnknownTaskId):
        result.get(1)


async def test_a_worker_goes_on_with_an_interrupted_move(lives, closing, server_url, connection, quick):
    """The mover was killed when the message had left the queue; nobody makes the move again."""
    result = lives.once.using(task_id="1").delay()
    entries = connection.run(moving.entries(QUEUE, QUEUE.ready, b"0-0", b"+"))
    assert connection.run(moving.depart(QUEUE, QUEUE.ready, "other", entries)) == 1
    [info] = lives.app.queues.list()
    assert (info.moving, info.length) == (1, 0)
    async with asyncio.timeout(10), serving(job(server_url, lives, "w-1")):
        await until(lambda: lives.app.result("1", queue="other").status() is State.DELAYED)
    async with asyncio.timeout(10), serving(job(server_url, lives, "w-2", queues=("other",))):
        assert await result.aget() == "run 1"


async def test_a_move_past_workers_of_both_queues_runs_each_task_once(lives, closing, server_url, quick):
    """Whoever has a message when the move comes by keeps it."""
    lives.app.enqueue_many(lives.once.using(task_id=str(n)).s() for n in range(1500))
    old = serving(job(server_url, lives, "w-1", concurrency=2))
    new = serving(job(server_url, lives, "w-2", concurrency=2, queues=("other",)))
    async with asyncio.timeout(30), old, new:
        moved, conflicts = await lives.app.queues.amove("default", "other")
        await until(lambda: len(lives.runs) == 1500)
    assert 0 < moved < 1500
    assert conflicts == 0
    assert set(lives.runs.values()) == {1}


@pytest.mark.parametrize(("source", "target"), [("a", "a"), ("a b", "c"), ("a", "{c}"), ("", "c")])
def test_queues_that_cannot_be_moved(lives, source, target):
    with pytest.raises(ConfigError, match="queue"):
        lives.app.queues.move(source, target)


# ---- measures


async def test_a_look_at_all_queues(lives, closing, connection, server_url):
    """Waiting, by level, and what else there is of each; the sync and the async form say the same."""
    for level in (9, 9, 5, 0):
        lives.once.using(priority=level).delay()
    lives.once.using(countdown=60).delay()
    lives.once.using(queue="mail").delay()
    lives.app.queues.pause("paused")
    default, mail, paused = lives.app.queues.list()
    assert (default.name, default.length, default.levels) == ("default", 4, {0: 1, 5: 1, 9: 2})
    assert (default.pending, default.delayed, default.dead, default.returned, default.moving) == (0, 1, 0, 0, 0)
    assert 0 <= default.oldest_age < 30
    assert (mail.name, mail.length, mail.paused) == ("mail", 1, False)
    assert (paused.name, paused.length, paused.paused, paused.oldest_age) == ("paused", 0, True, None)
    assert (default.enqueued_rate, default.ended_rate) == (None, None)
    [again, *_] = await lives.app.queues.alist()
    assert again.levels == default.levels


async def test_rates_come_from_two_looks(lives, closing, server_url):
    """Messages that came, and those that ended, a second; also where they ended at once."""
    lives.once.delay()
    async with asyncio.timeout(10), serving(job(server_url, lives)):
        await until(lambda: len(lives.runs) == 1)
        asked = asyncio.create_task(lives.app.queues.alist(over=0.5))
        await passed(0.1)
        for _ in range(10):
            lives.once.delay()
        [info] = await asked
    assert 5 < info.enqueued_rate <= 20
    assert 5 < info.ended_rate <= 20


@pytest.mark.parametrize("over", [0, -1, float("inf"), True, "1"])
def test_a_time_between_two_looks_that_is_none(lives, over):
    with pytest.raises(ConfigError, match="over must be more than 0 seconds, not"):
        lives.app.queues.list(over=over)
