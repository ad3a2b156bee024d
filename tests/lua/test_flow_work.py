"""What of flows is not done in the step that leads to it: it is noted, and any worker carries on."""

from __future__ import annotations

import pytest

from streamq.broker import calls, cancels, flowing
from streamq.broker.walking import complete
from streamq.lifecycle import State
from streamq.message import Delivery, Message
from tests.graphs import join, like, task

ERROR = b'{"type":"ValueError","message":"no tea","args":[],"traceback":""}'
OTHER = [like(follow=[0, 1, 2, 3]), like(queue="other")]
# Two members on another queue, and the body on that of the flow.
AWAY = {
    0: task("]", before=[1]),
    1: join(to=[0], before=[2, 3], deps=2),
    2: {**task("[2]", to=[1]), "like": 1},
    3: {**task("[3]", to=[1]), "like": 1},
}


def many(count):
    """A task that so many follow, which are the members of a group."""
    return {
        0: join(before=[[2, count + 1, 1]], deps=count),
        1: task(to=[[2, count + 1, 1]]),
        **{n: task(to=[0]) for n in range(2, count + 2)},
    }


def deliver(q):
    return q.fetch(stream=q.ready)


@pytest.fixture
def away(q, flows):
    """Give a task of a flow that lives on another queue, delivered; its own queue is that of the test."""
    steering = like(home="home")["options"].encode()

    def enqueue(task_id: str = "f.7") -> Delivery:
        q.run(calls.enqueue(q.queue, [Message(task_id, "shop.buy", "q", b"[]", 0, steering)]))
        [delivery] = q.fetch()
        return delivery

    return enqueue


# ---- too much for one step


def test_a_step_is_bounded(q, flows):
    """What it does not come to is noted with the place where to go on; each step does some more, and each once."""
    flows.start(many(300), start=[1])
    assert flows.finish(*deliver(q)).more == ["flow:f"]
    assert flows.states().count("r") == 32
    assert flows.listed("todo") == ["1:32"]
    assert flows.outbox() == ["flow:f"]
    released, sent = [], []
    while (step := flows.step(*sent)).what == "send":
        sent = [found.node for found in step.nodes]
        released += sent
        assert len(sent) <= 132
    assert sorted(released) == list(range(4, 302)), "all but those whose keys were known"
    assert flows.states() == "ws" + "r" * 300
    assert flows.outbox() == flows.listed("todo") == flows.listed("sends") == []


def test_a_flow_that_begins_with_many_goes_on(q, flows):
    assert flows.start(many(300), start=[[2, 301, 1]], roots=[]).goes_on
    assert flows.outbox() == ["flow:f"]
    assert flows.states().count("r") == 200
    assert flows.listed("todo") == ["start:200"]


def test_failures_of_many_go_on(q, flows):
    """Each that needs what has failed ends, a bounded number in each step."""
    count = 400
    flows.start({0: task(to=[[1, count, 1]]), **{n: task() for n in range(1, count + 1)}}, start=[0])
    flows.finish(*deliver(q), state=State.FAILED, body=ERROR)
    assert flows.states().count("k") == 32
    assert flows.lives() == {False}
    while flows.step().what != "done":
        pass
    assert flows.states() == "f" + "k" * count
    assert flows.lives() == {True}


def test_many_members_are_counted_in_any_order(q, flows):
    """The body of a group whose members end one by one, and some are told twice, begins with the last."""
    count = 50
    flows.start(many(count), start=[1])
    flows.tell(1)
    while flows.step(*range(2, 60)).what != "done":
        pass
    for node in (*range(51, 30, -1), *range(20, 45), *range(2, 20)):
        assert flows.states()[0] == "w"
        flows.tell(node)
    assert flows.states() == "s" * (count + 2)


# ---- what belongs on other queues


def test_tasks_of_other_queues_are_to_be_sent(q, flows):
    """They stay in the list until it is said that they were; a step can be made again."""
    assert flows.start(AWAY, OTHER, start=[2, 3], roots=[]).goes_on
    assert flows.states() == "wwrr"
    assert flows.listed("sends") == ["2", "3"]
    assert flows.outbox() == ["flow:f"]
    step = flows.step()
    assert flows.step() == step
    assert step.what == "send"
    assert [(found.node, found.args) for found in step.nodes] == [(2, b"[2]"), (3, b"[3]")]
    assert b'"queue":"other"' in step.nodes[0].like
    assert [found.node for found in flows.step(2).nodes] == [3]
    assert flows.step(3).what == "done"
    assert flows.outbox() == []


def test_what_has_ended_is_not_sent_again(q, flows):
    """Whoever has sent it may have died before it said so; it may have run, and its record be gone."""
    flows.start(AWAY, OTHER, start=[2, 3], roots=[])
    flows.tell(2)
    assert [found.node for found in flows.step().nodes] == [3]
    assert flows.listed("sends") == ["3"]
    flows.tell(3)
    assert [found.node for found in flows.step().nodes] == [0]
    assert flows.step(0).what == "done"
    assert flows.listed("sends") == flows.outbox() == []


def test_what_is_sent_again_is_enqueued_once(q, flows):
    """Whoever has sent it may have died before it said so."""
    flows.start(AWAY, OTHER, start=[2, 3], roots=[])
    for _ in range(2):
        complete(q.connection, flowing.carry(flows.keys, [("q", "flow:f")], 60_000))
        assert flows.outbox() == []
        q.redis("RPUSH", flows.queue.flow("f")[6], 2, 3)
    sent = q.entries(flows.keys.queue("other").ready)
    assert [(entry["id"], entry["args"]) for entry in sent] == [("f.2", "[2]"), ("f.3", "[3]")]


def test_work_that_is_seen_to_is_not_old(q, flows):
    """So that no other worker does the same meanwhile."""
    flows.start(AWAY, OTHER, start=[2, 3], roots=[])
    q.redis("ZADD", q.queue.outbox, 1, "flow:f")
    flows.step()
    assert float(q.redis("ZSCORE", q.queue.outbox, "flow:f")) > q.now() - 1000


def test_values_go_along_with_what_is_sent(q, flows):
    """If they are few and small; else there are no arguments, and its worker gets them."""
    for body, args in ((b'"x"', b'["x",4]'), (b'"' + b"x" * 20_000 + b'"', b"")):
        graph = {0: {**task(",4]", before=[1]), "like": 1}, 1: task(to=[0])}
        flows.start(graph, OTHER, start=[1], flow_id=f"f{len(args)}")
        assert flows.finish(*deliver(q), body=body).more == [f"flow:f{len(args)}"]
        [found] = flows.step(flow_id=f"f{len(args)}").nodes
        assert found.args == args


# ---- tasks whose flow lives elsewhere


def test_a_commit_far_from_home_is_noted_in_the_same_step(q, flows, away):
    """The record stays until the flow has been told, whatever the time that results are kept."""
    assert flows.finish(away(), body=b"42") == ([], ["end:f.7"])
    assert flows.outbox() == ["end:f.7"]
    assert q.ttl_ms("f.7") == -1
    assert flows.ended("f.7") == [(State.SUCCEEDED, "home", None, b"42", False)]
    flows.let_go("f.7")
    assert flows.outbox() == []
    assert 0 < q.ttl_ms("f.7") <= 60_000


def test_a_commit_far_from_home_that_is_refused_is_not_noted(q, flows, away):
    delivery = away()
    q.redis("HSET", q.queue.record("f.7"), "fence", 1)
    assert flows.finish(delivery) == ([0], [])
    assert flows.outbox() == []


def test_the_bury_of_a_task_is_noted(q, flows, away):
    q.bury(away())
    check_left(q, flows, State.DEAD)


def test_a_task_under_which_its_workers_have_died_is_noted(q, flows, away):
    delivery = away()
    assert q.give_back(delivery, died="killed", max_deaths=1) == (0, 1)
    check_left(q, flows, State.DEAD)


def test_a_task_that_is_given_back_is_not_noted(q, flows, away):
    q.give_back(away(), died="killed")
    assert flows.outbox() == []
    assert q.record("f.7")["flow"] == "home"


def test_the_cancellation_of_a_task_is_noted(q, flows, away):
    away()
    assert q.run(cancels.cancel(q.queue, [cancels.Place("f.7")], done="sq:done:", ttl_ms=60_000)) == [True]
    check_left(q, flows, State.CANCELLED)


def check_left(q, flows, state):
    assert flows.outbox() == ["end:f.7"]
    assert q.ttl_ms("f.7") == -1
    [ended] = flows.ended("f.7")
    assert (ended.state, ended.home) == (state, "home")
    flows.let_go("f.7")
    assert q.ttl_ms("f.7") > 0
    assert flows.outbox() == []


def test_a_retry_keeps_a_task_in_its_flow(q, flows, away):
    q.park(away(), error=ERROR)
    q.make_due("f.7")
    q.run(calls.promote(q.queue, ["f.7"]))
    [again] = q.fetch()
    assert flows.finish(again).more == ["end:f.7"]
    flows.let_go("f.7")


@pytest.mark.parametrize("is_told", [False, True])
def test_what_is_forgotten_stays_until_its_flow_has_been_told(q, flows, away, is_told):
    """Else the flow would wait for ever."""
    flows.finish(away())
    if is_told:
        flows.let_go("f.7")
    assert q.run(calls.forget(q.queue, "f.7"))
    assert bool(q.record("f.7")) is not is_told
    flows.let_go("f.7")
    assert q.record("f.7") == {}
    assert flows.outbox() == []


def test_what_runs_again_is_not_let_go(q, flows, away):
    """A dead letter was redriven before its flow was told."""
    q.bury(away())
    q.redis("HSET", q.queue.record("f.7"), "state", "queued")
    q.redis("HDEL", q.queue.record("f.7"), "ended")
    flows.let_go("f.7")
    assert q.ttl_ms("f.7") == -1


def test_a_task_whose_value_has_gone_fails_its_flow(q, flows):
    """It had become a flow itself, of which somebody has deleted what it is to be gathered from."""
    flows.start({0: task("]", before=[1]), 1: task(to=[0])}, start=[1])
    deliver(q)
    said = {"state": "succeeded", "ended": 1, "out": 0, "left": 0, "result": ""}
    q.redis("HSET", q.queue.record("f.1"), *(word for pair in said.items() for word in pair))
    q.redis("ZADD", q.queue.outbox, 1, "end:f.1")
    complete(q.connection, flowing.carry(flows.keys, [("q", "end:f.1")], 60_000))
    assert flows.states() == "kf"
    assert "UnknownTaskId" in flows.record()["error"]
    assert flows.outbox() == []


# ---- cancellation


def test_a_flow_that_is_cancelled_releases_nothing(q, flows):
    """What was to begin then ends; what is enqueued or runs is found, to be cancelled."""
    flows.start({**AWAY, 2: task(to=[1]), 3: task(to=[1])}, start=[2, 3])
    found = {one.message.id: one for one in deliver(q)}
    flows.finish(found["f.2"])
    assert q.run(cancels.cancel(q.queue, [cancels.Place("f")], done="sq:done:", ttl_ms=60_000)) == [True]
    assert flows.record()["state"] == "cancelled"
    assert flows.outbox() == ["flow:f"]
    step = flows.step()
    assert (step.what, [node.node for node in step.nodes]) == ("cancel", [3])
    flows.finish(found["f.3"])
    assert flows.states() == "csss"
    assert flows.step(swept=3).what == "done"
    assert flows.outbox() == []
    assert flows.lives() == {True}
    assert flows.record()["state"] == "cancelled"
    assert q.entries(q.ready) == []


def test_a_cancelled_flow_of_many_is_gone_through_in_bounded_steps(q, flows):
    flows.start(many(300), start=[[2, 301, 1]], roots=[])
    while (step := flows.step(*[node.node for node in flows.step().nodes])).what != "done":
        pass
    q.run(cancels.cancel(q.queue, [cancels.Place("f")], done="sq:done:", ttl_ms=60_000))
    swept, found = -1, []
    while (step := flows.step(swept=swept)).what == "cancel":
        assert 0 < len(step.nodes) <= 101
        swept = step.nodes[-1].node
        found += [node.node for node in step.nodes]
        flows.tell(*[node.node for node in step.nodes], state=State.CANCELLED, body=b"")
    assert found == list(range(2, 302))
    assert set(flows.states()[2:]) == {"c"}
    assert flows.lives() == {True}
