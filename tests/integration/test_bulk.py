"""Many calls at once: from iterables of any size, of all kinds, in order; and what is known of each."""

from __future__ import annotations

from collections import Counter
from weakref import WeakValueDictionary

import pytest

from streamq._redis.keys import Keys
from streamq.errors import ConfigError

KEYS = Keys("sq")


@pytest.fixture
async def closing(basic):
    """Close the connections of the event loop at the end."""
    yield
    await basic.app.aclose()


def ids_on(connection, stream):
    return [fields[1].decode() for _, fields in connection.client.execute_command("XRANGE", stream, "-", "+")]


def test_memory_does_not_grow_with_the_number_of_calls(basic, connection):
    """Of a generator of 100,000 calls two chunks at most are held at a time, and no result that was given."""
    alive, most = WeakValueDictionary(), 0

    def calls():
        nonlocal most
        for n in range(100_000):
            alive[n] = call = basic.add.s(n, n)
            most = max(most, len(alive))
            yield call

    assert sum(1 for _ in basic.app.enqueue_each(calls(), chunk_size=500)) == 100_000
    assert most <= 1000
    assert connection.client.execute_command("XLEN", KEYS.queue("default").ready) == 100_000
    connection.client.execute_command("FLUSHALL")


def test_calls_of_all_kinds_keep_their_order(basic, connection):
    """For each queue and level that of the iterable; delayed ones are among them."""

    def calls():
        for n in range(2000):
            queue, priority = ("a", "b")[n % 2], (5, 9, 0)[n % 3]
            yield basic.add.using(task_id=str(n), queue=queue, priority=priority).s(n, n)
        yield basic.square.using(task_id="later", queue="a", countdown=60).s(2)

    results = basic.app.enqueue_many(calls())
    assert [result.id for result in results] == [*map(str, range(2000)), "later"]
    assert not any(result.duplicate for result in results)
    for place, queue in enumerate("ab"):
        for nth, level in enumerate((5, 9, 0)):
            expected = [str(n) for n in range(2000) if (n % 2, n % 3) == (place, nth)]
            assert ids_on(connection, KEYS.queue(queue).levels[level]) == expected
    assert results[-1].status() == "delayed"


async def test_progress_is_told_after_each_chunk(basic, closing):
    for many in (basic.app.enqueue_many, basic.app.aenqueue_many):
        counts = []
        results = many((basic.add.s(n, n) for n in range(7)), on_progress=counts.append, chunk_size=3)
        assert len(results if isinstance(results, list) else await results) == 7
        assert counts == [3, 6, 7]


async def test_what_was_there_already_is_told(basic, closing):
    """Of ids that the caller has chosen; by each way to enqueue."""
    basic.add.using(task_id="1").delay(1, 1)
    calls = [basic.add.s(1, 1), *(basic.add.using(task_id=one).s(1, 1) for one in ("1", "2", "2"))]
    duplicates = [False, True, False, True]
    assert [one.duplicate for one in basic.app.enqueue_many(calls)] == duplicates
    again = [False, True, True, True]
    assert [one.duplicate for one in await basic.app.aenqueue_many(calls)] == again
    assert [one.duplicate for one in basic.app.enqueue_each(calls, chunk_size=1)] == again
    assert [one.duplicate async for one in basic.app.aenqueue_each(calls)] == again
    assert basic.add.using(task_id="1").delay(1, 1).duplicate
    assert (await basic.add.using(task_id="1").adelay(1, 1)).duplicate
    assert not basic.add.using(task_id="3").delay(1, 1).duplicate


async def test_an_async_iterable_is_taken_as_well(basic, closing, connection):
    async def calls():
        for n in range(2500):
            yield basic.add.using(task_id=str(n)).s(n, n)

    assert [one.id for one in await basic.app.aenqueue_many(calls())] == [str(n) for n in range(2500)]
    found = [one.duplicate async for one in basic.app.aenqueue_each(calls(), chunk_size=999)]
    assert Counter(found) == {True: 2500}
    assert ids_on(connection, KEYS.queue("default").ready) == [str(n) for n in range(2500)]


def test_results_one_by_one_come_while_calls_are_still_made(basic, connection):
    """Nothing is enqueued before a result is asked for, and then a chunk."""
    taken = []

    def calls():
        for n in range(100):
            taken.append(n)
            yield basic.add.s(n, n)

    results = basic.app.enqueue_each(calls(), chunk_size=10)
    assert taken == []
    next(results)
    assert taken == list(range(10))
    assert connection.client.execute_command("XLEN", KEYS.queue("default").ready) == 10
    results.close()


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "10"])
def test_a_chunk_of_no_size(basic, size):
    """It is said at once, and not when the first result is asked for."""
    for call in (basic.app.enqueue_many, basic.app.enqueue_each, basic.app.aenqueue_each):
        with pytest.raises(ConfigError, match="chunk_size must be a whole number of 1 or more, not"):
            call([], chunk_size=size)
