"""`AsyncResult`: what a caller knows of a task. Woken by Pub/Sub, it believes only the stored record."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar, overload

from streamq.broker.caller import Broker
from streamq.broker.records import UNKNOWN, Record
from streamq.channels.listener import Listener
from streamq.codec import ResultCodec, decode_plain, type_name
from streamq.errors import ResultTimeout, TaskCancelled, TaskExpired, TaskFailed, UnknownTaskId
from streamq.events.event import Event
from streamq.events.of_task import TaskListener
from streamq.lifecycle import State
from streamq.progress import check_progress
from streamq.streams import ResultStream, Yields

R = TypeVar("R")
T = TypeVar("T")
V = TypeVar("V")

_KINDS = {State.CANCELLED: TaskCancelled, State.EXPIRED: TaskExpired}

Kinds = tuple[type[BaseException], ...]

# A lost notification costs at most this many seconds.
_LOOK_AGAIN_SECONDS = 1.0


def error_of(state: State, task_id: str, stored: Mapping[str, Any], raises: Callable[[str], Kinds]) -> BaseException:
    """Make the error of a task that has not succeeded; of a flow, that of the task of it where that began.

    Args:
        state: how it has ended.
        task_id: its id.
        stored: the error.
        raises: gives the classes that come as themselves, from the name of the task; empty: the name is not known.
    """
    path = tuple(name for _, name in stored.get("path", ()))
    about = (stored.get("failed", task_id), stored["type"], stored["message"], stored["traceback"])
    failed = _KINDS.get(state, TaskFailed)(*about, path)
    for kind in raises(path[0] if path else ""):
        if type_name(kind) == stored["type"]:
            try:
                error = kind(*(stored["args"] or ()))
            except Exception:  # noqa: BLE001 - its constructor takes something else; the plain form says it all
                return failed
            error.__cause__ = failed
            return error
    return failed


@dataclass(slots=True)
class AsyncResult(Generic[R]):
    """The outcome, still to come or not, of one call of a task.

    Attributes:
        id: the task's id.
        queue: where it was enqueued; None if that has to be found out.
        duplicate: the enqueue that this is the result of put no task on its queue: there was one already, which is the
            one that this is the result of. If a reply got lost on the way, and the id was of the caller's own choice,
            that may have been this very enqueue.
    """

    id: str
    queue: str | None
    _broker: Broker = field(repr=False)
    _codec: ResultCodec | None = field(default=None, repr=False)
    _raises: Kinds = field(default=(), repr=False)
    duplicate: bool = field(default=False, compare=False)

    def of_another(self, task_id: str, *, is_chosen: bool) -> Self:
        """Make this the result of the task that its enqueue found in its place.

        Args:
            task_id: that task's id.
            is_chosen: the caller chose its own id; one that was not chosen is known only if a reply got lost.
        """
        self.duplicate = is_chosen or task_id != self.id
        self.id = task_id
        return self

    def status(self) -> State:
        """Look up where the task is in its life; `State.UNKNOWN` if there is no record of this id.

        Raises:
            BrokerError: Redis cannot be asked.
        """
        return self.record().state

    async def astatus(self) -> State:
        """Look up where the task is in its life, as `status` does."""
        return (await self.arecord()).state

    def record(self) -> Record:
        """Read all that is stored of the task."""
        queue = self.queue or self._broker.find_queue(self.id)
        return self._broker.look(queue, self.id) if queue else UNKNOWN

    async def arecord(self) -> Record:
        """Read all that is stored of the task."""
        queue = self.queue or await self._broker.afind_queue(self.id)
        return await self._broker.alook(queue, self.id) if queue else UNKNOWN

    @overload  # a task that yields is one too: the first that fits is meant
    def get(self: AsyncResult[Yields[Any, V]], timeout: float | None = None) -> V: ...
    @overload
    def get(self, timeout: float | None = None) -> R: ...
    def get(self, timeout: float | None = None) -> Any:
        """Wait for the task to end and return what it returned.

        Args:
            timeout: seconds to wait at most; None waits for as long as it takes.

        Raises:
            TaskFailed: the task ended with an error; classes listed in the task's ``raises`` come as themselves.
            TaskCancelled: it was cancelled.
            TaskExpired: its ``expires`` was over before it began.
            ResultTimeout: it has not ended in time; it goes on.
            UnknownTaskId: there is no record of this id: never enqueued, expired, or forgotten. Or its message was
                deleted from Redis by hand: then the record goes too, and the id can be enqueued again.
            ResultDecodeError: the stored result does not fit the return annotation.
            BrokerError: Redis cannot be asked.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        queue = self.queue or self._broker.find_queue(self.id)
        if queue is None:
            return self._open(UNKNOWN)
        rung = threading.Event()
        with self._broker.doorbell.on_ring(self.id, rung.set):
            while True:
                rung.clear()
                record = self._broker.watch(queue, self.id)
                if record.state.ended or record.state is State.UNKNOWN:
                    return self._open(record)
                rung.wait(self._patience(deadline, timeout))

    @overload  # see above
    async def aget(
        self: AsyncResult[Yields[Any, V]],
        timeout: float | None = None,  # noqa: ASYNC109 - the same signature as get
    ) -> V: ...
    @overload
    async def aget(self, timeout: float | None = None) -> R: ...  # noqa: ASYNC109 - see above
    async def aget(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - see above
        """Wait for the task to end and return what it returned, as `get` does."""
        deadline = None if timeout is None else time.monotonic() + timeout
        queue = self.queue or await self._broker.afind_queue(self.id)
        if queue is None:
            return self._open(UNKNOWN)
        rung = asyncio.Event()
        loop = asyncio.get_running_loop()
        with self._broker.doorbell.on_ring(self.id, lambda: loop.call_soon_threadsafe(rung.set)):
            while True:
                rung.clear()
                record = await self._broker.awatch(queue, self.id)
                if record.state.ended or record.state is State.UNKNOWN:
                    return self._open(record)
                patience = self._patience(deadline, timeout)
                try:
                    async with asyncio.timeout(patience):
                        await rung.wait()
                except TimeoutError:
                    continue

    def _patience(self, deadline: float | None, timeout: float | None) -> float:
        if deadline is None:
            return _LOOK_AGAIN_SECONDS
        left = deadline - time.monotonic()
        if left <= 0:
            raise ResultTimeout(f"task {self.id} has not ended after {timeout:g} s")
        return min(left, _LOOK_AGAIN_SECONDS)

    def _open(self, record: Record) -> Any:
        if (error := self._failure(record)) is not None:
            raise error
        return self._codec.decode(record.body) if self._codec else decode_plain(record.body)

    def _failure(self, record: Record) -> BaseException | None:
        if record.state is State.UNKNOWN:
            return UnknownTaskId(f"there is no task {self.id}: never enqueued, expired, or forgotten")
        return None if record.state is State.SUCCEEDED else self._error(record)

    def _error(self, record: Record) -> BaseException:
        return error_of(record.state, self.id, decode_plain(record.body), lambda _: self._raises)

    @overload  # see above
    def stream(
        self: AsyncResult[Yields[T, Any]], after: str | None = None, timeout: float | None = None
    ) -> ResultStream[T]: ...
    @overload
    def stream(self, after: str | None = None, timeout: float | None = None) -> ResultStream[Any]: ...
    def stream(self, after: str | None = None, timeout: float | None = None) -> ResultStream[Any]:
        """Go through what the task emits, from the first chunk on: ``async for chunk in result.stream()``, or ``for``.

        Any number of readers can do so, each of them has all chunks of the run that counts, in order, and they may
        come late: chunks are kept for ``result_ttl`` after the last one, an hour at least, and the record of the task
        for ``result_ttl`` after its end.

        Args:
            after: the id of the last chunk that the reader has: it goes on after it. If that one is void by now, it
                begins at the first chunk that is not.
            timeout: seconds to wait for something new at most; None waits for as long as it takes.

        Returns:
            The stream; see there for what its steps raise, and how a reader sees that a task has begun anew.

        Raises:
            ConfigError: `after` is no id of a chunk.
        """
        codec = self._codec.chunks if self._codec else None
        return ResultStream(self._broker, self.id, self.queue, codec, self._failure, after=after, timeout=timeout)

    def events(self, timeout: float | None = None) -> Listener[Event]:
        """Hear what happens to the task, until it has ended: ``async for event in result.events()``, or ``for``.

        The last event says how it ended, also if that was not heard; of a task that has ended already it is the only
        one. Others may be missing if the connection is lost.

        Args:
            timeout: seconds to wait for something new at most; None waits for as long as it takes.

        Returns:
            The listener. Its steps raise `UnknownTaskId` if there is no record of this id, `ResultTimeout`, and
            `BrokerError`.
        """
        return TaskListener(self._broker, self.id, self.queue, self._failure, timeout=timeout)

    def progress(self, fraction: float, text: str = "") -> bool:
        """Say how far the task is, from anywhere: the last one who says so counts, and listeners are told.

        Args:
            fraction: 0 to 1.
            text: for people; what is over 1,000 characters is cut off.

        Returns:
            False if the task has ended, or is not known.

        Raises:
            ConfigError: the fraction is no number from 0 to 1.
            BrokerError: Redis cannot be asked.
        """
        said = check_progress(fraction, text)
        queue = self.queue or self._broker.find_queue(self.id)
        return queue is not None and self._broker.progress(queue, self.id, said)

    async def aprogress(self, fraction: float, text: str = "") -> bool:
        """Say how far the task is, as `progress` does."""
        said = check_progress(fraction, text)
        queue = self.queue or await self._broker.afind_queue(self.id)
        return queue is not None and await self._broker.aprogress(queue, self.id, said)

    def cancel(self) -> bool:
        """Have the task end as ``cancelled``, at once and for good, unless it has ended already.

        One that waits will not be run. One that runs cannot commit anything any more, and its worker is told: an async
        task is cancelled, in a thread `asyncio.CancelledError` is raised, as soon as it runs Python code, and a process
        of the pool is killed. Whoever waits for its result gets `TaskCancelled`. Cancelling again does no harm.

        Returns:
            True if it is cancelled, by this call or before it; False if it has ended otherwise, or is not known.

        Raises:
            BrokerError: Redis cannot be asked. After `BrokerUnavailable` the task may be cancelled or not.
        """
        queue = self.queue or self._broker.find_queue(self.id)
        return queue is not None and self._broker.cancel(queue, self.id)

    async def acancel(self) -> bool:
        """Have the task end as ``cancelled``, as `cancel` does."""
        queue = self.queue or await self._broker.afind_queue(self.id)
        return queue is not None and await self._broker.acancel(queue, self.id)

    def forget(self) -> bool:
        """Delete the record and the chunks, now; if the task has not ended, the record then, and the chunks in time.

        Returns:
            False if there is no record of this id.

        Raises:
            BrokerError: Redis cannot be asked.
        """
        queue = self.queue or self._broker.find_queue(self.id)
        return queue is not None and self._broker.forget(queue, self.id)

    async def aforget(self) -> bool:
        """Delete the record and the chunks, as `forget` does."""
        queue = self.queue or await self._broker.afind_queue(self.id)
        return queue is not None and await self._broker.aforget(queue, self.id)
