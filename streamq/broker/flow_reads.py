"""The calls that read of flows what has come of them. Pure: nothing is sent here. See `streamq.broker.flows`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from streamq._redis.keys import QueueKeys
from streamq._redis.scripts import Call, Word, load
from streamq.broker import reads
from streamq.lifecycle import State
from streamq.nodes import FlowPart, NodeState
from streamq.sending import read_steering

_ENDED = load("flow_ended")
_VALUES = load("flow_values")
_WATCH = load("flow_watch")
_TASKS = load("flow_tasks")

_STATES = {state.value.encode(): state for state in NodeState} | {b"": NodeState.NONE}


class Ended(NamedTuple):
    """How a task of a flow has ended.

    Attributes:
        state: the task's; None: there is no record of it.
        home: the queue where its flow lives; empty: it has none.
        out: the node whose value is its own, if it has become a flow.
        body: its result or error.
        is_more: that flow only adds to its result.
    """

    state: State | None
    home: str
    out: int | None
    body: bytes
    is_more: bool


def ended(queue: QueueKeys, task_ids: Sequence[str]) -> Call[list[Ended]]:
    """Read how the first of some tasks have ended, at least one."""

    def read(reply: list[list[bytes]]) -> list[Ended]:
        return [
            Ended(
                State(state.decode()) if state else None, home.decode(), int(out) if out else None, body, bool(is_more)
            )
            for state, home, out, body, is_more in reply
        ]

    keys = [*map(queue.record, task_ids)]
    return Call(("EVALSHA", _ENDED.digest, len(keys), *keys, reads.PAGE_BYTES), read, _ENDED)


class Value(NamedTuple):
    """How a node stands, and its result or error; None: it has none."""

    state: NodeState
    body: bytes | None


def values(queue: QueueKeys, flow_id: str, nodes: Sequence[int]) -> Call[list[Value]]:
    """Read how the first of some nodes stand, at least one."""
    _, states, _, _, results, *_ = queue.flow(flow_id)

    def read(reply: list[Any]) -> list[Value]:
        pairs = zip(reply[::2], reply[1::2], strict=True)
        return [Value(_STATES[state], body) for state, body in pairs]

    words: tuple[Word, ...] = ("EVALSHA", _VALUES.digest, 2, states, results, reads.PAGE_BYTES, *nodes)
    return Call(words, read, _VALUES)


class Standing(NamedTuple):
    """How a flow stands.

    Attributes:
        state: of the flow; `State.UNKNOWN`: there is no record.
        moved_to: the queue where the task is now; None: this one.
        out: the node whose value is the flow's; None: it is a task that is no flow, or not yet.
        size: how many nodes it has.
        left: how many of them have not ended.
        states: a character for each node that was asked for, see `NodeState`; those at the end may be missing.
        body: the result or the error, if it has ended and it was asked for.
    """

    state: State
    moved_to: str | None = None
    out: int | None = None
    size: int = 0
    left: int = 0
    states: str = ""
    body: bytes = b""


def watch_end(queue: QueueKeys, flow_id: str, client: str) -> Call[Standing]:
    """Read how a flow stands, and what came of it; a client is told when it ends."""
    return _watch(queue, flow_id, (client, "waiters", 1, 0))  # no states


def watch_nodes(queue: QueueKeys, flow_id: str, client: str = "", first: int = 0, last: int = -1) -> Call[Standing]:
    """Read how a flow and its nodes stand; a client, if there is one, is told when any node ends."""
    return _watch(queue, flow_id, (client, "watchers", first, last))


def _watch(queue: QueueKeys, flow_id: str, args: tuple[Word, ...]) -> Call[Standing]:
    record, states, *_ = queue.flow(flow_id)

    def read(reply: list[bytes]) -> Standing:
        if not reply:
            return Standing(State.UNKNOWN)
        state, moved_to, out, size, left, characters, body = reply
        return Standing(
            State(state.decode()),
            moved_to.decode() or None,
            int(out) if out else None,
            int(size or 0),
            int(left or 0),
            characters.decode(),
            body,
        )

    return Call(("EVALSHA", _WATCH.digest, 2, record, states, *args), read, _WATCH)


class OfTask(NamedTuple):
    """How a node stands, and which task it is of.

    Attributes:
        state: of the node.
        task: the name; empty: it is a join.
        queue: where its task goes.
        part: where it stands in the flow; None: it is a join.
    """

    state: NodeState
    task: str
    queue: str
    part: FlowPart | None


def tasks(queue: QueueKeys, flow_id: str, nodes: Sequence[int]) -> Call[list[OfTask]]:
    """Read how the first of some nodes stand, and which tasks they are of; at least one."""
    _, states, _, graph, *_ = queue.flow(flow_id)

    def read(reply: list[list[bytes]]) -> list[OfTask]:
        return [
            OfTask(_STATES[state], task.decode(), there.decode() or queue.name, read_steering(options).flow)
            for state, task, there, options in reply
        ]

    words: tuple[Word, ...] = ("EVALSHA", _TASKS.digest, 2, states, graph, reads.PAGE_BYTES, *nodes)
    return Call(words, read, _TASKS)


def specs(queue: QueueKeys, flow_id: str, names: Sequence[str]) -> Call[list[bytes | None]]:
    """Read specs, or what nodes have in common; None for what is not there."""
    return Call(("HMGET", queue.flow(flow_id)[3], *names), list)


def results(queue: QueueKeys, flow_id: str, names: Sequence[str]) -> Call[list[bytes | None]]:
    """Read what else is among the results; None for what is not there."""
    return Call(("HMGET", queue.flow(flow_id)[4], *names), list)
