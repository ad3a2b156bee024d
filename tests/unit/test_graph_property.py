"""Graphs of any shape: what their nodes come to is what their parts come to when they are called one within another."""

from __future__ import annotations

import json
from collections import Counter
from functools import reduce
from operator import or_
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamq import Flow, StreamQ, chain, group
from streamq.nodes import Spec
from streamq.refs import each
from streamq.sending import read_steering
from tests.flows import FAILURE, Failed, Run, store

QUEUES = ("default", "slow")
FAILING = 7  # tags that are a multiple of it are of tasks that fail

app = StreamQ("redis://nowhere")


@app.task(name="f")
def f(*args: Any, tag: int | None = None):
    pass


def called(args: list[Any], tag: int) -> Any:
    if tag % FAILING == 0:
        raise Failed
    return [tag, *args]


class Recorder:
    """Runs calls from their encoded arguments, and keeps which there were."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, _task: str, data: bytes) -> Any:
        said = json.loads(data)
        args, tag = (said[:-1], said[-1]) if isinstance(said, list) else (said.get("*", []), said["tag"])
        self.calls.append(json.dumps([tag, args]))
        return called(args, tag)


# ---- shapes: (kind, its parts, callbacks on success, callbacks on error)

tags = st.integers(1, 30)
one_call = st.tuples(tags, st.integers(0, 2), st.booleans(), st.booleans(), st.sampled_from(QUEUES))
calls = st.tuples(st.just("call"), one_call, st.just(()), st.just(()))


def wider(shapes):
    callbacks = st.lists(shapes, max_size=1)
    several = st.lists(shapes, min_size=1, max_size=3)
    return st.one_of(
        st.tuples(st.just("chain"), several, callbacks, callbacks),
        st.tuples(
            st.just("group"),
            st.tuples(st.lists(shapes, max_size=4), st.sampled_from(["fail", "collect", "continue"]), st.booleans()),
            callbacks,
            callbacks,
        ),
        st.tuples(
            st.just("flow"),
            st.lists(st.tuples(shapes, st.sets(st.integers(0, 4), max_size=3)), min_size=1, max_size=5),
            callbacks,
            callbacks,
        ),
        st.tuples(
            st.just("call"),
            st.tuples(tags, st.integers(0, 2), st.booleans(), st.booleans(), st.sampled_from(QUEUES)),
            callbacks,
            callbacks,
        ),
    )


SHAPES = st.recursive(calls, wider, max_leaves=12)


def before_of(place: int, after: set[int]) -> list[int]:
    return sorted((one for one in after if one < place), key=lambda one: (one * 3) % 5)


def build(shape):
    kind, inner, successes, errors = shape
    match kind, inner:
        case "call", (tag, count, by_name, immutable, queue):
            args = [f"a{number}" for number in range(count)]
            make = f.si if immutable else f.s
            step = (make(*args, tag=tag) if by_name else make(*args, tag)).set(queue=queue)
        case "chain", parts:
            steps = [build(part) for part in parts]
            step = reduce(or_, steps) if len(steps) > 1 else chain(*steps)
        case "group", (members, policy, is_lazy):
            steps = [build(member) for member in members]
            step = group((one for one in steps) if is_lazy else steps, on_error=policy)
        case "flow", parts:
            step, made = Flow(), []
            for place, (part, after) in enumerate(parts):
                made.append(step.add(build(part), after=[made[one] for one in before_of(place, after)]))
    for callback in successes:
        step = step.on_success(build(callback))
    for callback in errors:
        step = step.on_error(build(callback))
    return step


FAIL, OMIT = "fail", "omit"


def evaluate(shape, given, recorder):
    """Give (ok, value), or FAIL, or OMIT; `given`: a list of values, or one of those."""
    kind, inner, successes, errors = shape
    outcome = OMIT if given == OMIT else _evaluate(kind, inner, given, recorder)
    is_right = outcome not in (FAIL, OMIT)
    for callback in successes:
        evaluate(callback, [outcome[1]] if is_right else outcome, recorder)
    for callback in errors:
        evaluate(callback, [FAILURE] if outcome == FAIL else OMIT, recorder)
    return outcome


def _evaluate(kind, inner, given, recorder):
    return {"call": _call, "chain": _chain, "group": _group, "flow": _flow}[kind](inner, given, recorder)


def _call(inner, given, recorder):
    tag, count, _, immutable, _ = inner
    if given == FAIL:
        return FAIL
    args = [*([] if immutable else given), *(f"a{number}" for number in range(count))]
    recorder.calls.append(json.dumps([tag, args]))
    try:
        return "ok", called(args, tag)
    except Failed:
        return FAIL


def _chain(parts, given, recorder):
    for part in parts:
        outcome = evaluate(part, given, recorder)
        given = FAIL if outcome == FAIL else [outcome[1]]
    return outcome


def _group(inner, given, recorder):
    members, policy, _ = inner
    outcomes = [evaluate(member, given, recorder) for member in members]
    if (not members and given == FAIL) or (policy == "fail" and FAIL in outcomes):
        return FAIL
    if policy == "continue":
        outcomes = [one for one in outcomes if one != FAIL]
    return "ok", [FAILURE if one == FAIL else one[1] for one in outcomes]


def _flow(parts, given, recorder):
    outcomes, sinks = [], [*range(len(parts))]
    for place, (part, after) in enumerate(parts):
        before = before_of(place, after)
        sinks = [one for one in sinks if one not in before]
        theirs = [outcomes[one] for one in before]
        values = given if not before else FAIL if FAIL in theirs else [one[1] for one in theirs]
        outcomes.append(evaluate(part, values, recorder))
    ends = [outcomes[one] for one in sinks]
    if FAIL in ends:
        return FAIL
    return ends[0] if len(ends) == 1 else ("ok", [one[1] for one in ends])


many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many
@given(SHAPES)
def test_nodes_come_to_what_the_parts_come_to(shape):
    """The value is the same, and so are the calls that are made, with failures and callbacks wherever they are."""
    recorder, plain = Recorder(), Recorder()
    stored = store(build(shape))
    run = Run(stored, recorder)
    outcome = evaluate(shape, [], plain)
    assert run.outcome == (("k" if run.outcome[0] == "k" else "f", FAILURE) if outcome == FAIL else ("s", outcome[1]))
    assert Counter(recorder.calls) == Counter(plain.calls)
    assert len(run.states) == stored.graph.size, "every node has ended"


@many
@given(SHAPES)
def test_a_graph_fits_together(shape):
    """Numbers have no gaps, and each node waits for as many as tell it; what is said of neighbours is so."""
    stored = store(build(shape))
    graph, edges = stored.graph, stored.edges()
    assert set(stored.nodes) == set(stored.states) == set(range(graph.size))
    assert set(stored.states.values()) == {1}
    assert set(edges.values()) == {1}
    assert Counter(to for _, to in edges) == {number: node.deps for number, node in stored.nodes.items()}
    for number, node in stored.nodes.items():
        assert all((one, number) in edges for one in each(node.inputs))
        for refs in (node.to, node.err):
            assert [*each(refs)] == sorted(set(each(refs)))
    assert {node.like for node in stored.nodes.values() if isinstance(node, Spec)} == set(stored.likes)
    check_neighbours(stored, set(edges))


def check_neighbours(stored, edges):
    tasks, graph = stored.tasks(), stored.graph

    def through(number: int, *, forward: bool) -> set[int]:
        found: set[int] = set()
        for first, second in edges:
            near, far = (first, second) if forward else (second, first)
            if near == number and far >= 0:
                found |= {far} if far in tasks else through(far, forward=forward)
        return found

    plain = {number for number, like in tasks.items() if like.queue is None}
    for number, like in tasks.items():
        part = read_steering(like.options).flow
        children = through(number, forward=True)
        assert part.home == graph.home
        assert [*each(part.parents)] == sorted(through(number, forward=False))
        assert [*each(part.children)] == sorted(children)
        assert [one for one, _ in part.next] == (sorted(children & plain)[:4] if number in plain else [])
    roots = stored.start
    expected = roots if set(roots) <= plain and len(roots) <= 100 else []
    assert [one for one, _ in graph.roots] == expected


@pytest.mark.parametrize("queue", QUEUES)
def test_home_is_the_queue_of_the_first_task(queue):
    """In reading order, wherever it is: it can be seen before anything is drawn."""
    first = f.s(1).set(queue=queue)
    for step in (first, first | f.s(2), group(one for one in (group(), first)), group() | first, chain(group([first]))):
        assert step.to_graph().home == queue
