"""How what has failed of a flow runs again, and what has succeeded stays. Pure: nothing is sent here.

First all is read, and it is found out what is to run again, and what is to wait for that. Then room is made for the new
runs of the tasks, where their records are. Then the flow is changed, in one step, which is refused if what was found
out is no longer so; its last part, the enqueues, is carried on by any worker. Until that step nothing of the flow has
changed, so that each part can be made again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from streamq._redis.keys import Keys, QueueKeys
from streamq._redis.scripts import Call, Word, load
from streamq.broker import flow_census
from streamq.broker.flow_census import FAILING, Graph
from streamq.broker.flowing import Work, carry
from streamq.broker.flows import Home
from streamq.broker.walking import Steps
from streamq.errors import BrokerError, FlowError, UnknownTaskId
from streamq.lifecycle import State
from streamq.nodes import Join, NodeState, Spec, node_id, split_id
from streamq.refs import Row, each

_AGAIN = load("flow_again")
_RETRY = load("flow_retry")

_TOGETHER = 100
_MOST_ROUNDS = 20
_FAILED = FAILING - {NodeState.UPSTREAM_FAILED}
_GOES_ON = {NodeState.SUCCEEDED, NodeState.RELEASED}


class Waiting(NamedTuple):
    """A node that is to wait again.

    Attributes:
        node: its number.
        before: those that it may have to wait for.
        is_strict: none of them may have failed.
    """

    node: int
    before: Sequence[int]
    is_strict: bool


class Revival(NamedTuple):
    """What is to be changed of a flow: the nodes that are to be enqueued, and those that are to wait."""

    again: list[int]
    waiting: list[Waiting]


def again(queue: QueueKeys, task_ids: Sequence[str], ttl_ms: int) -> Call[list[str]]:
    """Make room for new runs of tasks that have failed; says of each what became of that, as the script does."""
    keys = [queue.outbox, *map(queue.record, task_ids)]
    words: tuple[Word, ...] = ("EVALSHA", _AGAIN.digest, len(keys), *keys, ttl_ms, *task_ids)
    return Call(words, lambda reply: [one.decode() for one in reply], _AGAIN)


def retry(home: Home, flow_id: str, states: str, revival: Revival) -> Call[bool | None]:
    """Change a flow; False if it is not as it was, None if there is none."""
    row = Row()
    for node in revival.again:
        row.add(node)
    waiting = [[one.node, states[one.node], _refs(one.before), int(one.is_strict)] for one in revival.waiting]
    args: tuple[Word, ...] = (
        *home.words,
        flow_id,
        _json(row.refs()),
        "".join(states[node] for node in revival.again),
        _json(waiting),
    )
    keys = [*home.keys, *home.queue.flow(flow_id), home.queue.log or home.queue.delayed]
    words: tuple[Word, ...] = ("EVALSHA", _RETRY.digest, len(keys), *keys, *args)
    read: Callable[[int], bool | None] = {1: True, 0: False, -1: None}.__getitem__
    return Call(words, read, _RETRY)


def _refs(nodes: Sequence[int]) -> object:
    row = Row()
    for node in nodes:
        row.add(node)
    return row.refs()


def _json(said: object) -> str:
    return json.dumps(said, separators=(",", ":"))


def retry_flow(keys: Keys, queue: str, flow_id: str, ttl_ms: int) -> Steps[int]:
    """Have those tasks of a flow run again that have failed, died, expired or were cancelled; keep what has succeeded.

    What did not run because of them waits again. A failed member of a group that collects failures runs again unless
    what comes after the group has begun with the failure in its list. Error callbacks that have begun stay as they are.

    Args:
        keys: of the namespace.
        queue: the home of the flow.
        flow_id: its id.
        ttl_ms: how long what has ended is kept.

    Returns:
        How many tasks run again; 0: there is nothing to do.

    Raises:
        UnknownTaskId: there is no such flow, or it was forgotten.
        FlowError: it is a part of another flow.
        BrokerError: so much happens in it at the same time that it could not be done; calling again may help.
    """
    head = yield from flow_census.read_head(keys, queue, flow_id)
    if head is not None and head.parent_home:
        raise FlowError(f"{flow_id} is a part of the flow {split_id(flow_id)[0]}: retry that")
    return (yield from _retry(keys, queue, flow_id, ttl_ms))


def _retry(keys: Keys, queue: str, flow_id: str, ttl_ms: int) -> Steps[int]:
    home = Home.of(keys, queue, ttl_ms)
    graph: Graph | None = None
    count = 0
    work: list[Work] = [(queue, f"flow:{flow_id}")]
    for _ in range(_MOST_ROUNDS):
        yield from carry(keys, work, ttl_ms)  # what has ended is told to all, and what was cancelled is
        head = yield from flow_census.read_head(keys, queue, flow_id)
        if head is None:
            break
        graph = graph or (yield from flow_census.read_graph(home.queue, flow_id, head.size))
        states = yield from flow_census.read_states(home.queue, flow_id, head.size)
        failed = find_failed(states, graph, head.out)
        parts, more = yield from _make_room(keys, home, flow_id, graph, failed)
        count += more
        revival = plan(states, graph, failed, parts, is_cancelled=head.state is State.CANCELLED)
        if not revival.again and not revival.waiting:
            return count
        done = yield retry(home, flow_id, states, revival)
        if done is None:
            break
        if done:
            yield from carry(keys, work, ttl_ms)
            return count + len(failed) - len(parts)
    else:
        raise BrokerError(f"flow {flow_id} changes so fast that it could not be retried; try again")
    raise UnknownTaskId(f"there is no flow {flow_id}: it never began, has expired, or was forgotten")


def _make_room(
    keys: Keys, home: Home, flow_id: str, graph: Graph, failed: Sequence[int]
) -> Steps[tuple[set[int], int]]:
    """Make room for new runs of tasks; have those that have become flows go on.

    Returns these, and how many tasks of them run again.
    """
    by_queue: defaultdict[str, list[int]] = defaultdict(list)
    for node in failed:
        by_queue[graph.queue_of(node) or home.queue.name].append(node)
    parts: set[int] = set()
    count = 0
    for name, nodes in by_queue.items():
        for start in range(0, len(nodes), _TOGETHER):
            some = nodes[start : start + _TOGETHER]
            ids = [node_id(flow_id, node) for node in some]
            said = yield again(keys.queue(name), ids, home.ttl_ms)
            if untold := [(name, f"end:{one}") for one, what in zip(ids, said, strict=True) if what == "untold"]:
                yield from carry(keys, untold, home.ttl_ms)
                said = yield again(keys.queue(name), ids, home.ttl_ms)
            for node, one, what in zip(some, ids, said, strict=True):
                if what == "flow":
                    parts.add(node)
                    count += yield from _retry(keys, name, one, home.ttl_ms)
    return parts, count


def find_failed(states: str, graph: Graph, out: int) -> list[int]:
    """Find the task nodes that are to run again: all that have failed, but for what others went on with."""
    known: dict[int, bool] = {}

    def is_taken(node: int) -> bool:
        """Something has begun with the value of a node, and nothing else wants it."""
        if node not in known:
            known[node] = node != out and bool(graph[node].to) and all(map(has_taken, each(graph[node].to)))
        return known[node]

    def has_taken(node: int) -> bool:
        is_join = isinstance(graph[node], Join)
        return states[node] == NodeState.SUCCEEDED and is_taken(node) if is_join else states[node] in _GOES_ON

    return [
        node
        for node, state in enumerate(states)
        if state in _FAILED and isinstance(graph.get(node), Spec) and not is_taken(node)
    ]


def plan(states: str, graph: Graph, failed: Sequence[int], parts: set[int], *, is_cancelled: bool) -> Revival:
    """Find out what is to be changed of a flow.

    Args:
        states: of its nodes.
        graph: its nodes.
        failed: the nodes that are to run again.
        parts: those of them that have become flows: they go on, and need what they have got no more.
        is_cancelled: the flow was: what waits may have to wait for less.
    """
    found = dict.fromkeys(failed)
    if is_cancelled:
        found |= dict.fromkeys(node for node, state in enumerate(states) if state == NodeState.WAITING)
    reached = [*found]
    while reached:
        for node in _after(graph, reached.pop()):
            if node not in found and _is_to_wait(states[node], graph[node]):
                found[node] = None
                reached.append(node)
    to, err = _edges_to(graph, found)
    again_now = {node for node in failed if node in parts or not found.keys() & {*to[node], *err[node]}}
    waiting = [
        Waiting(node, sorted([*to[node], *err[node]]), bool(to[node]) and _is_strict(graph[node]))
        for node in sorted(found.keys() - again_now)
    ]
    return Revival(sorted(again_now), waiting)


def _after(graph: Graph, node: int) -> Iterator[int]:
    yield from each(graph[node].to)
    yield from each(graph[node].err)


def _is_to_wait(state: str, node: Spec | Join) -> bool:
    """Whether a node that comes after what runs again waits for that: not if it is a task that has begun."""
    return state != NodeState.NONE and (isinstance(node, Join) or state not in _GOES_ON)


def _is_strict(node: Spec | Join) -> bool:
    return isinstance(node, Spec) or node.policy == "fail"


def _edges_to(graph: Graph, nodes: Mapping[int, object]) -> tuple[Mapping[int, list[int]], Mapping[int, list[int]]]:
    """Find what comes before nodes: what they are told of by success, and by failure."""
    to: defaultdict[int, list[int]] = defaultdict(list)
    err: defaultdict[int, list[int]] = defaultdict(list)
    for number, node in graph.items():
        for refs, edges in ((node.to, to), (node.err, err)):
            for one in each(refs):
                if one in nodes:
                    edges[one].append(number)
    return to, err
