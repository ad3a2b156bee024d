"""In which order a worker takes messages of several levels and queues; and that none of them is left behind."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from streamq._redis.keys import GROUP, Keys
from streamq.broker import calls
from streamq.broker.fleet import Fleet
from streamq.config import LEVELS, Settings, WorkerSettings
from streamq.errors import ConfigError
from streamq.worker import lanes, promoter, reaper
from tests.serving import job, serving, until
from tests.workers import until as poll

QUEUE = Keys("sq").queue("default")


@pytest.fixture
def lives(load_app_at, server_url):
    """Give tasks that note their runs, in order."""
    return load_app_at("tests.apps.lives", server_url)


@pytest.fixture
def one_by_one(monkeypatch):
    """Have workers fetch no more than they have places for, and look often."""
    monkeypatch.setattr(lanes, "AHEAD_MOST", 0)
    monkeypatch.setattr(promoter, "_LONGEST_SECONDS", 0.05)


def enqueue(lives, task_id, task="once", **options):
    return getattr(lives, task).using(task_id=task_id, **options).delay()


async def ended(lives, count):
    async with asyncio.timeout(20):
        await until(lambda: len(lives.runs) == count)


async def test_larger_levels_come_first(lives, server_url):
    """Within a level in the order of enqueueing; the default is 5."""
    for nth in range(3):
        for level in (0, None, 9, 6):
            enqueue(lives, f"{level}-{nth}", priority=level)
    async with serving(job(server_url, lives, concurrency=1)):
        await ended(lives, 12)
    assert list(lives.runs) == [f"{level}-{nth}" for level in (9, 6, None, 0) for nth in range(3)]


async def test_a_task_can_have_a_priority_of_its_own(lives, server_url):
    """A call can have another."""

    @lives.app.task(priority=9)
    async def urgent(name: str) -> None:
        lives.runs[name] += 1

    enqueue(lives, "1")
    urgent.using(priority=0).delay("last")
    urgent.delay("first")
    async with serving(job(server_url, lives, concurrency=1)):
        await ended(lives, 3)
    assert list(lives.runs) == ["first", "1", "last"]


async def test_an_urgent_task_overtakes_a_thousand(lives, server_url, one_by_one):
    """It waits for what runs, and for nothing else."""
    lives.app.enqueue_many(lives.once.s() for _ in range(1000))
    enqueue(lives, "running", "held", priority=9)
    async with serving(job(server_url, lives, concurrency=1)):
        await until(lambda: lives.runs)
        enqueue(lives, "urgent", priority=9)
        lives.go_on()
        await ended(lives, 1002)
    assert list(lives.runs)[:2] == ["running", "urgent"]


async def test_a_new_level_is_learned_within_a_second(lives, server_url):
    """Also while the worker waits for messages of other levels."""
    enqueue(lives, "1")
    async with serving(job(server_url, lives)):
        await ended(lives, 1)
        asked = asyncio.get_running_loop().time()
        enqueue(lives, "2", priority=0)
        await ended(lives, 2)
        assert asyncio.get_running_loop().time() - asked < 1.3


async def begin_to_wait(fleet, connection):
    """Have a fetch begin, and wait for messages in the server."""
    waiting = asyncio.create_task(fleet.fetch(10))
    await until(lambda: b"blocked_clients:1" in connection.client.execute_command("INFO", "clients"))
    return waiting


async def test_a_read_that_waits_ends_when_there_is_news(lives, server_url, connection):
    """Of a new level or a pause: else the worker would wait for other streams, for as long as its reads do."""
    fleet = Fleet(Settings(url=server_url), WorkerSettings(), "w-1", 30.0)
    try:
        async with asyncio.timeout(10):
            await fleet.prepare()
            waiting = await begin_to_wait(fleet, connection)
            enqueue(lives, "1", priority=9)
            await fleet.promote("default", 10)
            assert (await waiting).deliveries == []
            [delivery] = (await fleet.fetch(10)).deliveries
            assert delivery.message.id == "1"
            lives.app.queues.pause("default")
            waiting = await begin_to_wait(fleet, connection)
            await fleet.promote("default", 10)
            enqueue(lives, "2")
            assert (await waiting).deliveries == []
    finally:
        await fleet.close()


async def test_strictly_low_levels_come_last(lives, server_url, one_by_one):
    enqueue(lives, "low", priority=0)
    lives.app.enqueue_many(lives.once.using(priority=9).s() for _ in range(300))
    async with serving(job(server_url, lives, concurrency=1)):
        await ended(lives, 301)
    assert list(lives.runs)[-1] == "low"


async def test_with_weights_low_levels_are_not_starved(lives, server_url, one_by_one):
    enqueue(lives, "low", priority=0)
    lives.app.enqueue_many(lives.once.using(priority=9).s() for _ in range(300))
    weights = tuple(range(1, 11))
    async with serving(job(server_url, lives, concurrency=1, level_weights=weights)):
        await ended(lives, 301)
    assert list(lives.runs)[-1] != "low"


async def test_a_queue_waits_for_those_before_it(lives, server_url, one_by_one):
    for nth in range(20):
        enqueue(lives, f"b{nth}", queue="b", priority=9)
        enqueue(lives, f"a{nth}", queue="a")
    async with serving(job(server_url, lives, concurrency=1, queues=("a", "b"))):
        await ended(lives, 40)
    assert list(lives.runs) == [f"{queue}{nth}" for queue in "ab" for nth in range(20)]


async def test_weighted_queues_share(lives, server_url, one_by_one):
    for nth in range(200):
        enqueue(lives, f"a{nth}", queue="a")
    enqueue(lives, "b", queue="b")
    async with serving(job(server_url, lives, concurrency=1, queues=("a", "b"), queue_weights=(3, 1))):
        await ended(lives, 201)
    assert list(lives.runs)[-1] != "b"


async def test_no_more_is_fetched_than_there_is_room_for(lives, server_url, connection, one_by_one):
    """What one worker cannot run yet stays for another, on whatever level it is."""
    for level in LEVELS:
        for nth in range(5):
            enqueue(lives, f"{level}-{nth}", "held", priority=level)
    async with serving(job(server_url, lives, concurrency=7)):
        await ended(lives, 7)
        held = [connection.client.execute_command("XPENDING", stream, GROUP)[0] for stream in QUEUE.levels]
        assert sum(held) == 7
        lives.go_on()
        await ended(lives, 50)


async def test_what_a_lost_worker_held_is_reclaimed_from_each_level(lives, server_url, connection, monkeypatch):
    monkeypatch.setattr(reaper, "_SWEEP_SECONDS", (0.03, 0.06))
    for level in LEVELS:
        enqueue(lives, str(level), priority=level)
    for one in connection.run(calls.fetch(dict.fromkeys(QUEUE.levels, "default"), "ghost", 10, 0)):
        connection.client.execute_command("XCLAIM", one.stream, GROUP, "ghost", 0, one.entry, "IDLE", 60_000, "JUSTID")
    async with serving(job(server_url, lives)):
        await ended(lives, len(LEVELS))
        await until(lambda: all(lives.app.result(str(level), queue="default").record().state.ended for level in LEVELS))
    assert {lives.app.result(str(level), queue="default").record().deaths for level in LEVELS} == {1}


def test_a_killed_process_loses_no_task_of_any_level(basic, start_worker, marked):
    """Its supervisor hands back at once what it held; that runs again, and keeps its level."""
    marker, ready = marked
    worker = start_worker("tests.apps.basic:app", "--lease", "30")
    results = [basic.until_file.using(priority=level).delay(marker, ready) for level in LEVELS]
    poll(lambda: len(marker.read_text().split()) == len(LEVELS))
    [child] = worker.children
    os.kill(child, signal.SIGKILL)
    poll(lambda: len(marker.read_text().split()) == 2 * len(LEVELS))
    ready.touch()
    assert [result.get(timeout=10) for result in results] == [2] * len(LEVELS)
    assert {result.record().deaths for result in results} == {1}


@pytest.mark.parametrize("priority", [-1, 10, 5.0, True, "high"])
def test_a_level_that_there_is_not(lives, priority):
    with pytest.raises(ConfigError, match="priority must be a whole number from 0 to 9, larger first, not"):
        lives.once.using(priority=priority)
    with pytest.raises(ConfigError, match="priority must be a whole number"):
        lives.app.task(priority=priority)(lambda: None)
