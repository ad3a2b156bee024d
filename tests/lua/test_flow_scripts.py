"""What the scripts of flows do when flows begin and go on."""

from __future__ import annotations

import json
import math

import pytest

from streamq.broker import flows as calls
from streamq.broker.calls import forget
from streamq.broker.flows import Plan
from streamq.lifecycle import State
from tests.graphs import TTL_MS, join, like, task

CHAIN = {0: task("]", before=[1]), 1: task("[7]", to=[0])}
CHORD = {0: task("]", before=[1]), 1: join(to=[0], before=[2, 3], deps=2), 2: task(to=[1]), 3: task(to=[1])}
ERROR = b'{"type":"ValueError","message":"no tea","args":[],"traceback":""}'


def chord(policy="fail"):
    return {**CHORD, 1: join(policy, to=[0], before=[2, 3], deps=2)}


def deliver(q):
    """Have a worker read what is ready, by the number of its node."""
    return {int(one.message.id.rpartition(".")[2]): one for one in q.fetch()}


# ---- how flows begin


def test_a_flow_begins(q, flows):
    """What waits for nothing is enqueued in the same step, and what is to be known of the flow is there."""
    assert flows.start(CHAIN, start=[1]) == (True, False, False, True)
    assert [(entry["id"], entry["args"]) for entry in q.entries(q.ready)] == [("f.1", "[7]")]
    assert flows.states() == "wr"
    said = {"state": "running", "label": "a label", "out": "0", "size": "2", "left": "2"}
    assert flows.record().items() >= said.items()
    assert abs(int(flows.record()["made"]) - q.now()) < 1000
    assert flows.kept_until() == math.inf
    assert flows.lives() == {False}
    assert flows.outbox() == []
    assert q.record("f.1")["flow"] == "q"


def test_a_flow_begins_once(q, flows):
    """Whoever has lost the reply says it again."""
    flows.start(CHAIN, start=[1])
    before = q.everything()
    assert flows.start(CHAIN, start=[1]) == (False, False, False, True)
    assert q.everything() == before


def test_a_graph_is_written_in_parts(q, flows):
    """They go by themselves if the flow never begins, and stay if it does."""
    first, last = flows.chunk({0: CHORD[0], 1: CHORD[1]}, []), flows.chunk({2: CHORD[2], 3: CHORD[3]}, [like()], [2, 3])
    assert flows.run(calls.add(flows.queue, "f", first, is_first=True))
    assert flows.run(calls.add(flows.queue, "f", first, is_first=True)), "it can be said again"
    assert flows.lives() == {True}
    plan = Plan(last, is_small=False, label="label", out=0, size=4, roots=[(2, 5), (3, 5)])
    assert flows.run(calls.start(flows.home, "f", plan)) == (True, False, False, True)
    assert flows.states() == "wwrr"
    assert flows.lives() == {False}
    assert not flows.run(calls.add(flows.queue, "f", first, is_first=True)), "it has begun"
    assert flows.states() == "wwrr"


def test_a_graph_whose_parts_have_gone_does_not_begin(q, flows):
    last = flows.chunk({2: CHORD[2]}, [like()], [2])
    plan = Plan(last, is_small=False, label="label", out=0, size=3, roots=[(2, 5)])
    begun = flows.run(calls.start(flows.home, "f", plan))
    assert begun == (False, True, False, True)
    assert q.everything() == {}


def test_what_is_kept_of_flows_that_have_gone_is_removed_at_the_next_start(q, flows):
    flows.redis("ZADD", flows.queue.flows, 1, "old", q.now() + 10_000, "young")
    flows.start(CHAIN, start=[1])
    assert flows.redis("ZRANGE", flows.queue.flows, 0, -1) == [b"young", b"f"]


def test_a_flow_begins_anew_under_an_id_that_was_forgotten(q, flows):
    """What is left of the other one, which may be kept for a while, has no part in it."""
    flows.start(CHORD, start=[2, 3])
    flows.finish(*deliver(q).values())
    flows.finish(deliver(q)[0])
    q.run(forget(q.queue, "f"))
    q.redis("DEL", *(q.queue.record(f"f.{node}") for node in (0, 2, 3)))
    flows.start(CHORD, start=[2, 3])
    assert flows.lives() == {False}
    flows.finish(deliver(q)[2])
    assert flows.states() == "wwsr"
    assert flows.lives() == {False}


def test_a_group_of_nothing_ends_at_once(q, flows):
    flows.start({0: task("]", before=[1]), 1: join(to=[0])}, start=[1], roots=[])
    assert flows.states() == "rs"


# ---- how they go on


def test_the_step_that_commits_a_task_enqueues_what_follows(q, flows):
    """With its value as the first argument."""
    flows.start({**CHAIN, 0: task(',4],"size":"x"}', before=[1])}, start=[1])
    assert flows.finish(*deliver(q).values(), body=b"42") == ([], [])
    assert [(entry["id"], entry["args"]) for entry in q.entries(q.ready)] == [("f.0", '{"*":[42,4],"size":"x"}')]
    assert flows.states() == "rs"
    assert q.record("f.1")["result"] == "42"


def test_the_last_member_has_the_body_enqueued(q, flows):
    """In the very step that commits it; the values are for its worker to gather."""
    flows.start(CHORD, start=[2, 3])
    found = deliver(q)
    flows.finish(found[2])
    assert flows.states() == "wwsr"
    flows.finish(found[3])
    assert flows.states() == "rsss"
    assert [(entry["id"], entry["args"]) for entry in q.entries(q.ready)] == [("f.0", "")]
    assert flows.redis("HGETALL", flows.queue.flow("f")[4]) == [b"2", b"1", b"3", b"1"]


def test_members_that_end_together_are_committed_together(q, flows):
    flows.start(CHORD, start=[2, 3])
    assert flows.finish(*deliver(q).values()) == ([], [])
    assert flows.states() == "rsss"


def test_the_end_of_a_node_counts_once(q, flows):
    """However often it is told, in whatever way."""
    flows.start(CHORD, start=[2, 3])
    found = deliver(q)
    for _ in range(3):
        assert flows.finish(found[2]) == ([], [])
        assert flows.tell(2, 2) == []
        assert flows.tell(2, state=State.FAILED, body=ERROR) == []
    assert flows.states() == "wwsr"
    assert flows.record()["left"] == "3"
    assert [entry["id"] for entry in q.entries(q.ready)] == ["f.3"]


def test_a_commit_that_is_refused_has_nothing_go_on(q, flows):
    """The task is another worker's by now."""
    flows.start(CHAIN, start=[1])
    [old] = deliver(q).values()
    q.give_back(old)
    before = q.everything()
    assert flows.finish(old) == ([0], [])
    assert q.everything() == before
    flows.finish(*q.fetch("w-2"))
    assert flows.states() == "rs"


def test_one_that_is_refused_does_not_stop_others(q, flows):
    flows.start(CHORD, start=[2, 3])
    found = deliver(q)
    q.redis("HSET", q.queue.record("f.2"), "fence", 5)
    assert flows.finish(found[2], found[3]).refused == [0]
    assert flows.states() == "wwrs"


def test_outcomes_of_several_flows_are_committed_together(q, flows):
    for flow_id in "fgh":
        flows.start(CHAIN, start=[1], flow_id=flow_id)
    flows.finish(*q.fetch())
    assert [flows.states(flow_id) for flow_id in "fgh"] == ["rs"] * 3


def test_a_flow_that_is_not_there_is_not_told(q, flows):
    assert flows.tell(0) == []
    assert flows.step() == ("done", [], [])
    assert q.everything() == {}


def test_watchers_are_told_of_each_end(q, flows):
    flows.start(CHAIN, start=[1])
    q.redis("HSET", q.queue.record("f"), "watchers", "me you ")
    with q.listening("sq:done:me", "sq:done:you") as heard:
        flows.finish(*deliver(q).values())
        assert [heard(), heard()] == [("sq:done:me", b"f"), ("sq:done:you", b"f")]


# ---- values and failures


@pytest.mark.parametrize(("policy", "states"), [("fail", "kkfr"), ("collect", "wwfr"), ("continue", "wwfr")])
def test_a_member_that_fails(q, flows, policy, states):
    """It fails the group at once, or when all have ended the group goes on."""
    flows.start(chord(policy), start=[2, 3])
    found = deliver(q)
    flows.finish(found[2], state=State.FAILED, body=ERROR)
    assert flows.states() == states
    flows.finish(found[3])
    assert flows.states() == ("kkfs" if policy == "fail" else "rsfs")


def test_the_error_of_a_flow_says_where_it_began(q, flows):
    """And the way from there."""
    flows.start(CHORD, start=[2, 3])
    flows.finish(deliver(q)[2], state=State.FAILED, body=ERROR)
    said = json.loads(flows.record()["error"])
    assert said["path"] == [[2, "shop.buy"], [1, "group"], [0, "shop.buy"]]
    assert said["failed"] == "f.2"
    assert {name: said[name] for name in ("type", "message")} == {"type": "ValueError", "message": "no tea"}
    assert flows.record()["state"] == "failed"
    flows.tell(3)


@pytest.mark.parametrize("state", [State.FAILED, State.DEAD, State.CANCELLED, State.EXPIRED])
def test_each_end_but_success_fails_what_follows(q, flows, state):
    flows.start(CHAIN, start=[1])
    flows.tell(1, state=state, body=b"")
    assert flows.states()[0] == "k"
    assert flows.record()["state"] == "failed"
    assert flows.lives() == {True}
    q.redis("FLUSHALL")


@pytest.mark.parametrize(("state", "states"), [(State.SUCCEEDED, "sro"), (State.FAILED, "fkr")])
def test_callbacks_run_if_they_are_needed(q, flows, state, states):
    """One for an error is omitted if there is none; the flow has its value before its callbacks have run."""
    flows.start({0: task(to=[1], err=[2]), 1: task("]", before=[0]), 2: task("]", before=[0])}, start=[0])
    flows.finish(deliver(q)[0], state=state, body=ERROR if state is State.FAILED else b"1")
    assert flows.states() == states
    assert flows.record()["state"] == state
    assert flows.lives() == {False}, "a callback is to run"
    [callback] = deliver(q).values()
    flows.finish(callback)
    assert flows.lives() == {True}


def test_what_follows_a_callback_that_is_omitted_is_omitted(q, flows):
    graph = {0: task(err=[1]), 1: task("]", before=[0], to=[2], err=[3]), 2: join("collect", before=[1]), 3: task()}
    flows.start(graph, start=[0])
    flows.finish(deliver(q)[0])
    assert flows.states() == "sooo"
    assert flows.lives() == {True}


# ---- when flows are let go


def test_a_flow_is_let_go_when_nothing_of_it_can_happen(q, flows):
    """Not when it has its value, or has failed, if some of its tasks have not ended."""
    flows.start(CHORD, start=[2, 3])
    found = deliver(q)
    flows.finish(found[2], state=State.FAILED, body=ERROR)
    assert flows.record()["state"] == "failed"
    assert flows.lives() == {False}
    assert flows.kept_until() == math.inf
    flows.finish(found[3])
    assert flows.lives() == {True}
    assert abs(flows.kept_until() - q.now() - TTL_MS) < 1000
    assert flows.record()["left"] == "0"


def test_a_flow_that_is_to_be_forgotten_goes_when_it_has_ended(q, flows):
    flows.start(CHAIN, start=[1])
    q.redis("HSET", q.queue.record("f"), "forget", 1)
    flows.finish(deliver(q)[1])
    flows.finish(deliver(q)[0])
    assert flows.lives() == set()
    assert flows.redis("ZRANGE", flows.queue.flows, 0, -1) == []


def test_a_flow_that_is_a_task_of_another_stays_until_that_has_been_told(q, flows):
    flows.start(CHAIN, start=[1])
    q.redis("HSET", q.queue.record("f"), "flow", "other")
    flows.finish(deliver(q)[1])
    assert flows.finish(deliver(q)[0]).more == ["end:f"]
    assert flows.outbox() == ["end:f"]
    assert flows.lives() == {False}
    assert flows.ended("f") == [(State.SUCCEEDED, "other", 0, b"1", False)]
    flows.let_go("f")
    assert flows.lives() == {True}
    assert abs(flows.kept_until() - q.now() - TTL_MS) < 1000
    assert flows.outbox() == []


def test_one_that_has_been_told_of_stays_until_all_of_it_has_ended(q, flows):
    flows.start(CHORD, start=[2, 3])
    q.redis("HSET", q.queue.record("f"), "flow", "other")
    found = deliver(q)
    flows.finish(found[2], state=State.FAILED, body=ERROR)
    flows.let_go("f")
    assert flows.lives() == {False}
    flows.finish(found[3])
    assert flows.lives() == {True}
