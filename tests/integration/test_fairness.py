"""Fair tenants: calls of different fairness keys take turns."""

from __future__ import annotations

from collections import Counter

from streamq import State
from tests.serving import ended, workers

AT_ONCE = 200  # what is in streams, and what a worker has fetched


def begun(module):
    return [key for key, _, _ in module.log]


async def test_one_tenants_many_tasks_do_not_hold_up_anothers(limited, connection):
    """The other's only task runs as soon as what was in the stream before it has."""
    many = limited.app.enqueue_many(limited.fair.s("a") for _ in range(1000))
    one = limited.fair.delay("b")
    assert one.status() is State.HELD
    async with workers(limited, 1, concurrency=10):
        await ended([one])
        assert begun(limited).index("b") < AT_ONCE
        await ended(many)
    assert Counter(begun(limited)) == {"a": 1000, "b": 1}


async def test_weights_say_how_many_turns_a_tenant_has(limited, connection):
    results = limited.app.enqueue_many(limited.fair.s("x") for _ in range(100))
    for tenant in ("tin", "gold"):
        results += limited.app.enqueue_many(limited.fair.s(tenant) for _ in range(400))
    async with workers(limited, 1, concurrency=10):
        await ended(results)
    both = [key for key in begun(limited) if key != "x"][:400]
    assert 2.5 < Counter(both)["gold"] / Counter(both)["tin"] < 3.5


async def test_what_is_alone_does_not_wait(limited, connection):
    result = limited.fair.delay("a")
    assert result.status() is State.QUEUED
    async with workers(limited):
        await ended([result])
