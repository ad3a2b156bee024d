"""Reads what has become of flows and of their nodes, in bounded steps. Pure: nothing is sent here."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from streamq._redis.keys import Keys, QueueKeys
from streamq._redis.scripts import Call, Word, load
from streamq.broker import calls, flow_reads, reads
from streamq.broker.gathering import read_specs, read_values
from streamq.broker.walking import Steps
from streamq.lifecycle import State
from streamq.nodes import Join, Like, NodeState, Spec, node_id, read_like, read_start
from streamq.refs import Refs, each

_GLANCE = load("glance")

_TOGETHER = 500
_STATES = 100_000  # characters that are read together
_MOST_LOOKED_AT = 200  # tasks of which it is found out whether a worker has them
_HEAD = ("state", "label", "out", "size", "left", "made", "ended", "error", "flow", "moved_to")
_TASK = ("state", "entry", "ended", "left")
FAILING = {
    NodeState.FAILED,
    NodeState.DEAD,
    NodeState.CANCELLED,
    NodeState.EXPIRED,
    NodeState.UPSTREAM_FAILED,
}
_WITHOUT_TASK = {NodeState.NONE, NodeState.WAITING, NodeState.UPSTREAM_FAILED, NodeState.OMITTED}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowHead:
    """A flow as a whole.

    Attributes:
        id: its id; a task that has become a flow keeps its own.
        queue: its home.
        label: for people.
        state: as that of a task; running until its value is there.
        out: the node whose value is the flow's.
        size: how many nodes it has.
        left: how many of them have not ended.
        made_ms: when it began, Redis time.
        ended_ms: when its value was there, or it was clear that there will be none; None: it runs.
        error: why there is none, as type and message; empty: there is one, or will be.
        parent_home: where the flow lives that it is a part of; empty: it is a part of none.
    """

    id: str
    queue: str
    label: str
    state: State
    out: int
    size: int
    left: int
    made_ms: int
    ended_ms: int | None = None
    error: str = ""
    parent_home: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowNode:
    """A node of a flow.

    Attributes:
        node: its number.
        state: how it stands.
        task: the name of its task; empty: it is a join.
        policy: of a join: what it makes of failures; empty: it is a task.
        task_id: that of its task; empty: it has none.
        queue: where its task goes.
        word: where its task is, of one that is released: ``queued``, ``running``, ``delayed`` or ``held``.
        since_ms: when the message came to its stream that was run last, Redis time; None: that is not known any more.
        ended_ms: when the task ended; None as above.
        error: why it failed, as type and message.
        inputs: the nodes whose values it gets.
        to: the nodes that go on with its value.
        err: those that are told when it fails.
        flow: what it has become, if that is a flow.
    """

    node: int
    state: NodeState
    task: str = ""
    policy: str = ""
    task_id: str = ""
    queue: str = ""
    word: str = ""
    since_ms: int | None = None
    ended_ms: int | None = None
    error: str = ""
    inputs: Refs = ()
    to: Refs = ()
    err: Refs = ()
    flow: FlowView | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowView:
    """A flow and all its nodes.

    Attributes:
        head: the flow as a whole.
        start: the nodes with which it begins.
        nodes: all of them, by number.
        now_ms: when this was read, Redis time.
    """

    head: FlowHead
    start: Sequence[int]
    nodes: Mapping[int, FlowNode]
    now_ms: int = 0


class Graph(dict[int, Spec | Join]):
    """The specs of a flow, by the numbers of the nodes; and what they have in common.

    Attributes:
        likes: that, by number.
        start: the nodes with which the flow begins.
    """

    def __init__(self, nodes: Mapping[int, Spec | Join], likes: Mapping[int, Like], start: Sequence[int]) -> None:
        super().__init__(nodes)
        self.likes = likes
        self.start = start

    def like_of(self, node: int) -> Like | None:
        """Give what a task node shares with others; None: it is a join."""
        spec = self[node]
        return self.likes.get(spec.like) if isinstance(spec, Spec) else None

    def queue_of(self, node: int) -> str | None:
        """Name the queue of a task node; None: home."""
        like = self.like_of(node)
        return like.queue if like else None


def glance(queue: QueueKeys, task_ids: Sequence[str], names: Sequence[str]) -> Call[list[list[bytes | None]]]:
    """Read some fields of records."""
    keys = [*map(queue.record, task_ids)]
    return Call(("EVALSHA", _GLANCE.digest, len(keys), *keys, *names), list, _GLANCE)


def states(queue: QueueKeys, flow_id: str, first: int) -> Call[str]:
    """Read the states of nodes, from one on, a bounded number."""
    key = queue.flow(flow_id)[1]
    return Call(("GETRANGE", key, first, first + _STATES - 1), lambda reply: reply.decode())


def index(queue: QueueKeys, first: int) -> Call[list[str]]:
    """Read a page of the ids of a queue's flows."""
    words: tuple[Word, ...] = ("ZRANGE", queue.flows, first, first + _TOGETHER - 1)
    return Call(words, lambda reply: [one.decode() for one in reply])


def read_head(keys: Keys, queue: str, flow_id: str) -> Steps[FlowHead | None]:
    """Read a flow as a whole; None: there is none, or it has been forgotten."""
    (head,) = yield from _read_heads(keys.queue(queue), [flow_id])
    return head


def _read_heads(queue: QueueKeys, flow_ids: Sequence[str]) -> Steps[list[FlowHead | None]]:
    found: list[FlowHead | None] = []
    for start in range(0, len(flow_ids), _TOGETHER):
        asked = flow_ids[start : start + _TOGETHER]
        found += map(lambda one, said: _head(queue.name, one, said), asked, (yield glance(queue, asked, _HEAD)))
    return found


def _head(queue: str, flow_id: str, said: Sequence[bytes | None]) -> FlowHead | None:
    known = {name: value.decode() for name, value in zip(_HEAD, said, strict=True) if value is not None}
    if not {"state", "out", "size"} <= known.keys() or "moved_to" in known:
        return None
    return FlowHead(
        id=flow_id,
        queue=queue,
        label=known.get("label", ""),
        state=State(known["state"]),
        out=int(known["out"]),
        size=int(known["size"]),
        left=int(known.get("left", 0)),
        made_ms=int(known.get("made", 0)),
        ended_ms=int(known["ended"]) if "ended" in known else None,
        error=short_error(known.get("error", "").encode()),
        parent_home=known.get("flow", ""),
    )


def short_error(stored: bytes | None) -> str:
    """Say the type and the message of a stored error; empty if that cannot be read."""
    try:
        said = json.loads(stored or b"{}")
        return ": ".join(str(said[name]) for name in ("type", "message") if said.get(name))
    except (ValueError, AttributeError):
        return ""


def read_states(queue: QueueKeys, flow_id: str, size: int) -> Steps[str]:
    """Read the states of all nodes, each a character of `NodeState`."""
    found = ""
    for first in range(0, size, _STATES):
        found += yield states(queue, flow_id, first)
    return found


def read_graph(queue: QueueKeys, flow_id: str, size: int) -> Steps[Graph]:
    """Read the nodes of a flow as they were stored; empty if they are not there any more."""
    nodes = yield from read_specs(queue, flow_id, range(size))
    numbers = sorted({spec.like for spec in nodes.values() if isinstance(spec, Spec)})
    likes: dict[int, Like] = {}
    for first in range(0, len(numbers), _TOGETHER):
        asked = numbers[first : first + _TOGETHER]
        texts = yield flow_reads.specs(queue, flow_id, [f"like:{number}" for number in asked])
        likes |= {number: read_like(text) for number, text in zip(asked, texts, strict=True) if text}
    (start,) = yield flow_reads.specs(queue, flow_id, ["start"])
    return Graph(nodes, likes, [*each(read_start(start))] if start else [])


def list_flows(keys: Keys, names: Iterable[str]) -> Steps[list[FlowHead]]:
    """List the flows of queues, those that began last first."""
    found: list[FlowHead] = []
    for name in names:
        queue = keys.queue(name)
        ids: list[str] = []
        while some := (yield index(queue, len(ids))):
            ids += some
        found += [head for head in (yield from _read_heads(queue, [*dict.fromkeys(ids)])) if head is not None]
    return sorted(found, key=lambda head: (head.made_ms, head.id), reverse=True)


def read_flow(keys: Keys, head: FlowHead) -> Steps[FlowView]:
    """Read a flow and all its nodes, and what they have become.

    A flow that goes on meanwhile is read bit by bit, so that one node may be further than another.
    """
    now_ms = yield reads.now()
    queue = keys.queue(head.queue)
    graph = yield from read_graph(queue, head.id, head.size)
    found = yield from read_states(queue, head.id, head.size)
    nodes = {number: _node(head, graph, number, NodeState(found[number : number + 1] or " ")) for number in graph}
    yield from _add_errors(queue, head, nodes)
    yield from _add_tasks(keys, nodes)
    return FlowView(head=head, start=graph.start, nodes=nodes, now_ms=now_ms)


def _node(head: FlowHead, graph: Graph, number: int, state: NodeState) -> FlowNode:
    spec, like = graph[number], graph.like_of(number)
    if isinstance(spec, Join) or like is None:
        policy = spec.policy if isinstance(spec, Join) else ""
        return FlowNode(node=number, state=state, policy=policy, inputs=spec.inputs, to=spec.to, err=spec.err)
    return FlowNode(
        node=number,
        state=state,
        task=like.task,
        task_id=node_id(head.id, number),
        queue=like.queue or head.queue,
        inputs=spec.inputs,
        to=spec.to,
        err=spec.err,
    )


def _add_errors(queue: QueueKeys, head: FlowHead, nodes: dict[int, FlowNode]) -> Steps[None]:
    failed = [one.node for one in nodes.values() if one.task and one.state in FAILING - {NodeState.UPSTREAM_FAILED}]
    for number, value in (yield from read_values(queue, head.id, failed)).items():
        nodes[number] = replace(nodes[number], error=short_error(value.body))


def _add_tasks(keys: Keys, nodes: dict[int, FlowNode]) -> Steps[None]:
    """Add what the records of the tasks say; those that have not begun have none."""
    by_queue: defaultdict[str, list[FlowNode]] = defaultdict(list)
    for one in nodes.values():
        if one.task and one.state not in _WITHOUT_TASK:
            by_queue[one.queue].append(one)
    looked_at = 0
    for name, some in by_queue.items():
        queue = keys.queue(name)
        for start in range(0, len(some), _TOGETHER):
            asked = some[start : start + _TOGETHER]
            said = yield glance(queue, [one.task_id for one in asked], _TASK)
            for one, (state, entry, ended, left) in zip(asked, said, strict=True):
                word = ""
                if one.state is NodeState.RELEASED and state and not ended:
                    word = state.decode()
                    if word == State.QUEUED and looked_at < _MOST_LOOKED_AT:
                        looked_at += 1
                        word = (yield calls.look(queue, one.task_id)).state.value
                nodes[one.node] = replace(
                    one,
                    word=word,
                    since_ms=int(entry.partition(b"-")[0]) if entry else None,
                    ended_ms=int(ended) if ended else None,
                )
                if left is not None and (head := (yield from read_head(keys, name, one.task_id))):
                    flow = yield from read_flow(keys, head)
                    nodes[one.node] = replace(nodes[one.node], flow=flow, since_ms=head.made_ms)
