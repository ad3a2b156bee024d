"""A flow is cancelled with all that belongs to it, step by step; whoever comes later can go on."""

from __future__ import annotations

import pytest

from streamq.broker import calls, flow_reads, flowing, flows
from streamq.broker.flows import Home, Plan
from streamq.broker.walking import complete
from streamq.lifecycle import State
from streamq.message import Message
from streamq.nodes import Chunk, FlowPart, Like
from streamq.sending import with_flow


def like(home="q", **more):
    return Like(task="shop.buy", options=with_flow(b"", FlowPart(home=home)), **more).encode()


def pair(**more):
    """Make the graph of two tasks, one after the other."""
    fields = [
        ("0", b'{"like":0,"args":"]","in":[1]}'),
        ("1", b'{"like":0,"args":"[]","to":[0]}'),
        ("like:0", like(**more)),
        ("start", b'{"to":[1]}'),
    ]
    return Plan(Chunk(fields, [(0, "ww")]), is_small=True, label="pair", out=0, size=2, roots=[])


@pytest.fixture
def home(q):
    return Home.of(q.keys, "q", 60_000)


@pytest.fixture
def start(q, home):
    """Give a function that has a flow begin, and all be enqueued that can be."""

    def begin(flow_id, plan):
        assert q.run(flows.start(home, flow_id, plan)).goes_on
        complete(q.connection, flowing.carry(q.keys, [("q", f"flow:{flow_id}")], 60_000))

    return begin


@pytest.fixture
def cancel(q):
    return lambda flow_id: complete(q.connection, flowing.cancel_flow(q.keys, "q", flow_id, 60_000))


def outboxes(q):
    return [q.redis("ZRANGE", q.keys.queue(name).outbox, 0, -1) for name in ("q", "far")]


def states(q, flow_id):
    return q.run(flow_reads.watch_nodes(q.queue, flow_id)).states


@pytest.mark.parametrize("more", [{}, {"delay_ms": 60_000}, {"queue": "far"}])
def test_its_tasks_are_cancelled_wherever_they_are(q, start, cancel, more):
    start("f", pair(**more))
    queue = q.keys.queue(more.get("queue", "q"))
    assert cancel("f") is True
    assert q.redis("HGET", queue.record("f.1"), "state") == b"cancelled"
    assert q.redis("EXISTS", queue.record("f.0")) == 0
    assert (q.record("f")["state"], states(q, "f")) == ("cancelled", "kc")
    assert q.entries(queue.ready) == []
    assert outboxes(q) == [[], []]
    assert all(q.redis("PTTL", key) != -1 for key in q.redis("KEYS", "*flow:f:*"))
    assert cancel("f") is True


def test_what_is_not_enqueued_yet_will_not_be(q, home, cancel):
    assert q.run(flows.start(home, "f", pair())).goes_on
    assert cancel("f") is True
    assert states(q, "f") == "kc"
    assert q.redis("EXISTS", q.queue.record("f.1")) == 0
    assert outboxes(q) == [[], []]


def test_a_flow_that_a_task_has_become_is_cancelled_too(q, home, start, cancel):
    start("f", pair())
    [delivery] = q.fetch()
    assert q.run(flows.become(home, delivery, pair(), None)).goes_on
    complete(q.connection, flowing.carry(q.keys, [("q", "flow:f.1")], 60_000))
    assert [entry["id"] for entry in q.entries(q.ready)] == ["f.1.1"]
    assert cancel("f") is True
    assert [q.record(one)["state"] for one in ("f", "f.1", "f.1.1")] == ["cancelled"] * 3
    assert (states(q, "f"), states(q, "f.1")) == ("kc", "kc")
    assert q.entries(q.ready) == []
    assert outboxes(q) == [[], []]


def test_what_comes_back_to_a_queue_is_cancelled_too(q, start, cancel):
    """Its message is in another stream than most are."""
    start("f", pair())
    q.give_back(*q.fetch())
    assert cancel("f") is True
    assert q.record("f.1")["state"] == "cancelled"
    assert q.entries(q.returned) == []
    assert outboxes(q) == [[], []]


def test_a_flow_that_has_ended_stays_as_it_is(q, home, start, cancel):
    start("f", pair())
    for node in (1, 0):
        q.run(flows.told(home, [flows.End(f"f.{node}", State.SUCCEEDED, b"1")]))
    assert cancel("f") is False
    assert (q.record("f")["state"], states(q, "f")) == ("succeeded", "ss")
    assert cancel("none") is False
    q.redis("FLUSHALL")  # tasks that no worker will run


def test_a_task_that_is_no_flow_is_cancelled_as_ever(q, cancel):
    q.run(calls.enqueue(q.queue, [Message("1", "shop.buy", "q", b"[]")], 5))
    assert cancel("1") is True
    assert q.record("1")["state"] == "cancelled"
