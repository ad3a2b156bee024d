"""Parts of the results of flows that need no server."""

from __future__ import annotations

import pytest

from streamq import FlowProgress, ResultTimeout, State, StreamQ
from streamq.flow_results.group import Members
from streamq.flow_results.reader import FlowReader, Types, state_of
from streamq.flow_results.statuses import progress_of
from streamq.flow_results.waiting import Patience
from streamq.nodes import NodeState
from streamq.refs import each


@pytest.fixture
def reader():
    return FlowReader("f", "q", StreamQ("redis://localhost:1").broker, Types())


@pytest.mark.parametrize(
    "nodes", [(), (7,), (7, 3), ((1, 9, 2),), (0, (1, 9, 2), 11, (20, 22, 1)), ((4, 5, 1), (0, 2, 1))]
)
def test_members_are_a_sequence_whatever_their_numbers(reader, nodes):
    """They are made one by one, when they are asked for."""
    members = Members(reader, nodes)
    numbers = [*each(nodes)]
    assert [one.node for one in members] == numbers
    assert len(members) == len(numbers)
    assert [members[place].node for place in range(len(members))] == numbers
    assert [members[place].index for place in range(-len(members), 0)] == [*range(len(members))]
    assert [one.node for one in members[1:3]] == numbers[1:3]
    assert [one.node for one in reversed(members)] == numbers[::-1]
    with pytest.raises(IndexError):
        members[len(numbers)]


def test_many_members_take_no_room(reader):
    members = Members(reader, ((1, 10_000_000, 1),))
    assert (len(members), members[-1].node, members[5_000_000].id) == (10_000_000, 10_000_000, "f.5000001")


def test_every_character_is_a_state():
    states = {character: state_of(character, State.RUNNING) for character in NodeState}
    ended = {character for character, state in states.items() if state.ended}
    assert ended == set(NodeState) - {NodeState.NONE, NodeState.WAITING, NodeState.RELEASED}
    assert states[NodeState.UPSTREAM_FAILED] is State.FAILED


def test_in_a_cancelled_flow_nothing_waits():
    """Nor has anything failed that could not run because of that."""
    found = {character: state_of(character, State.CANCELLED) for character in "wrksfo"}
    cancelled = State.CANCELLED
    assert list(found.values()) == [cancelled, cancelled, cancelled, State.SUCCEEDED, State.FAILED, State.SKIPPED]


def test_progress_counts_how_nodes_stand():
    assert progress_of("wrsssfdcxko ", State.RUNNING) == FlowProgress(total=12, ended=9, succeeded=3, failed=5)
    assert progress_of("wrs", State.CANCELLED) == FlowProgress(total=3, ended=3, succeeded=1, failed=2)
    assert progress_of("ws", State.RUNNING).fraction == 0.5
    assert progress_of("", State.SUCCEEDED).fraction == 1


def test_patience_has_an_end():
    """A pause is never longer than what is left, nor than a lost notification may cost."""
    assert Patience(None).pause("late").seconds == 1
    assert Patience(60).pause("late").seconds == 1
    assert 0 < Patience(0.5).pause("late").seconds <= 0.5
    with pytest.raises(ResultTimeout, match="it is late after 0 s"):
        Patience(0).pause("it is late")


def test_a_result_shows_what_it_is_of(reader):
    result = reader.broker and StreamQ("redis://localhost:1").flow("f", queue="q")
    assert repr(result) == "FlowResult(id='f', queue='q')"
    assert result.to_json() == '{"id": "f", "queue": "q"}'
    assert repr(Members(reader, (1, 2))) == "<2 results of flow f>"
