"""``unique=``, ``debounce=`` and ``throttle=``: enqueueing what is there already gives the result of the first."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from streamq import State, UnknownTaskId, by
from tests.workers import until

APP = "tests.apps.sole:app"
READY = "sq:{default}:stream:5"


@pytest.fixture
def sole(load_app_at, server_url):
    """Give the module of tasks of whose calls there is to be only one."""
    return load_app_at("tests.apps.sole", server_url)


def length(connection, stream=READY):
    return connection.client.execute_command("XLEN", stream)


def test_the_second_call_has_the_result_of_the_first(sole, start_worker):
    """It says so, and waits for the same outcome. When that is there, the next call is a new task."""
    first = sole.report.delay(7)
    second = sole.report.delay(user_id=7, fresh=True)
    other = sole.report.delay(8)
    assert (first.duplicate, second.duplicate, other.duplicate) == (False, True, False)
    assert second.id == first.id != other.id
    assert second == first
    start_worker(APP)
    assert second.get(timeout=10) == first.get(timeout=10) == "7 False"
    third = sole.report.delay(7)
    assert not third.duplicate
    assert third.get(timeout=10) == "7 False"


async def test_with_async_callers(sole, connection):
    async with sole.app:
        first, second = await sole.report.adelay(7), await sole.report.adelay(7)
        assert (second.id, first.duplicate, second.duplicate) == (first.id, False, True)
        together = await sole.app.aenqueue_many([sole.report.s(8), sole.report.s(7), sole.report.s(8)])
        assert [result.duplicate for result in together] == [False, True, True]
        assert together[2].id == together[0].id
        async with sole.app.transaction() as batch:
            fourth = batch.enqueue(sole.report.s(7))
        assert (fourth.id, fourth.duplicate) == (first.id, True)
    assert length(connection) == 2


def test_in_bulk(sole, connection):
    """The results are in the order of the calls, of whichever task and queue, and however many they are."""
    known = sole.report.using(queue="mails").delay(1)
    calls = [sole.report.using(queue=queue).s(n % 300) for n in range(600) for queue in ("mails", "default")]
    calls += [sole.plain.s(n) for n in range(5)]
    results = sole.app.enqueue_many(calls)
    firsts, rest = results[:600], results[600:1200]
    assert [result.id for result in rest] == [result.id for result in firsts]
    assert all(result.duplicate for result in rest)
    assert [n for n, result in enumerate(firsts) if result.duplicate] == [2]
    assert firsts[2].id == known.id
    assert [result.queue for result in firsts[:3]] == ["mails", "default", "mails"]
    assert not any(result.duplicate for result in results[1200:])
    assert (length(connection), length(connection, "sq:{mails}:stream:5")) == (305, 300)


def test_in_a_transaction(sole, connection):
    """What a result is of is known at the end of the block; a transaction that fails says nothing of the kind."""
    known = sole.report.delay(1)
    transaction = sole.app.transaction()
    with transaction as batch:
        results = [batch.enqueue(sole.report.s(n)) for n in (1, 2, 2)] + [batch.enqueue(sole.plain.s(1))]
        with pytest.raises(UnknownTaskId):
            results[0].get(timeout=5)
    assert [result.duplicate for result in results] == [True, False, True, False]
    assert [result.id for result in results[:3]] == [known.id, results[1].id, results[1].id]
    assert {result.status() for result in results} == {State.QUEUED}
    with transaction as batch:
        again = batch.enqueue(sole.report.s(3))
    assert not again.duplicate
    assert length(connection) == 4


def test_many_threads_enqueue_one_task(sole, connection):
    """All at once, and again when its holder has gone: one of them enqueues it, and the others get its result."""
    for number in range(2):
        begin = threading.Barrier(50)

        def call(begin=begin):
            begin.wait()
            return sole.report.delay(7)

        with ThreadPoolExecutor(50) as pool:
            results = [one.result() for one in [pool.submit(call) for _ in range(50)]]
        assert len({result.id for result in results}) == 1
        assert sum(not result.duplicate for result in results) == 1
        assert length(connection) == 1
        if number == 0:
            connection.client.execute_command("DEL", READY)


async def test_many_coroutines_enqueue_one_task(sole, connection):
    async with sole.app:
        results = await asyncio.gather(*(sole.report.adelay(7) for _ in range(50)))
    assert sum(not result.duplicate for result in results) == 1
    assert length(connection) == 1


def test_the_last_of_several_calls_is_run(sole, start_worker):
    """Once, with the arguments of the last; the next call after that is a new task."""
    first = sole.index.delay(1, "a")
    last = [sole.index.delay(1, text) for text in "bc"][-1]
    assert (last.id, first.duplicate, last.duplicate) == (first.id, False, True)
    assert sole.index.delay(2, "x").id != first.id
    start_worker(APP)
    assert first.get(timeout=10) == "1 c"
    again = sole.index.delay(1, "d")
    assert not again.duplicate
    assert again.get(timeout=10) == "1 d"


def test_the_first_of_several_calls_is_run(sole, connection):
    """Others are duplicates of it until the time is over."""
    first, second = sole.remind.delay(1, "a"), sole.remind.delay(1, "b")
    assert (second.id, second.duplicate) == (first.id, True)
    run = connection.client.execute_command
    [lock] = run("KEYS", "*:unique:*")
    assert 50_000 < run("PTTL", lock) <= 60_000
    run("PEXPIRE", lock, 1)
    until(lambda: not run("EXISTS", lock))
    assert not sole.remind.delay(1, "c").duplicate


def test_a_sender_says_it_in_place_of_the_task(sole):
    """A task that says nothing can be unique for once, and one that says something can be so in another way."""
    only = sole.plain.using(unique=by())
    assert [only.delay(1).duplicate for _ in range(2)] == [False, True]
    assert not sole.plain.delay(1).duplicate
    assert not sole.report.delay(1).duplicate
    assert [sole.report.using(unique=by()).delay(1, fresh=fresh).duplicate for fresh in (True, False)] == [False] * 2
