"""How a flow and its nodes stand, as plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from streamq.flow_results.reader import state_of
from streamq.lifecycle import State
from streamq.nodes import FlowPart, node_ids


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """How one node of a flow stands.

    Attributes:
        node: its number, from 0.
        task_id: the id of its task; None: it is a group, which has none.
        task: the name of the task; empty: it is a group.
        state: how it stands. What could not run because of another is failed. One whose task is enqueued, or about to
            be, is queued: whether it runs by now is known only if that was asked for.
        queue: where its task goes; that of the flow, if it is a group.
        flow_id: the id of the flow.
    """

    node: int
    task_id: str | None
    task: str
    state: State
    queue: str
    flow_id: str
    _part: FlowPart | None = field(default=None, repr=False, compare=False)

    @property
    def root_id(self) -> str:
        """The id of the outermost flow; another than `flow_id` if the flow is run in place of a task of another."""
        return self.flow_id if self._part is None else self._part.root or self.flow_id

    @property
    def parent_ids(self) -> tuple[str, ...]:
        """The ids of the tasks that come right before its task; of a group there are none."""
        return () if self._part is None else node_ids(self.flow_id, self._part.parents)

    @property
    def child_ids(self) -> tuple[str, ...]:
        """The ids of the tasks that may come right after its task; of a group there are none."""
        return () if self._part is None else node_ids(self.flow_id, self._part.children)


@dataclass(frozen=True, slots=True)
class FlowProgress:
    """How far a flow is.

    Attributes:
        total: how many parts it has.
        ended: so many of them have ended.
        succeeded: so many of these have succeeded.
        failed: so many have not, or could not run; callbacks that were not needed are neither.
    """

    total: int
    ended: int
    succeeded: int
    failed: int

    @property
    def fraction(self) -> float:
        """How much of it has ended, 0 to 1."""
        return self.ended / self.total if self.total else 1.0


def progress_of(characters: Iterable[str], flow: State) -> FlowProgress:
    """Count how nodes stand, from their characters and the state of their flow."""
    states: Counter[State] = Counter()
    for character, count in Counter(characters).items():
        states[state_of(character, flow)] += count
    ended = sum(count for state, count in states.items() if state.ended)
    succeeded = states[State.SUCCEEDED]
    return FlowProgress(states.total(), ended, succeeded, ended - succeeded - states[State.SKIPPED])
