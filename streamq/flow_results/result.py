"""`FlowResult`: what a caller knows of a flow. Woken by Pub/Sub, it believes only what is stored."""

from __future__ import annotations

import json
from typing import Any, Generic, TypeVar, overload

from streamq.broker.caller import Broker
from streamq.broker.flow_reads import Standing
from streamq.broker.flow_retry import retry_flow
from streamq.broker.flowing import cancel_flow
from streamq.broker.moving import forget_there
from streamq.channels.listener import Listener
from streamq.channels.signal import Signal
from streamq.codec import decode_plain
from streamq.flow_results.endings import Endings
from streamq.flow_results.node import NodeResult
from streamq.flow_results.reader import FlowReader, Types, state_of
from streamq.flow_results.statuses import FlowProgress, NodeStatus, progress_of
from streamq.flow_results.waiting import Patience, Steps, afinish, alisten, finish, listen
from streamq.lifecycle import State
from streamq.nodes import NodeState, node_id
from streamq.results import error_of
from streamq.streams import Yields

R = TypeVar("R")
V = TypeVar("V")

_PAGE = 500


class FlowResult(Generic[R]):
    """The outcome, still to come or not, of calls that were enqueued together.

    Args:
        flow_id: the flow's id.
        queue: the queue where its state is; None if that has to be found out.
        broker: where it is.
        types: what is known of its tasks.
        duplicate: see below.

    Attributes:
        duplicate: its id was the caller's choice and known already: nothing was enqueued, and this is the result of the
            flow that is there. If a reply got lost on the way, that may have been this very enqueue.
    """

    def __init__(
        self, flow_id: str, queue: str | None, broker: Broker, types: Types | None = None, *, duplicate: bool = False
    ) -> None:
        self._reader = FlowReader(flow_id, queue, broker, types or Types())
        self._broker = broker
        self.duplicate = duplicate

    @property
    def id(self) -> str:
        """The flow's id; that of its task number N is ``<id>.N``."""
        return self._reader.id

    @property
    def queue(self) -> str | None:
        """The queue where its state is: that of its first task; None if that has not been found out yet."""
        return self._reader.queue

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, queue={self.queue!r})"

    def to_json(self) -> str:
        """Give the arguments of ``app.flow`` for another process to find it by: an object with ``id`` and ``queue``."""
        return json.dumps({"id": self.id, "queue": self.queue})

    # ---- how it ends

    def status(self) -> State:
        """Look up how the flow stands: running until its value is there; `State.UNKNOWN` if there is no record of it.

        Raises:
            BrokerError: Redis cannot be asked.
        """
        return finish(self._broker, self._reader.look(1, 0)).state

    async def astatus(self) -> State:
        """Look up how the flow stands, as `status` does."""
        return (await afinish(self._broker, self._reader.look(1, 0))).state

    @overload  # a task that yields is one too: the first that fits is meant
    def get(self: FlowResult[Yields[Any, V]], timeout: float | None = None) -> V: ...
    @overload
    def get(self, timeout: float | None = None) -> R: ...
    def get(self, timeout: float | None = None) -> Any:
        """Wait for the value of the flow and return it; of a group it is a list.

        In a group with ``on_error="collect"`` a member that has failed is a `Failure` in the list.

        Args:
            timeout: seconds to wait at most; None waits for as long as it takes.

        Raises:
            TaskFailed: a task has failed, and so the flow: it names that task, and the way from there to the end;
                classes listed in the ``raises`` of that task come as themselves.
            TaskCancelled: the flow was cancelled.
            ResultTimeout: it has not ended in time; it goes on. It says how far it is.
            UnknownTaskId: there is no record of this id: never enqueued, expired, or forgotten.
            ResultDecodeError: a stored result does not fit the return annotation of its function.
            BrokerError: Redis cannot be asked.
        """
        return listen(self._broker, self.id, lambda signal: self._get(signal, timeout))

    @overload  # see above
    async def aget(
        self: FlowResult[Yields[Any, V]],
        timeout: float | None = None,  # noqa: ASYNC109 - the same signature as get
    ) -> V: ...
    @overload
    async def aget(self, timeout: float | None = None) -> R: ...  # noqa: ASYNC109 - see above
    async def aget(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - see above
        """Wait for the value of the flow and return it, as `get` does."""
        return await alisten(self._broker, self.id, lambda signal: self._get(signal, timeout))

    def _get(self, signal: Signal, timeout: float | None) -> Steps[Any]:
        patience = Patience(timeout)
        while True:
            signal.clear()
            standing = yield from self._reader.watch_end()
            if standing.state.ended or standing.state is State.UNKNOWN:
                return (yield from self._open(standing))
            ended = standing.size - standing.left
            yield patience.pause(f"flow {self.id} is at {ended} of {standing.size}, and has not ended")

    def _open(self, standing: Standing) -> Steps[Any]:
        types = self._reader.types
        if standing.state is not State.SUCCEEDED:
            if standing.state.ended:
                raise error_of(standing.state, self.id, decode_plain(standing.body), types.raises)
            self._reader.known(standing)
        if not standing.body:
            return (yield from self._reader.value(standing.out or 0))
        if types.out is not None or standing.out is None:
            return types.decode(types.out or "", standing.body)
        return (yield from self._reader.decode(standing.out, standing.body))

    # ---- what it is made of

    def nodes(self, *, live: bool = False) -> list[NodeStatus]:
        """Look up how each part of the flow stands, some hundred to a round trip.

        Args:
            live: look also, with a round trip for each, at those tasks that are enqueued and have not ended: whether
                they run, are delayed or wait for their turn. Otherwise they are all ``queued``.

        Raises:
            UnknownTaskId: there is no record of the flow.
            BrokerError: Redis cannot be asked.
        """
        return finish(self._broker, self._nodes(live=live))

    async def anodes(self, *, live: bool = False) -> list[NodeStatus]:
        """Look up how each part of the flow stands, as `nodes` does."""
        return await afinish(self._broker, self._nodes(live=live))

    def _nodes(self, *, live: bool) -> Steps[list[NodeStatus]]:
        standing = self._reader.known((yield from self._reader.look(1, 0)))
        found: list[NodeStatus] = []
        for first in range(0, standing.size, _PAGE):
            of_tasks = yield from self._reader.tasks(range(first, min(first + _PAGE, standing.size)))
            for node, (character, task, queue, part) in of_tasks.items():
                state = state_of(character, standing.state)
                if live and task and character is NodeState.RELEASED:
                    record = yield from self._reader.record_of(node, queue)
                    state = state if record.state is State.UNKNOWN else record.state
                task_id = node_id(self.id, node) if task else None
                found.append(NodeStatus(node, task_id, task, state, queue, self.id, part))
        return found

    def progress(self) -> FlowProgress:
        """Look up how far the flow is, in one round trip.

        What is counted are tasks, and each group as one more, for it ends when its members have.

        Raises:
            UnknownTaskId: there is no record of the flow.
            BrokerError: Redis cannot be asked.
        """
        return finish(self._broker, self._progress())

    async def aprogress(self) -> FlowProgress:
        """Look up how far the flow is, as `progress` does."""
        return await afinish(self._broker, self._progress())

    def _progress(self) -> Steps[FlowProgress]:
        standing = self._reader.known((yield from self._reader.look()))
        return progress_of(standing.states.ljust(standing.size), standing.state)

    def as_completed(self, timeout: float | None = None) -> Listener[NodeResult[Any]]:
        """Go through the results of all tasks as they end: ``for result in flow.as_completed()``, or ``async for``.

        Those that have ended already come first. Callbacks that are not needed are left out.

        Args:
            timeout: seconds to wait for something new at most; None waits for as long as it takes.

        Returns:
            What gives each result once; see there for what its steps raise. Those of tasks that have succeeded have
            their values with them, so that `NodeResult.get` need not ask for these.
        """
        return Endings(self._reader, None, timeout=timeout)

    # ---- what is done to it

    def cancel(self) -> bool:
        """Have the flow end as ``cancelled``, and all of its tasks that have not ended, also those that run.

        So do the flows that tasks of it have become. See `AsyncResult.cancel` for what it means for a task. If this
        does not come to its end, the workers carry on.

        Returns:
            True if it is cancelled, by this call or before it; False if it has ended otherwise, or is not known.

        Raises:
            BrokerError: Redis cannot be asked. After `BrokerUnavailable` it may be cancelled or not.
        """
        return finish(self._broker, self._cancel())

    async def acancel(self) -> bool:
        """Have the flow end as ``cancelled``, as `cancel` does."""
        return await afinish(self._broker, self._cancel())

    def _cancel(self) -> Steps[bool]:
        yield from self._reader.look(1, 0)
        queue = self._reader.queue
        if queue is None:
            return False
        return (yield from cancel_flow(self._broker.keys, queue, self.id, self._broker.ttl_ms))

    def retry(self) -> int:
        """Have those tasks run again that have failed, are dead, have expired or were cancelled.

        What has succeeded stays, and what did not run because of them waits again. Each begins with fresh attempts.
        It may be called while other parts of the flow run, and again after an error or a crash.

        Returns:
            How many tasks run again.

        Raises:
            UnknownTaskId: there is no record of the flow.
            FlowError: it is a part of another flow: retry that.
            BrokerError: Redis does not do what is asked, or so much happens in the flow that it could not be done.
        """
        return finish(self._broker, self._retry())

    async def aretry(self) -> int:
        """Have what has failed run again, as `retry` does."""
        return await afinish(self._broker, self._retry())

    def _retry(self) -> Steps[int]:
        self._reader.known((yield from self._reader.look(1, 0)))
        return (yield from retry_flow(self._broker.keys, self.queue or "", self.id, self._broker.ttl_ms))

    def forget(self) -> bool:
        """Delete all that is kept of the flow; if some of it has not ended, as soon as that has.

        The records of its single tasks go by themselves, like those of others.

        Returns:
            False if there is no record of it.

        Raises:
            BrokerError: Redis cannot be asked.
        """
        return finish(self._broker, self._forget())

    async def aforget(self) -> bool:
        """Delete all that is kept of the flow, as `forget` does."""
        return await afinish(self._broker, self._forget())

    def _forget(self) -> Steps[bool]:
        yield from self._reader.look(1, 0)
        queue = self._reader.queue
        return queue is not None and (yield from forget_there(self._broker.keys, queue, self.id))
