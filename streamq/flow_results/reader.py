"""`FlowReader`: reads what has come of one flow, in steps. It sends nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from streamq._redis.keys import QueueKeys
from streamq.broker import flow_reads
from streamq.broker.caller import Broker
from streamq.broker.flow_reads import OfTask, Standing, Value
from streamq.broker.gathering import read_blame, read_parts, read_specs, read_tasks
from streamq.broker.moving import look_there
from streamq.broker.reads import find_record
from streamq.broker.records import Record
from streamq.codec import ResultCodec, decode_plain, type_name
from streamq.errors import TaskCancelled, UnknownTaskId
from streamq.flow_results.waiting import Steps
from streamq.lifecycle import State
from streamq.nodes import Join, NodeState, node_id
from streamq.options import TaskOptions
from streamq.refs import Refs
from streamq.results import Kinds, error_of

_STATES = {
    NodeState.NONE: State.WAITING,
    NodeState.WAITING: State.WAITING,
    NodeState.RELEASED: State.QUEUED,
    NodeState.SUCCEEDED: State.SUCCEEDED,
    NodeState.FAILED: State.FAILED,
    NodeState.DEAD: State.DEAD,
    NodeState.CANCELLED: State.CANCELLED,
    NodeState.EXPIRED: State.EXPIRED,
    NodeState.UPSTREAM_FAILED: State.FAILED,
    NodeState.OMITTED: State.SKIPPED,
}

_FAILED = (NodeState.FAILED, NodeState.DEAD, NodeState.EXPIRED)


def state_of(character: str, flow: State) -> State:
    """Say how a node stands, from its character and the state of its flow."""
    state = _STATES[NodeState(character)]
    has_not_run = not state.ended or character == NodeState.UPSTREAM_FAILED
    return State.CANCELLED if flow is State.CANCELLED and has_not_run else state


class Typed(Protocol):
    """A task, as far as its results need to know it."""

    name: str
    options: TaskOptions
    result_codec: ResultCodec


@dataclass(frozen=True, slots=True)
class Types:
    """What is known of the tasks of a flow.

    Attributes:
        tasks: by name.
        out: the name of the one whose result is the value of the flow; None: that is a list, or it is not known.
        are_all: there are no others.
    """

    tasks: Mapping[str, Typed] = field(default_factory=dict)
    out: str | None = None
    are_all: bool = False

    @property
    def only(self) -> str | None:
        """The name of the only task; None: there are several, or there may be."""
        return next(iter(self.tasks)) if self.are_all and len(self.tasks) == 1 else None

    def decode(self, name: str, body: bytes) -> Any:
        """Decode the result of a task of this name.

        Raises:
            ResultDecodeError: it does not fit the return annotation.
        """
        task = self.tasks.get(name)
        return decode_plain(body) if task is None else task.result_codec.decode(body)

    def raises(self, name: str) -> Kinds:
        """Give the classes of errors that come as themselves."""
        task = self.tasks.get(name)
        return () if task is None else task.options.raises


class FlowReader:
    """Reads what has come of one flow.

    Args:
        flow_id: its id.
        queue: its home; None if that has to be found out.
        broker: where it is.
        types: what is known of its tasks.
    """

    def __init__(self, flow_id: str, queue: str | None, broker: Broker, types: Types) -> None:
        self.id = flow_id
        self.queue = queue
        self.broker = broker
        self.types = types
        self.size = 0  # how many nodes it has, as far as that was read

    @property
    def _keys(self) -> QueueKeys:
        assert self.queue is not None  # noqa: S101 - it stands somewhere
        return self.broker.keys.queue(self.queue)

    def look(self, first: int = 0, last: int = -1, *, client: str = "") -> Steps[Standing]:
        """Read how it and its nodes stand; a client, if there is one, is told when any node ends."""
        return (yield from self._stand(lambda keys: flow_reads.watch_nodes(keys, self.id, client, first, last)))

    def watch_end(self) -> Steps[Standing]:
        """Read how it stands and what came of it; this process is told when it ends."""
        client = self.broker.client_id
        return (yield from self._stand(lambda keys: flow_reads.watch_end(keys, self.id, client)))

    def _stand(self, call: Any) -> Steps[Standing]:
        if self.queue is None:
            self.queue, _ = yield from find_record(self.broker.keys, self.id)
        while self.queue is not None:
            standing: Standing = yield call(self._keys)
            if standing.moved_to is None:
                self.size = standing.size
                return standing
            self.queue = standing.moved_to
        return Standing(State.UNKNOWN)

    def known(self, standing: Standing) -> Standing:
        """Return how a flow stands.

        Raises:
            UnknownTaskId: it is none.
        """
        if standing.state is State.UNKNOWN:
            raise UnknownTaskId(f"there is no flow {self.id}: never enqueued, expired, or forgotten")
        if standing.out is None:
            raise UnknownTaskId(f"task {self.id} is no flow; app.result(id) gives its result")
        return standing

    def members(self) -> Steps[Refs]:
        """Read of which nodes the value is made; of one that is no list, the node itself."""
        out = self.known((yield from self.look(1, 0))).out or 0
        spec = (yield from read_specs(self._keys, self.id, [out])).get(out)
        return spec.inputs if isinstance(spec, Join) else (out,)

    def tasks(self, nodes: Iterable[int]) -> Steps[dict[int, OfTask]]:
        """Read which tasks nodes are of."""
        return (yield from read_tasks(self._keys, self.id, [*nodes]))

    def values(self, nodes: Iterable[int]) -> Steps[dict[int, Value]]:
        """Read how the first of some nodes have ended, at least one, and their results."""
        asked = [*nodes]
        return dict(zip(asked, (yield flow_reads.values(self._keys, self.id, asked)), strict=False))

    def record_of(self, node: int, queue: str | None = None) -> Steps[Record]:
        """Read the record of the task of a node, on the queue where it was enqueued."""
        if queue is None:
            return (yield from find_record(self.broker.keys, node_id(self.id, node)))[1]
        return (yield from look_there(self.broker.keys, queue, node_id(self.id, node)))

    def value(self, node: int) -> Steps[Any]:
        """Read the value of a node that has succeeded: a list, if it is a join.

        Raises:
            UnknownTaskId: the flow was deleted meanwhile.
            ResultDecodeError: a result does not fit the return annotation.
        """
        parts = yield from read_parts(self._keys, self.id, [node])
        bare = [one for one, value in parts.values.items() if value.body is not None and one not in parts.failures]
        names = yield from self._names(bare)
        return parts.value(
            node,
            lambda one, body: self.types.decode(names[one], body),
            lambda one: one,
            lambda more: decode_plain(b"[%b]" % more),
            list,
        )

    def _names(self, nodes: Iterable[int]) -> Steps[dict[int, str]]:
        """Find the names of the tasks of nodes, as far as they are needed."""
        only = self.types.only
        if only is not None or not self.types.tasks:
            return dict.fromkeys(nodes, only or "")
        return {node: of_task.task for node, of_task in (yield from self.tasks(nodes)).items()}

    def decode(self, node: int, body: bytes) -> Steps[Any]:
        """Decode the result of the task of a node."""
        return self.types.decode((yield from self._names([node]))[node], body)

    def error(self, node: int, state: State) -> Steps[BaseException]:
        """Make the error of a node that has not succeeded."""
        task_id = node_id(self.id, node)
        if state is State.SKIPPED:
            return UnknownTaskId(f"task {task_id} has not run: it is a callback that was not needed")
        blame = yield from read_blame(self._keys, self.id, node)
        if state is State.CANCELLED and blame.state in _FAILED:  # because of what had failed before
            state = State.FAILED
        stored: dict[str, Any] = {"type": "", "message": "", "traceback": "", "args": None}
        if blame.body:
            stored = decode_plain(blame.body)
        elif state is State.CANCELLED:
            stored |= {"type": type_name(TaskCancelled), "message": "its flow was cancelled"}
        stored |= {"failed": blame.task_id, "path": [*enumerate(blame.path)]}
        return error_of(state, task_id, stored, self.types.raises)
