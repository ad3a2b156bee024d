"""Builds the calls of flows: graphs of tasks, each of which is stored once. Pure: nothing is sent here.

All of a flow is in the slot of one queue, its home, and so the step that commits the outcome of a task can let what
follows begin: nothing can get lost between the two. What that step cannot do itself, because the next task belongs on
another queue or because there are too many, it notes in the same slot, in the flow's lists and in the outbox of the
queue; any worker carries on, and each step can be made again. A task that lies on another queue is committed there,
and in the same step noted in the outbox of that queue, from where its flow is told.

The keys of a flow, as `QueueKeys.flow` has them:

- its record, that of a task: ``running`` until its value is there. It has also ``label``, ``out`` (the node whose value
  is the flow's), ``size``, ``left`` (how many nodes have not ended), ``made`` (ms), ``watchers`` (clients to be told
  when any node ends). The result is empty if `out` is a join, whose value is that of its members.
- states: a string, one character for each node, see `streamq.nodes.NodeState`. This is the set of what has ended: a
  node ends once, because its character changes once, and only then is it counted where it is waited for.
- waits: a hash: for how many each node still waits that waits for more than one.
- graph: a hash: the spec of each node, see `streamq.workflows`; under ``like:K`` what nodes have in common, and under
  ``start`` those that wait for nothing.
- results: a hash: the result or the error of each task; of a node that failed because of another, the number of that;
  under ``+N`` what was added to a group by its member N, and under ``+`` which these are.
- todo: a list of nodes that have ended, each with the position up to which those that follow it have been told.
- sends: a list of nodes that are to be enqueued.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from streamq._redis.keys import FLOW_PARTS, GROUP, Keys, QueueKeys
from streamq._redis.scripts import Call, Word, load, nothing
from streamq.broker.calls import Settlement
from streamq.lifecycle import State
from streamq.message import Delivery
from streamq.nodes import Chunk, NodeState, node_id, split_id
from streamq.sending import part_of

_ADD = load("flow_add")
_START = load("flow_start")
_BECOME = load("become")
_FINISH = load("finish_flow")
_TOLD = load("flow_told")
_STEP = load("flow_step")
_LET = load("flow_let")

_BUILD_MS = 3600 * 1000  # for so long the parts of a graph stay whose flow never begins
_OLD_MS = 500  # what has been in the outbox for less is likely to be seen to by whoever has put it there
_STEP_NODES = 100
_KEYS = len(FLOW_PARTS) + 1


_ENDS = {
    State.SUCCEEDED: NodeState.SUCCEEDED,
    State.FAILED: NodeState.FAILED,
    State.DEAD: NodeState.DEAD,
    State.CANCELLED: NodeState.CANCELLED,
    State.EXPIRED: NodeState.EXPIRED,
}


class Home(NamedTuple):
    """What scripts have to know of a flow's queue."""

    queue: QueueKeys
    done: str
    ttl_ms: int

    @classmethod
    def of(cls, keys: Keys, queue: str, ttl_ms: int) -> Home:
        """Make that of a queue, given by name."""
        return cls(keys.queue(queue), keys.done, ttl_ms)

    @property
    def keys(self) -> list[str]:
        """The keys with which scripts begin."""
        return [self.queue.delayed, self.queue.outbox, self.queue.flows]

    @property
    def words(self) -> list[Word]:
        """The arguments with which they begin."""
        return [GROUP, self.queue.events, self.queue.name, self.done, self.ttl_ms]


class Plan(NamedTuple):
    """What is to be known of a graph for its flow to begin, when all but its last part is written.

    Attributes:
        last: that part.
        is_small: it is all of the graph.
        label: for people.
        out: the node whose value is the flow's.
        size: how many nodes there are.
        roots: nodes that can be enqueued at once, with the levels of their messages.
    """

    last: Chunk
    is_small: bool
    label: str
    out: int
    size: int
    roots: Sequence[tuple[int, int]]


def add(queue: QueueKeys, flow_id: str, chunk: Chunk, *, is_first: bool, fence: int | None = None) -> Call[bool]:
    """Write a part of a graph; False if the flow has begun, or the task with this fence is another worker's by now."""
    record, states, _, graph, *_ = queue.flow(flow_id)
    args = ("" if fence is None else fence, _BUILD_MS, *_part(chunk, is_first=is_first))
    return Call(("EVALSHA", _ADD.digest, 3, record, states, graph, *args), bool, _ADD)


def _part(chunk: Chunk, *, is_first: bool) -> list[Word]:
    words: list[Word] = [int(is_first), len(chunk.states)]
    for first, run in chunk.states:
        words += (first, run)
    for name, spec in chunk.fields:
        words += (name, spec)
    return words


class Begun(NamedTuple):
    """What came of the wish to have a flow begin.

    Attributes:
        is_new: it has begun now; or, in a repeated call, just before.
        is_lost: what was written of its graph has gone; it took too long.
        goes_on: there is more to do: ``flow:ID`` is in the outbox.
        to_note: the queue's name is to be noted, as `calls.Enqueued` has it.
    """

    is_new: bool
    is_lost: bool
    goes_on: bool
    to_note: bool


def _read_begun(reply: int) -> Begun:
    is_new = reply > 0
    return Begun(is_new, is_lost=reply < 0, goes_on=is_new and bool(reply & 2), to_note=not is_new or bool(reply & 4))


def start(home: Home, flow_id: str, plan: Plan) -> Call[Begun]:
    """Have a flow begin."""
    near, nodes = _near(home.queue, flow_id, plan.roots)
    keys = [*home.keys, *home.queue.flow(flow_id), *near, home.queue.log or home.queue.delayed]
    args = (*home.words, flow_id, plan.label, plan.out, plan.size, len(nodes), *nodes)
    last = _part(plan.last, is_first=plan.is_small)
    return Call(("EVALSHA", _START.digest, len(keys), *keys, *args, *last), _read_begun, _START)


def become(home: Home, delivery: Delivery, plan: Plan, own: bytes | None) -> Call[Begun]:
    """Have a task that has run become a flow; `own`: its own result, if the flow only adds to it."""
    message, stream, entry, fence, *_ = delivery
    near, nodes = _near(home.queue, message.id, plan.roots)
    keys = [*home.keys, *home.queue.flow(message.id), stream, *near, home.queue.log or home.queue.delayed]
    args = (*home.words, message.id, plan.label, plan.out, plan.size, entry, fence, own or b"")
    last = _part(plan.last, is_first=plan.is_small)
    words = ("EVALSHA", _BECOME.digest, len(keys), *keys, *args, len(nodes), *nodes, *last)
    return Call(words, _read_begun, _BECOME)


def _near(queue: QueueKeys, flow_id: str, nodes: Iterable[tuple[int, int]]) -> tuple[list[str], list[int]]:
    """List the keys of nodes that may be enqueued on a queue, and the nodes."""
    keys: list[str] = []
    numbers: list[int] = []
    for node, level in nodes:
        keys += (queue.record(node_id(flow_id, node)), queue.levels[level])
        numbers.append(node)
    return keys, numbers


class Finished(NamedTuple):
    """The positions of the outcomes that were refused, and what there is more to do, of the queue's outbox."""

    refused: list[int]
    more: list[str]


def finish(home: Home, stream: str, settlements: Sequence[Settlement], *, worker: str) -> Call[Finished]:
    """Commit outcomes of tasks of flows, deliveries that all came from `stream`."""
    queue = home.queue
    parts = [part_of(one.delivery.message) for one in settlements]
    next_of: dict[str, dict[int, int]] = {}  # of each flow whose home this is: the nodes that may follow
    for one, part in zip(settlements, parts, strict=True):
        if part is not None and part.home == queue.name:
            next_of.setdefault(split_id(one.delivery.message.id)[0], {}).update(part.next)
    keys = [stream, *home.keys]
    group, *words, ttl_ms = home.words
    args: list[Word] = [group, *words, worker, ttl_ms, len(next_of)]
    for flow_id, following in next_of.items():
        near, nodes = _near(queue, flow_id, following.items())
        keys += (*queue.flow(flow_id), *near)
        args += (flow_id, len(nodes), *nodes)
    numbers = {flow_id: number for number, flow_id in enumerate(next_of, 1)}
    for ((message, _, entry, fence, *_), state, body), part in zip(settlements, parts, strict=True):
        flow_id, node = split_id(message.id)
        keys.append(queue.record(message.id))
        args += (entry, fence, state.value, body, message.id, message.task)
        args += (numbers.get(flow_id, 0), node, (part and part.root) or "")
    keys.append(queue.log or keys[0])

    def read(reply: list[Any]) -> Finished:
        return Finished(reply[0], [one.decode() for one in reply[1]])

    return Call(("EVALSHA", _FINISH.digest, len(keys), *keys, *args), read, _FINISH)


class End(NamedTuple):
    """How a task of a flow has ended, for the flow to be told.

    Attributes:
        task_id: the task's.
        state: its state.
        body: its result or error.
        more: what its group gets after its result: JSON of values, joined by commas.
    """

    task_id: str
    state: State
    body: bytes
    more: bytes = b""


def told(home: Home, ends: Iterable[End]) -> Call[list[str]]:
    """Tell flows that tasks of theirs have ended; returns what there is more to do, of the outbox."""
    keys, args = home.keys, home.words
    for task_id, state, body, more in ends:
        flow_id, node = split_id(task_id)
        keys += home.queue.flow(flow_id)
        args += (flow_id, node, _ENDS[state].value, body, more)
    keys.append(home.queue.log or keys[0])
    words = ("EVALSHA", _TOLD.digest, len(keys), *keys, *args)
    return Call(words, lambda reply: [one.decode() for one in reply], _TOLD)


class Found(NamedTuple):
    """A node that is to be enqueued, or cancelled: its spec, what it shares with others, and its arguments."""

    node: int
    spec: bytes
    like: bytes
    args: bytes


class Step(NamedTuple):
    """What a step of a flow found, ``send``, ``cancel`` or ``done``; what else is to be done; and the nodes meant."""

    what: str
    more: list[str]
    nodes: list[Found]


def step(home: Home, flow_id: str, sent: Iterable[int], swept: int) -> Call[Step]:
    """Take a flow a step on.

    Args:
        home: of the flow.
        flow_id: its id.
        sent: nodes that were enqueued since the last step.
        swept: the last node that was cancelled since the flow was; -1: none.
    """
    keys = [*home.keys, *home.queue.flow(flow_id), home.queue.log or home.queue.delayed]
    args = (*home.words, flow_id, _STEP_NODES, swept, *sent)

    def read(reply: list[Any]) -> Step:
        what, more, *words = reply
        nodes = [Found(int(words[n]), *words[n + 1 : n + 4]) for n in range(0, len(words), 4)]
        return Step(what.decode(), [one.decode() for one in more], nodes)

    return Call(("EVALSHA", _STEP.digest, len(keys), *keys, *args), read, _STEP)


def outbox(queue: QueueKeys, now_ms: int) -> Call[list[str]]:
    """Read what nobody has seen to for some time."""
    words = ("ZRANGEBYSCORE", queue.outbox, "-inf", now_ms - _OLD_MS, "LIMIT", 0, _STEP_NODES)
    return Call(words, lambda reply: [one.decode() for one in reply])


def noted(queue: QueueKeys, flow_ids: Sequence[str]) -> Call[list[str]]:
    """Find those flows of a queue for which something has still to be done; at least one is given."""

    def read(reply: list[float | None]) -> list[str]:
        return [flow_id for flow_id, score in zip(flow_ids, reply, strict=True) if score is not None]

    return Call(("ZMSCORE", queue.outbox, *(f"flow:{flow_id}" for flow_id in flow_ids)), read)


def let_go(queue: QueueKeys, task_ids: Sequence[str], ttl_ms: int) -> Call[None]:
    """Have the records of tasks whose flows have been told last only as long as those of others."""
    keys = [queue.outbox, queue.flows, *(key for task_id in task_ids for key in queue.flow(task_id))]
    return Call(("EVALSHA", _LET.digest, len(keys), *keys, ttl_ms, *task_ids), nothing, _LET)
