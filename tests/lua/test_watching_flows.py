"""flow_watch, flow_tasks and forget: how a flow and its nodes stand, who is told when it goes on, and how it goes."""

from __future__ import annotations

import json

import pytest

from streamq.broker import calls, cancels, flow_reads, flows
from streamq.broker.flow_reads import OfTask, Standing
from streamq.broker.flows import Home, Plan
from streamq.lifecycle import State
from streamq.message import Message
from streamq.nodes import Chunk, FlowPart, Like, NodeState
from streamq.sending import with_flow
from tests.lua.conftest import ERROR

# Two tasks side by side, the second of which goes to another queue, and the list of their values.
NEAR = Like(task="shop.buy", options=with_flow(b"", FlowPart(home="q", group="fail"))).encode()
FAR = Like(task="shop.sell", options=with_flow(b"", FlowPart(home="q", group="fail")), queue="far").encode()
GRAPH = [
    ("0", b'{"join":"fail","in":[1,2],"deps":2}'),
    ("1", b'{"like":0,"args":"[]","to":[0]}'),
    ("2", b'{"like":1,"args":"[]","to":[0]}'),
    ("like:0", NEAR),
    ("like:1", FAR),
    ("start", b'{"to":[1,2]}'),
]


@pytest.fixture
def home(q):
    return Home.of(q.keys, "q", 60_000)


@pytest.fixture
def flow(q, home):
    """Begin a flow whose id is f."""
    plan = Plan(Chunk(GRAPH, [(0, "www")]), is_small=True, label="two", out=0, size=3, roots=[])
    assert q.run(flows.start(home, "f", plan)).is_new
    return q.queue.flow("f")


@pytest.fixture
def end(q, home):
    """Give a function that tells the flow that the task of a node has ended."""

    def tell(node, state=State.SUCCEEDED, body=b"1"):
        q.run(flows.told(home, [flows.End(f"f.{node}", state, body)]))

    return tell


@pytest.fixture(autouse=True)
def _is_over(q, request):
    """Leave nothing behind that only workers would see to."""
    yield
    q.redis("FLUSHALL")


def test_how_a_flow_and_its_nodes_stand(q, flow, end):
    assert q.run(flow_reads.watch_nodes(q.queue, "f")) == Standing(State.RUNNING, None, 0, 3, 3, "wrr")
    end(1)
    assert q.run(flow_reads.watch_nodes(q.queue, "f", first=1, last=1)).states == "s"
    end(2)
    assert q.run(flow_reads.watch_nodes(q.queue, "f")) == Standing(State.SUCCEEDED, None, 0, 3, 0, "sss")
    assert "watchers" not in q.record("f")


def test_of_what_is_no_flow_there_is_nothing_to_see(q):
    assert q.run(flow_reads.watch_nodes(q.queue, "f")) == Standing(State.UNKNOWN)
    q.enqueue("1")
    assert q.run(flow_reads.watch_nodes(q.queue, "1")) == Standing(State.QUEUED)


def test_where_it_was_moved_to_is_said(q):
    q.redis("HSET", q.queue.record("1"), "state", "delayed", "moved_to", "far")
    assert q.run(flow_reads.watch_nodes(q.queue, "1", "me")).moved_to == "far"
    assert "watchers" not in q.record("1")


def test_watchers_are_told_of_each_end_and_waiters_of_the_last(q, flow, end):
    """A client is noted once, however often it looks."""
    for _ in range(2):
        q.run(flow_reads.watch_nodes(q.queue, "f", "watcher"))
        q.run(flow_reads.watch_end(q.queue, "f", "waiter"))
    q.run(flow_reads.watch_nodes(q.queue, "f", "other"))
    assert (q.record("f")["watchers"], q.record("f")["waiters"]) == ("watcher other", "waiter")
    with q.listening("sq:done:watcher", "sq:done:waiter") as told:
        end(1)
        assert told() == ("sq:done:watcher", b"f")
        end(2)
        assert sorted([told(), told()]) == [("sq:done:waiter", b"f"), ("sq:done:watcher", b"f")]


def test_who_waits_sees_what_came_of_it(q, flow, end):
    """But nobody else does: it may be long."""
    end(1, State.FAILED, ERROR)
    standing = q.run(flow_reads.watch_end(q.queue, "f", "me"))
    assert (standing.state, standing.states) == (State.FAILED, "")
    assert json.loads(standing.body)["message"] == "no tea"
    assert "waiters" not in q.record("f")
    assert q.run(flow_reads.watch_nodes(q.queue, "f", "me")) == Standing(State.FAILED, None, 0, 3, 1, "kfr")
    assert q.record("f")["watchers"] == "me", "the other member has not ended"


def test_which_tasks_the_nodes_are_of(q, flow, end):
    end(1)
    assert q.run(flow_reads.tasks(q.queue, "f", [2, 0, 1])) == [
        OfTask(NodeState.RELEASED, "shop.sell", "far", FlowPart(home="q", group="fail")),
        OfTask(NodeState.WAITING, "", "q", None),
        OfTask(NodeState.SUCCEEDED, "shop.buy", "q", FlowPart(home="q", group="fail")),
    ]
    assert q.run(flow_reads.tasks(q.queue, "f", [7])) == [OfTask(NodeState.NONE, "", "q", None)]


def test_a_page_of_nodes_ends_when_it_is_large(q, flow):
    """One at least is read."""
    large = b'{"like":0,"args":"%b"}' % (b"x" * 2**20)
    q.redis("HSET", flow[3], "1", large, "2", large)
    assert len(q.run(flow_reads.tasks(q.queue, "f", [1, 2]))) == 1
    assert len(q.run(flow_reads.tasks(q.queue, "f", [0, 1, 2]))) == 1


def test_a_flow_that_has_ended_is_forgotten_at_once(q, flow, end):
    end(1)
    end(2)
    q.redis("ZREM", q.queue.outbox, "flow:f")  # a worker has enqueued what was to be
    assert q.run(calls.forget(q.queue, "f")) is True
    assert q.redis("EXISTS", *flow) == 0
    assert q.redis("ZSCORE", q.queue.flows, "f") is None
    assert q.run(calls.forget(q.queue, "f")) is False


def test_another_is_forgotten_when_its_last_node_has_ended(q, flow, end):
    """Also if its value is there before: other nodes need what is kept of it."""
    q.redis("ZREM", q.queue.outbox, "flow:f")
    end(1, State.FAILED, ERROR)
    assert q.record("f")["state"] == "failed"
    assert q.run(calls.forget(q.queue, "f")) is True
    assert q.record("f")["state"] == "failed"
    end(2)
    assert q.redis("EXISTS", *flow) == 0
    assert q.redis("ZSCORE", q.queue.flows, "f") is None


def test_a_cancelled_one_is_forgotten_when_its_tasks_are_cancelled(q, flow, home):
    call = cancels.cancel(q.queue, [cancels.Place("f")], done=q.keys.done, ttl_ms=60_000)
    assert q.run(call) == [True]
    assert q.run(calls.forget(q.queue, "f")) is True
    step = q.run(flows.step(home, "f", [], -1))
    assert (step.what, [found.node for found in step.nodes]) == ("cancel", [1, 2])
    assert q.run(flows.step(home, "f", [], 2)).what == "done"
    assert q.redis("EXISTS", *flow) == 0


def test_a_task_whose_flow_is_still_to_be_told_is_forgotten_after_that(q):
    """Its flow would wait for it for ever."""
    options = with_flow(b"", FlowPart(home="far"))
    q.run(calls.enqueue(q.queue, [Message("g.1", "shop.buy", "q", b"[]", options=options)], 5))
    call = cancels.cancel(q.queue, [cancels.Place("g.1")], done=q.keys.done, ttl_ms=60_000)
    assert q.run(call) == [True]
    assert q.run(calls.forget(q.queue, "g.1")) is True
    assert q.record("g.1")["state"] == "cancelled"
    q.run(flows.let_go(q.queue, ["g.1"], 60_000))
    assert q.record("g.1") == {}


def test_what_is_to_be_done_for_flows_is_found(q, flow):
    assert q.run(flows.noted(q.queue, ["e", "f", "g"])) == ["f"]
