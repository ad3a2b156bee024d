"""Limits of the fleet: how often, and how many at a time, tasks begin in all workers together."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from streamq import ConfigError, State
from streamq._redis.keys import Keys
from tests.serving import ended, until, workers

KEYS = Keys("sq")
QUEUE = KEYS.queue("default")


def calls_of(task, number, **options):
    """Enqueue a task so many times, in order."""
    return [task.using(**options).delay(n) for n in range(number)]


def most_in(times, window):
    """Count the most starts in any span of time."""
    times = sorted(times)
    return max(sum(first <= one < first + window for one in times) for first in times)


async def test_a_rate_holds_over_any_window(limited, connection):
    """There are never more starts than the rate gives in a span of time, and the burst, whatever number of workers."""
    results = calls_of(limited.paced, 40)
    async with workers(limited, 3):
        await ended(results)
    times = [time for key, _, time in limited.log if key == "paced"]
    assert len(times) == 40
    late = 0.15  # at most, between being let in and noting the time
    for window in (0.05, 0.1, 0.25, 0.5, 1.0):
        assert most_in(times, window) <= 20 * (window + late) + 3, window
    assert max(times) - min(times) < 37 / 20 * 1.25, "the rate is made use of"


async def test_those_that_wait_are_woken_in_order(limited, connection):
    """The first that each of the workers has fetched may ask in any order."""
    results = calls_of(limited.paced, 20)
    async with workers(limited, 2):
        await ended(results)
    started = [task_id for _, task_id, _ in sorted(limited.log, key=lambda one: one[2])]
    assert started[2:] == [result.id for result in results if result.id not in started[:2]]


async def test_the_place_of_one_that_has_expired_is_free_at_once(limited, connection):
    """It was woken, and does not begin: those behind it need not wait until somebody looks, a second later for each."""
    first = calls_of(limited.narrow, 2)
    async with workers(limited):
        await until(lambda: limited.running["narrow"] == 2)
        over = calls_of(limited.narrow, 12, expires=0.05)
        [live] = calls_of(limited.narrow, 1)
        await until(lambda: live.status() is State.HELD)
        loop = asyncio.get_running_loop()
        all_over = loop.time() + 0.1
        await until(lambda: loop.time() > all_over)
        limited.may_end.set()
        async with asyncio.timeout(3):
            await ended([live])
        await ended([*first, *over])
    assert {result.status() for result in over} == {State.EXPIRED}


async def test_no_more_run_at_a_time(limited, connection):
    """What waits is held: it is in no stream and has no worker; plain tasks go on."""
    results = calls_of(limited.narrow, 10)
    async with workers(limited, 3):
        await until(lambda: sum(result.status() is State.HELD for result in results) == 8)
        await ended(calls_of(limited.plain, 5))
        assert limited.running["narrow"] == 2
        limited.may_end.set()
        await ended(results)
    assert limited.most["narrow"] == 2


async def test_a_queue_can_have_a_limit(limited, connection):
    """It is for all its tasks together, also for messages of producers that do not know of it."""
    results = calls_of(limited.in_narrow_queue, 5) + calls_of(limited.plain, 5, queue="narrow")
    async with workers(limited, 2, queues=("narrow",)):
        await until(lambda: limited.running["queue"] == 2)
        await until(lambda: sum(result.status() is State.HELD for result in results) == 8)
        limited.may_end.set()
        await ended(results)
    assert limited.most["queue"] == 2


async def test_each_key_has_a_limit_of_its_own(limited, connection):
    results = [limited.by_user.delay(user) for user in "aabbcc"]
    async with workers(limited, 2):
        await until(lambda: [limited.running[user] for user in "abc"] == [1, 1, 1])
        limited.may_end.set()
        await ended(results)
    assert [limited.most[user] for user in "abc"] == [1, 1, 1]


async def test_all_limits_of_a_task_count(limited, connection):
    """What the first lets in and the second does not takes no place of either."""
    results = calls_of(limited.twice_limited, 6)
    async with workers(limited, 2):
        await until(lambda: limited.running["twice"] == 1)
        limited.may_end.set()
        await ended(results)
    assert limited.most["twice"] == 1


async def test_a_weight_is_reserved_and_settled(limited, connection):
    """Units that a run has not used are there for the next one at once; those that it did reserve are not."""
    first = limited.weighed.delay(60, used=10)
    async with workers(limited):
        await ended([first])
        second = limited.weighed.delay(85)
        await ended([second])
        third = limited.weighed.delay(10)
        await until(lambda: third.status() is State.HELD)
        connection.client.execute_command("DEL", *QUEUE.room("limit:tests.apps.limited.weighed"))
        connection.client.execute_command("DEL", QUEUE.rooms, QUEUE.record(third.id))


@pytest.mark.parametrize("name", ["weighed_in_thread", "weighed_in_process"])
async def test_a_weight_can_be_settled_from_anywhere(limited, connection, name):
    task = getattr(limited, name)
    results = [task.delay(90, 1) for _ in range(3)]
    async with workers(limited, pool_processes=1):
        await ended(results)
        assert [await result.aget() for result in results] == [True, True, True]


def test_a_weight_over_the_burst_is_refused(limited):
    """It could never run."""
    with pytest.raises(ConfigError, match=r"weight of 101 is over the burst of 100.*never run"):
        limited.weighed.delay(101)
    with pytest.raises(ConfigError, match="number over 0"):
        limited.weighed.delay(0)


async def test_a_place_is_freed_when_its_worker_dies(limited, connection, start_worker):
    """Nobody has to clean up: the record of the task says that the run is another's."""
    worker = start_worker("tests.apps.limited:app", "--lease", "60")
    results = calls_of(limited.narrow, 3)
    await until(lambda: sum(result.status() is State.HELD for result in results) == 1)
    before = {result.id for result in results if result.status() is State.RUNNING}
    for child in worker.children:
        os.kill(child, signal.SIGKILL)
    killed = asyncio.get_running_loop().time()
    await until(lambda: len(again(connection, results)) == 2)
    assert asyncio.get_running_loop().time() - killed < 8
    assert before
    worker.kill()
    connection.client.execute_command("FLUSHALL")


def again(connection, results):
    """Find those that run under a raised fence."""
    fences = {
        result.id: connection.client.execute_command("HGET", QUEUE.record(result.id), "fence") for result in results
    }
    return [result for result in results if result.status() is State.RUNNING and fences[result.id]]


def count_held(results):
    return sum(result.status() is State.HELD for result in results)


async def test_what_waits_does_not_spin(limited, connection):
    """While 200 tasks are held, the server has no more to do for each than to hold and to wake it once."""
    results = calls_of(limited.narrow, 200)
    async with workers(limited, 2):
        # The last one first: to ask all of them takes long.
        await until(lambda: results[-1].status() is State.HELD and count_held(results) == 198)
        connection.client.execute_command("CONFIG", "RESETSTAT")
        await asyncio.sleep(2)
        stats = connection.client.execute_command("INFO", "commandstats").decode()
        calls = sum(int(line.split("calls=")[1].split(",")[0]) for line in stats.splitlines() if "calls=" in line)
        assert calls < 2 * len(results)  # also those within scripts: each look of a worker at a queue is some twenty
        limited.may_end.set()
        await ended(results)
