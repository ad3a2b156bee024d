"""Graphs that cannot be run are refused before anything is sent, and the error says where."""

from __future__ import annotations

import pytest

from streamq import Flow, FlowError, StreamQ, by, chain, chord, group
from streamq.errors import ConfigError, PayloadTooLarge
from tests.flows import store

app = StreamQ("redis://nowhere", max_payload=100)
other = StreamQ("redis://elsewhere")


@app.task(name="e.add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="e.ping")
def ping() -> int:
    return 1


@app.task(name="e.once", unique=by("x"))
def once(x: int) -> int:
    return x


@app.task(name="e.ordered", ordering_key="x")
def ordered(x: int, y: int = 0) -> int:
    return x + y


@other.task(name="e.foreign")
def foreign(x: int) -> int:
    return x


def nested(levels: int):
    step = add.s(1, 2)
    for _ in range(levels):
        step = group([step])
    return step


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda: add.s(1, 2) | add.s(), r"chain, step 2: e\.add\(\) missing a required argument: 'y'"),
        (lambda: add.s(1) | add.s(1), r"chain, step 1: e\.add\(\) missing a required argument: 'y'"),
        (lambda: add.s(1, 2) | add.s(1, 2), r"chain, step 2: e\.add\(\) too many positional arguments; \.si\(\)"),
        (lambda: add.s(1, 2) | ping.s(), r"step 2: e\.ping\(\) too many positional arguments"),
        (lambda: group(add.s(1, 2), add.s(1)), r"group, member 2: e\.add\(\) missing"),
        (lambda: group(n for n in [add.s(1, 2), 7]), r"group, member 2: needs a signature, or several, not 7"),
        (lambda: add.s(1, 2) | group([add.s(1), add.s(1) | add.s()]), r"chain, step 2: group, member 2: chain, step 2"),
        (lambda: add.s(1, 2) | foreign.s(), r"step 2: task e\.foreign is of another app"),
        (lambda: add.s(1, 2) | once.s(), r"step 2: task e\.once is unique: it cannot be a part of a flow"),
        (lambda: group(add.s(1, 2).set(throttle=by(seconds=3))), "is throttle"),
        (lambda: group(add.s(1, 2).set(task_id="x")), r"e\.add\(\): a task of a flow has no task_id"),
        (lambda: group(add.s(1, 2).set(durability="fsync")), r"e\.add\(\): a task of a flow has no durability"),
        (lambda: group(group().set(task_id="x")), "group, member 1: task_id= is for a whole flow"),
        (lambda: add.s(1, 2) | ordered.s(3), r"step 2: e\.ordered\(\): its keys or limits are taken from 'x'"),
        (lambda: add.s(1, 2).on_error(add.s()), r"on_error: e\.add\(\) missing"),
        (lambda: nested(2000), "too many parts within parts"),
    ],
)
def test_what_cannot_be_run_is_refused(what, message):
    with pytest.raises(FlowError, match=message):
        store(what())


def test_options_that_come_together_but_do_not_go_together():
    with pytest.raises(ConfigError, match=r"group, member 2: task e\.ordered: a call with an ordering_key can have no"):
        store(group(add.s(1, 2), ordered.s(1)).set(countdown=3))


def test_arguments_that_are_too_large_have_a_place_where_they_are_made():
    members = (add.s(n, "x" * 100 * n) for n in range(2))
    with pytest.raises(PayloadTooLarge, match=r"e\.add\(\)"):
        store(group(members))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (chain, "an empty chain"),
        (lambda: chain(add.s(1, 2), 7), "chain, step 2: needs a signature, or several, not 7"),
        (lambda: chain(add), r"chain, step 1: needs a signature.*say \.s\(\)"),
        (lambda: group(7), "group, member 1: needs a signature"),
        (lambda: group("ab"), "group, member 1: needs a signature"),
        (lambda: group([add.s(1, 2), None]), "group, member 2: needs a signature"),
        (lambda: group(add.s(1, 2), on_error="ignore"), "on_error must be one of fail, collect, continue"),
        (lambda: chord([add.s(1, 2)], None), "the body of a chord: needs a signature"),
        (lambda: chord(add.s(1, 2), add.s()), "a chord needs a group"),
        (lambda: add.s(1, 2) | 7, r"what comes after \| needs a signature"),
        (lambda: group().set(unique=by()), "unique= cannot be set"),
        (lambda: Flow().to_graph(), "an empty flow"),
        (lambda: group().set(task_id="x" * 181).to_graph(), "the id of a flow can have 180 characters"),
    ],
)
def test_what_is_no_part_of_a_graph_is_refused_when_it_is_made(make, message):
    with pytest.raises(FlowError, match=message):
        make()


def test_a_cycle_is_refused_where_it_closes():
    flow = Flow()
    first = flow.add(add.s(1))
    second = flow.add(add.s(1), after=[first])
    third = flow.add(add.s(1), after=[second])
    with pytest.raises(FlowError, match="flow, part 1: part 3 comes after it: that is a cycle"):
        flow.connect(third, first)
    with pytest.raises(FlowError, match="cycle"):
        flow.connect(first, first)


def test_a_flow_cannot_be_a_part_of_itself():
    flow, inner = Flow(), Flow()
    flow.add(add.s(1, 2))
    flow.add(inner)
    inner.add(flow)
    with pytest.raises(FlowError, match="a part contains itself"):
        store(flow)


def test_parts_are_of_the_flow_and_named_once():
    flow, another = Flow(), Flow()
    part = flow.add(add.s(1, 2))
    with pytest.raises(FlowError, match=r"part 1, .* is of another flow"):
        another.add(add.s(1), after=[part])
    with pytest.raises(FlowError, match="needs parts that its"):
        flow.add(add.s(1), after=[add.s(1, 2)])
    with pytest.raises(FlowError, match="flow, part 2: part 1 cannot be before it twice"):
        flow.add(add.s(), after=[part, part])
    with pytest.raises(FlowError, match="twice"):
        flow.connect(part, flow.add(add.s(1), after=[part]))
    assert len(flow.parts) == 2
    assert flow.set(priority=3).add(add.s(1), after=[part]).number == 3


def test_members_of_a_generator_are_used_once():
    members = group(add.s(n, 1) for n in range(3))
    store(members.set(priority=1))
    with pytest.raises(FlowError, match="have been used up"):
        store(members)
    again = group([add.s(1, 2)])
    assert store(again).nodes == store(again).nodes
