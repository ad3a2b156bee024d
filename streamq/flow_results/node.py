"""`NodeResult`: the result of one part of a flow."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, overload

from streamq.broker.flow_reads import Value
from streamq.channels.signal import Signal
from streamq.codec import decode_plain
from streamq.errors import UnknownTaskId
from streamq.flow_results.reader import FlowReader, state_of
from streamq.flow_results.waiting import Patience, Steps, afinish, alisten, finish, listen, rest
from streamq.lifecycle import State
from streamq.nodes import NodeState
from streamq.results import error_of
from streamq.streams import Yields

R = TypeVar("R")
V = TypeVar("V")


@dataclass(slots=True)
class NodeResult(Generic[R]):
    """The outcome, still to come or not, of one part of a flow: a task, or a group in it.

    Attributes:
        id: the id of its task; what ``app.result`` takes as soon as that is enqueued.
        node: its number in the flow.
        index: its place among the results that it is one of.
    """

    id: str
    node: int
    index: int
    _reader: FlowReader = field(repr=False, compare=False)
    _value: Value | None = field(default=None, repr=False, compare=False)

    def status(self) -> State:
        """Look up how it stands; `State.UNKNOWN` if there is no record of it.

        Raises:
            BrokerError: Redis cannot be asked.
        """
        return finish(self._reader.broker, self._status())

    async def astatus(self) -> State:
        """Look up how it stands, as `status` does."""
        return await afinish(self._reader.broker, self._status())

    def _status(self) -> Steps[State]:
        state = yield from self._look()
        if state is State.QUEUED:
            of_task = (yield from self._reader.tasks([self.node]))[self.node]
            record = yield from self._reader.record_of(self.node, of_task.queue)
            return state if not of_task.task or record.state is State.UNKNOWN else record.state
        if state is State.UNKNOWN:
            return (yield from self._reader.record_of(self.node)).state
        return state

    def _look(self, client: str = "") -> Steps[State]:
        standing = yield from self._reader.look(self.node, self.node, client=client)
        return state_of(standing.states or " ", standing.state) if standing.out is not None else State.UNKNOWN

    @overload  # a task that yields is one too: the first that fits is meant
    def get(self: NodeResult[Yields[Any, V]], timeout: float | None = None) -> V: ...
    @overload
    def get(self, timeout: float | None = None) -> R: ...
    def get(self, timeout: float | None = None) -> Any:
        """Wait for it to end and return its value.

        Args:
            timeout: seconds to wait at most; None waits for as long as it takes.

        Raises:
            TaskFailed: it has failed, or could not run because another task has, which is then the one that is named;
                classes listed in the ``raises`` of that task come as themselves.
            TaskCancelled: it was cancelled, or its flow was.
            TaskExpired: its ``expires`` was over before it began.
            ResultTimeout: it has not ended in time; it goes on.
            UnknownTaskId: there is no record of it, or it is a callback that was not needed.
            ResultDecodeError: the stored result does not fit the return annotation.
            BrokerError: Redis cannot be asked.
        """
        if self._value is not None:
            return finish(self._reader.broker, self._open())
        return listen(self._reader.broker, self._reader.id, lambda signal: self._get(signal, timeout))

    @overload  # see above
    async def aget(
        self: NodeResult[Yields[Any, V]],
        timeout: float | None = None,  # noqa: ASYNC109 - the same signature as get
    ) -> V: ...
    @overload
    async def aget(self, timeout: float | None = None) -> R: ...  # noqa: ASYNC109 - see above
    async def aget(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - see above
        """Wait for it to end and return its value, as `get` does."""
        if self._value is not None:
            return await afinish(self._reader.broker, self._open())
        return await alisten(self._reader.broker, self._reader.id, lambda signal: self._get(signal, timeout))

    def _get(self, signal: Signal, timeout: float | None) -> Steps[Any]:
        patience = Patience(timeout)
        if self._reader.queue is not None:  # often it has ended, and this is all
            found = (yield from self._reader.values([self.node]))[self.node]
            if found.state is NodeState.SUCCEEDED and found.body is not None:
                return (yield from self._reader.decode(self.node, found.body))
        client = self._reader.broker.client_id
        looked_at = 0.0
        while True:
            yield from rest(signal, looked_at, self._reader.size)
            signal.clear()
            looked_at = time.monotonic()
            state = yield from self._look(client)
            if state is State.UNKNOWN:
                return (yield from self._get_alone())
            if state is State.SUCCEEDED:
                return (yield from self._reader.value(self.node))
            if state.ended:
                raise (yield from self._reader.error(self.node, state))
            yield patience.pause(f"task {self.id} has not ended")

    def _open(self) -> Steps[Any]:
        """Give the value that was read already."""
        assert self._value is not None  # noqa: S101 - see get
        body = self._value.body
        if body is None:
            return (yield from self._reader.value(self.node))
        return (yield from self._reader.decode(self.node, body))

    def _get_alone(self) -> Steps[Any]:
        """Give the value from its own record: nothing is there any more of the flow."""
        record = yield from self._reader.record_of(self.node)
        types = self._reader.types
        if record.state is State.SUCCEEDED:
            return types.decode(record.task, record.body)
        if record.state.ended:
            raise error_of(record.state, self.id, decode_plain(record.body), lambda _: types.raises(record.task))
        raise UnknownTaskId(f"there is no task {self.id}: its flow has expired, or was forgotten")
