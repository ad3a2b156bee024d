"""Order: tasks of one key run one after another, as they were enqueued, whatever happens to them."""

from __future__ import annotations

import pytest

from streamq import ConfigError, State
from streamq._redis.keys import Keys
from tests.serving import ended, workers

QUEUE = Keys("sq").queue("default")


def runs_of(module, key):
    """Return the numbers of the runs of a key, as they began."""
    names = [name for name, _, _ in sorted(module.log, key=lambda one: one[2])]
    return [int(name.rpartition("-")[2]) for name in names if name.startswith(f"{key}-")]


async def test_tasks_of_a_key_run_in_the_order_of_their_enqueueing(limited, connection):
    results = [limited.ordered.delay(key, number) for number in range(20) for key in "ab"]
    async with workers(limited, 3):
        await ended(results)
    assert runs_of(limited, "a") == runs_of(limited, "b") == list(range(20))
    assert limited.most == {"a": 1, "b": 1}


async def test_a_retry_holds_up_those_behind_it(limited, connection):
    results = [limited.ordered.delay("a", number, 2 if number == 1 else 0) for number in range(4)]
    async with workers(limited, 2):
        await ended(results)
    assert runs_of(limited, "a") == [0, 1, 1, 1, 2, 3]


async def test_a_key_can_be_chosen_for_a_call(limited, connection):
    """Also for a task that says nothing of order; bulks and transactions keep it too."""
    results = [limited.plain.using(ordering_key="x").delay(0)]
    results += limited.app.enqueue_many(limited.plain.using(ordering_key="x").s(number) for number in range(1, 5))
    with limited.app.transaction() as batch:
        results += [batch.enqueue(limited.plain.using(ordering_key="x").s(number)) for number in range(5, 8)]
    assert [result.status() for result in results] == [State.QUEUED] + [State.HELD] * 7
    async with workers(limited, 2):
        await ended(results)
    started = [task_id for _, task_id, _ in sorted(limited.log, key=lambda one: one[2])]
    assert started == [result.id for result in results]


async def test_the_next_one_goes_when_the_first_has_ended_in_any_way(limited, connection):
    """Nobody tells: it was deleted by hand, say. A sweep finds it within a second."""
    results = [limited.ordered.delay("a", number) for number in range(3)]
    connection.client.execute_command("XTRIM", QUEUE.ready, "MAXLEN", 0)
    connection.client.execute_command("DEL", QUEUE.record(results[0].id))
    async with workers(limited):
        await ended(results[1:])
    assert runs_of(limited, "a") == [1, 2]


def test_a_delay_is_refused(limited):
    with pytest.raises(ConfigError, match="all behind it would have to wait"):
        limited.ordered.using(countdown=1)
