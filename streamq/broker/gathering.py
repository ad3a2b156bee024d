"""How the value of a node of a flow is put together of the results of tasks, in bounded steps. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, TypeVar

from streamq._redis.keys import QueueKeys
from streamq._redis.scripts import Call
from streamq.broker import flow_reads
from streamq.broker.flow_reads import OfTask, Value
from streamq.broker.walking import Steps
from streamq.errors import UnknownTaskId
from streamq.nodes import Failure, Join, NodeState, Spec, node_id, read_spec
from streamq.refs import each

T = TypeVar("T")

_TOGETHER = 500
_LONGEST_WAY = 1000


def read_values(queue: QueueKeys, flow_id: str, nodes: Sequence[int]) -> Steps[dict[int, Value]]:
    """Read how nodes stand, all of them."""
    return (yield from _read_all(nodes, lambda some: flow_reads.values(queue, flow_id, some)))


def read_tasks(queue: QueueKeys, flow_id: str, nodes: Sequence[int]) -> Steps[dict[int, OfTask]]:
    """Read how nodes stand, and which tasks they are of, all of them."""
    return (yield from _read_all(nodes, lambda some: flow_reads.tasks(queue, flow_id, some)))


def _read_all(nodes: Sequence[int], read: Callable[[Sequence[int]], Call[list[T]]]) -> Steps[dict[int, T]]:
    """Read about nodes until there is an answer for each; a reply that would be large has only the first of them."""
    found: dict[int, T] = {}
    while len(found) < len(nodes):
        asked = nodes[len(found) : len(found) + _TOGETHER]
        found |= zip(asked, (yield read(asked)), strict=False)
    return found


def read_specs(queue: QueueKeys, flow_id: str, nodes: Sequence[int]) -> Steps[dict[int, Spec | Join]]:
    """Read the specs of nodes; those that are not there are left out."""
    found: dict[int, Spec | Join] = {}
    for start in range(0, len(nodes), _TOGETHER):
        asked = nodes[start : start + _TOGETHER]
        texts = yield flow_reads.specs(queue, flow_id, [*map(str, asked)])
        found |= {node: read_spec(text) for node, text in zip(asked, texts, strict=True) if text}
    return found


class Parts(NamedTuple):
    """What the values of some nodes are made of.

    Attributes:
        flow_id: the flow.
        values: of those nodes, and of all that they are made of.
        joins: those among them without a value of their own.
        failures: those among them that have not succeeded.
        added: what members have added to their groups, to come after their own values: JSON, joined by commas.
    """

    flow_id: str
    values: dict[int, Value]
    joins: dict[int, Join]
    failures: dict[int, Failure]
    added: dict[int, bytes]

    def value(
        self,
        node: int,
        result: Callable[[int, bytes], T],
        failed: Callable[[Failure], T],
        more: Callable[[bytes], Iterable[T]],
        whole: Callable[[Iterable[T]], T],
    ) -> T:
        """Make the value of a node, from results, failures, what was added, and the values of the members of a join.

        Raises:
            UnknownTaskId: something is not there: the flow was deleted meanwhile.
        """
        failure = self.failures.get(node)
        if failure is not None:
            return failed(failure)
        body = self.values[node].body
        if body is not None:
            return result(node, body)
        join = self.joins.get(node)
        if join is None:
            raise gone(self.flow_id)

        def members() -> Iterator[T]:
            for one in each(join.inputs):
                if join.policy != "continue" or one not in self.failures:
                    yield self.value(one, result, failed, more, whole)
                if one in self.added:
                    yield from more(self.added[one])

        return whole(members())


def read_parts(queue: QueueKeys, flow_id: str, nodes: Sequence[int]) -> Steps[Parts]:
    """Read all that the values of nodes are made of, level by level."""
    parts = Parts(flow_id, {}, {}, {}, {})
    level = nodes
    while level:
        found = yield from read_values(queue, flow_id, level)
        parts.values.update(found)
        bare = [node for node, value in found.items() if value.state is NodeState.SUCCEEDED and value.body is None]
        specs = yield from read_specs(queue, flow_id, bare)
        more = {node: spec for node, spec in specs.items() if isinstance(spec, Join)}
        parts.joins.update(more)
        level = [node for spec in more.values() for node in each(spec.inputs)]
    if parts.joins:
        parts.added.update((yield from _read_added(queue, flow_id)))
    failed = {
        node: value for node, value in parts.values.items() if value.state not in (NodeState.SUCCEEDED, NodeState.NONE)
    }
    parts.failures.update((yield from _read_failures(queue, flow_id, failed)))
    return parts


def _read_added(queue: QueueKeys, flow_id: str) -> Steps[dict[int, bytes]]:
    (listed,) = yield flow_reads.results(queue, flow_id, ["+"])
    found: dict[int, bytes] = {}
    for member in (listed or b"").split():
        (more,) = yield flow_reads.results(queue, flow_id, [f"+{int(member)}"])
        found[int(member)] = more or b""
    return found


def _read_failures(queue: QueueKeys, flow_id: str, failed: dict[int, Value]) -> Steps[dict[int, Failure]]:
    """Read how nodes have failed: their errors are those of the tasks where that began."""
    if not failed:
        return {}
    known = dict(failed)
    origins = {node: node for node in failed}
    while True:
        moved = {
            node: int(known[origin].body or 0)
            for node, origin in origins.items()
            if known[origin].state is NodeState.UPSTREAM_FAILED and known[origin].body
        }
        if not moved:
            break
        origins |= moved
        missing = [node for node in dict.fromkeys(moved.values()) if node not in known]
        known |= yield from read_values(queue, flow_id, missing)
    of_tasks = yield from read_tasks(queue, flow_id, [*dict.fromkeys(origins.values())])
    return {
        node: _failure(node_id(flow_id, origin), of_tasks[origin].task, known[origin].body)
        for node, origin in origins.items()
    }


def _failure(task_id: str, task: str, body: bytes | None) -> Failure:
    error: dict[str, Any] = json.loads(body or b"{}")
    return Failure(task_id, task, *(error.get(name) or "" for name in ("type", "message", "traceback")))


def gather(queue: QueueKeys, flow_id: str, node: int) -> Steps[bytes]:
    """Put the value of a node together, as JSON; of a join that of its members, and so on.

    Raises:
        UnknownTaskId: the flow was deleted meanwhile.
    """
    (value,) = yield from _gather(queue, flow_id, [node])
    return value


def arguments(queue: QueueKeys, flow_id: str, node: int) -> Steps[bytes]:
    """Put the arguments of a node's task together, with the values that it needs.

    Raises:
        UnknownTaskId: the flow was deleted meanwhile.
    """
    spec = (yield from read_specs(queue, flow_id, [node])).get(node)
    if not isinstance(spec, Spec):
        raise gone(flow_id)
    if not spec.inputs:
        return spec.args
    head = b'{"*":[' if spec.args.endswith(b"}") else b"["
    return head + b",".join((yield from _gather(queue, flow_id, [*each(spec.inputs)]))) + spec.args


def _gather(queue: QueueKeys, flow_id: str, nodes: Sequence[int]) -> Steps[list[bytes]]:
    parts = yield from read_parts(queue, flow_id, nodes)
    return [
        parts.value(
            node,
            lambda _, body: body,
            _encode,
            lambda more: (more,) if more else (),
            lambda values: b"[" + b",".join(values) + b"]",
        )
        for node in nodes
    ]


def gone(flow_id: str) -> UnknownTaskId:
    """Make the error of a flow of which something is not there."""
    return UnknownTaskId(f"there is no flow {flow_id} any more: it was forgotten, or deleted")


def _encode(failure: Failure) -> bytes:
    return json.dumps(asdict(failure), separators=(",", ":"), ensure_ascii=False).encode()


class Blame(NamedTuple):
    """Why a node has failed.

    Attributes:
        state: how the task ended where that began.
        task_id: its id.
        body: its error.
        path: the names of the tasks from there on; a join is called ``group``.
    """

    state: NodeState
    task_id: str
    body: bytes
    path: tuple[str, ...]


def read_blame(queue: QueueKeys, flow_id: str, node: int) -> Steps[Blame]:
    """Read why a node has failed."""
    way = [node]
    while True:
        value = (yield from read_values(queue, flow_id, way[-1:]))[way[-1]]
        if value.state is not NodeState.UPSTREAM_FAILED or not value.body or len(way) == _LONGEST_WAY:
            break
        way.append(int(value.body))
    of_tasks = yield from read_tasks(queue, flow_id, way)
    path = tuple(of_tasks[one].task or "group" for one in reversed(way))
    return Blame(value.state, node_id(flow_id, way[-1]), value.body or b"", path)
