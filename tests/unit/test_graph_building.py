"""How chains, groups, chords and flows become nodes."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime

import pytest

from streamq import Flow, Limit, StreamQ, chain, chord, group
from streamq.nodes import Join, Spec
from streamq.refs import count
from streamq.sending import read_steering
from tests.flows import store

app = StreamQ("redis://nowhere", fairness_weights={"gold": 3})


@app.task(name="t.add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="t.mul")
def mul(x: int, y: int) -> int:
    return x * y


@app.task(name="t.fetch")
def fetch(url: str) -> str:
    return url


@app.task(name="t.total")
def total(values: list[int], *, style: str = "") -> int:
    return len(values) + len(style)


def names(stored):
    return {number: like.task.rpartition(".")[2] for number, like in stored.tasks().items()}


def test_a_chain():
    stored = store(add.s(2, 2) | mul.s(4))
    assert stored.nodes == {
        0: Spec(like=0, args=b",4]", inputs=(1,)),
        1: Spec(like=1, args=b"[2,2]", to=(0,)),
    }
    assert (stored.start, stored.graph.size, stored.graph.roots) == ([1], 2, [(1, 5)])
    assert names(stored) == {0: "mul", 1: "add"}
    assert (stored.part(0).parents, stored.part(1).children, stored.part(1).next) == ((1,), (0,), ((0, 5),))


def test_a_chord():
    stored = store(chord((fetch.s(url) for url in "abc"), total.s(style="x"), on_error="collect"))
    assert stored.nodes[0] == Spec(like=0, args=b'],"style":"x"}', inputs=(1,))
    assert stored.nodes[1] == Join(policy="collect", inputs=((2, 4, 1),), to=(0,), deps=3)
    assert stored.nodes[3] == Spec(like=1, args=b'["b"]', to=(1,))
    assert stored.part(3).group == "collect"
    assert stored.part(0).group is None
    assert len(stored.likes) == 2, "members share what is the same"


def test_an_immutable_call_has_no_inputs():
    stored = store(add.s(2, 2) | mul.si(3, 4))
    assert stored.nodes[0] == Spec(like=0, args=b"[3,4]")
    assert stored.part(0).parents == (1,)


def test_inputs_of_a_flow_are_in_the_order_of_the_arguments():
    flow = Flow()
    first, second = flow.add(add.s(1, 2)), flow.add(add.s(3, 4))
    flow.add(mul.s(), after=[second, first])
    node = store(flow).nodes[0]
    assert (node.inputs, node.deps) == ((2, 1), 2)


def test_a_link_is_one_more_argument():
    flow = Flow()
    first, second = flow.add(add.s(1, 2)), flow.add(add.s(3, 4))
    last = flow.add(mul.s(), after=[second])
    flow.connect(first, last)
    assert store(flow).nodes[0].inputs == (2, 1)


def test_a_flow_with_several_ends_is_their_list():
    flow = Flow()
    first = flow.add(add.s(1, 2))
    flow.add(mul.s(3), after=[first])
    flow.add(mul.s(4), after=[first])
    assert store(flow).nodes[0] == Join(policy="fail", inputs=(2, 3), deps=2)


def test_an_empty_group_is_a_root():
    stored = store(group())
    assert stored.nodes == {0: Join(policy="fail")}
    assert (stored.start, stored.graph.roots, stored.graph.home) == ([0], [], "default")
    assert store(add.s(1, 2) | group()).nodes[0] == Join(policy="fail")


def test_callbacks_are_side_branches():
    stored = store(add.s(1, 2).on_success(mul.s(3)).on_error(total.s()).on_error(fetch.si("x")))
    assert stored.nodes[0] == Spec(like=3, args=b"[1,2]", to=(1,), err=(2, 3))
    assert stored.nodes[1].inputs == stored.nodes[2].inputs == (0,)
    assert stored.nodes[3].inputs == ()
    assert stored.part(0).children == ((1, 3, 1),)


# ---- options


def options_of(stored):
    return {number: read_steering(like.options) for number, like in stored.tasks().items()}


def test_options_of_several_hold_for_those_that_have_none():
    members = [fetch.s("a"), fetch.s("b").set(priority=1, queue="own", headers={"x": "own"})]
    stored = store(group(members).set(priority=9, queue="all", headers={"x": "all"}, fairness_key="gold"))
    levels = {number: said.level for number, said in options_of(stored).items()}
    assert (levels, stored.graph.home) == ({1: 9, 2: 1}, "all")
    assert [said.headers for said in options_of(stored).values()] == [{"x": "all"}, {"x": "own"}]
    likes = stored.tasks()
    assert (likes[1].queue, likes[2].queue) == (None, "own")
    assert likes[1].terms.share == ("gold", 3)
    assert stored.graph.roots == [], "they have terms"


def test_inner_options_come_before_outer_ones():
    stored = store(chain(group(fetch.s("a")).set(priority=8), total.s()).set(priority=2, queue="q"))
    assert {names(stored)[number]: said.level for number, said in options_of(stored).items()} == {
        "fetch": 8,
        "total": 2,
    }


def test_when_a_flow_begins_concerns_its_first_tasks():
    stored = store(
        (group(fetch.s("a"), fetch.s("b").set(countdown=1)) | total.s()).set(countdown=5).on_error(total.s())
    )
    assert {number: like.delay_ms for number, like in stored.tasks().items()} == {0: 0, 1: 0, 3: 5000, 4: 1000}


def test_seconds_until_expiry_count_from_the_start_of_the_flow():
    """For all its tasks; those that say so themselves count from their own enqueue."""
    now = int(datetime(2031, 5, 1, tzinfo=UTC).timestamp() * 1000) + 7
    what = (add.s(1, 2) | mul.s(3).set(expires=3) | mul.s(4)).set(expires=1.5)
    graph = what.to_graph()
    asked = []
    chunks = graph.chunks(lambda: asked.append(1) or now)
    likes = [value for chunk in chunks for name, value in chunk.fields if name.startswith("like")]
    assert sum(f'\\"expires_ms\\":{now + 1500}'.encode() in like for like in likes) == 2
    assert sum(b'\\"expires_after_ms\\":3000' in like for like in likes) == 1
    assert len(asked) == 1


def test_options_from_outside_hold_too():
    stored = store(add.s(1, 2) | mul.s(3), inherited={"headers": {"a": "b"}}, root="r", flow_id="f", home="h")
    assert {said.headers["a"] for said in options_of(stored).values()} == {"b"}
    assert (stored.part(0).root, stored.part(0).home, stored.graph.flow_id) == ("r", "h", "f")
    assert stored.tasks()[0].queue == "default"


def test_the_id_of_a_flow_can_be_chosen():
    assert (add.s(1, 2) | mul.s(3)).set(task_id="17", durability="fsync").to_graph().flow_id == "17"
    assert store(add.s(1, 2).set(task_id="17").on_error(total.s())).graph.flow_id == "17"
    assert len({(add.s(1, 2) | mul.s(3)).to_graph().flow_id for _ in range(3)}) == 3


def test_keys_and_limits_are_taken_from_known_arguments():
    ordered = app.task(name="t.ordered", ordering_key="y", limits=[Limit(rate="1/s", by="y")])(lambda x, y=0: x + y)
    stored = store(add.s(1, 2) | ordered.s(7) | ordered.s("a"))
    assert [like.terms.order for like in (stored.tasks()[0], stored.tasks()[1])] == ["a", "7"]
    assert options_of(stored)[0].limits == (("t.ordered", "a", 1.0),)
    assert stored.part(2).next == (), "one with terms needs more than a look"


# ---- names


@pytest.mark.parametrize(
    ("what", "label"),
    [
        (add.s(1, 2) | mul.s(3), "add | mul"),
        (group(fetch.s(url) for url in "ab"), "group of fetch"),
        (group([add.s(1, 2) | mul.s(3)]) | total.s(), "group of (add | mul) | total"),
        (chord([fetch.s("a")], total.s()), "chord: fetch -> total"),
        (group(), "group of nothing"),
        (chain(*[add.si(1, 2)] * 100), " | ".join(["add"] * 100)[:79] + "…"),
    ],
)
def test_a_flow_has_a_label_for_people(what, label):
    assert what.to_graph().label == label


# ---- size


def test_a_graph_comes_in_chunks():
    """Few nodes, or few bytes, at a time."""
    chunks = [*group(fetch.s("a") for _ in range(1000)).to_graph().chunks()]
    assert max(len(chunk.fields) for chunk in chunks) <= 210
    chunks = [*group(fetch.s("a" * 100_000) for _ in range(20)).to_graph().chunks()]
    assert max(sum(len(value) for _, value in chunk.fields) for chunk in chunks) < 500_000


@pytest.mark.parametrize(
    ("size", "what"),
    [
        (30_000, lambda size: group(fetch.s("a") for _ in range(size))),
        (2_000, lambda size: group(add.s(1, 2) | mul.s(3) for _ in range(size)) | total.s()),
        (4_000, lambda size: add.s(1, 2) | group(mul.s(n).set(countdown=n) for n in range(size))),
        (2_000, lambda size: group(fetch.s("a").on_error(total.s()) for _ in range(size))),
    ],
    ids=["calls", "chains", "options", "callbacks"],
)
def test_a_generator_of_members_is_never_held(size, what):
    """Whatever its size: what is held at a time is what some hundred nodes need."""
    graph = what(size).to_graph()
    tracemalloc.start()
    try:
        nodes = sum(len(states) for chunk in graph.chunks() for _, states in chunk.states)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert nodes == graph.size >= size
    assert peak < 500_000


def test_refs_of_uniform_members_are_short():
    stored = store(group(add.s(1, 2) | mul.s(3) for _ in range(500)) | total.s())
    join = next(node for node in stored.nodes.values() if isinstance(node, Join))
    assert (len(join.inputs), count(join.inputs), join.deps) == (1, 500, 500)


def test_a_long_chain_is_no_deep_one():
    assert store(chain([add.si(1, 2)] * 3000)).graph.size == 3000
