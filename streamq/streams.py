"""`ResultStream`: what a task emits while it runs, as its readers see it.

A chunk belongs to the run that emitted it. If a task is handed to a worker anew (for a retry, or because its worker
died), what its runs before have emitted is void, and the new run begins with index 0. A chunk is named by the delivery
and its index, so that a reader can go on after it, from any process, and notices if one is missing.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from streamq.broker.caller import Broker
from streamq.broker.chunks import BEGIN, Page, Place
from streamq.broker.records import UNKNOWN, Record
from streamq.codec import ResultCodec, decode_plain
from streamq.errors import ChunksLost, ConfigError, ResultTimeout
from streamq.lifecycle import State

T = TypeVar("T")
R = TypeVar("R")

# A lost notification costs at most this many seconds.
_LOOK_AGAIN_SECONDS = 1.0


class Yields(Generic[T, R]):
    """For type checkers: ``AsyncResult[Yields[T, R]]`` is the result of a task that yields `T` and returns `R`."""


@dataclass(frozen=True, slots=True)
class Chunk(Generic[T]):
    """One value that a task has emitted or yielded.

    Attributes:
        id: names it; what ``stream(after=...)`` takes.
        value: the value.
        attempt: which run that counts emitted it, from 1.
        delivery: which hand-over to a worker it belongs to, from 1. When this grows, all chunks before are void.
        index: its place in that delivery, from 0.
    """

    id: str
    value: T
    attempt: int
    delivery: int
    index: int


def _read_id(chunk_id: str | None) -> Place:
    if chunk_id is None:
        return BEGIN
    found = re.fullmatch(r"(\d{1,15})-(\d{1,15})", chunk_id, re.ASCII) if isinstance(chunk_id, str) else None
    if found is None:
        raise ConfigError(f"after must be the id of a chunk, not {chunk_id!r}")
    return Place(int(found[1]), int(found[2]))


class ResultStream(Generic[T]):
    """The chunks of one task, in order, for one reader: to be gone through by ``for`` or ``async for``.

    It ends when the task has succeeded and all chunks were given. It waits where it stands: a loop that was left, by
    a ``break`` or by an error, can be followed by another that goes on from there.

    Each step of a loop may raise:
        TaskFailed: the task has ended otherwise, after all its chunks were given; as `AsyncResult.get` raises it.
        TaskCancelled, TaskExpired: the same.
        UnknownTaskId: there is no record of the task.
        ChunksLost: some chunks are missing here. A next loop goes on with those after them.
        ResultTimeout: nothing new came for `timeout` seconds.
        ResultDecodeError: a chunk does not fit the annotation of what the function yields.
        BrokerError: Redis cannot be asked.

    Args:
        broker: where the task is.
        task_id: its id.
        queue: where it was enqueued; None if that has to be found out.
        codec: for the chunks; None: they are plain JSON.
        failure: makes the error of a task that has not succeeded; None of one that has.
        after: the id of the last chunk that the reader has.
        timeout: seconds to wait for something new; None waits for as long as it takes.

    Attributes:
        delivery: the task's last hand-over to a worker, or the next if it waits for one; 0 before the first look. At
            the end it is the one that led to the outcome.
    """

    def __init__(
        self,
        broker: Broker,
        task_id: str,
        queue: str | None,
        codec: ResultCodec | None,
        failure: Callable[[Record], BaseException | None],
        *,
        after: str | None,
        timeout: float | None,
    ) -> None:
        self.delivery = 0
        self._broker = broker
        self._id = task_id
        self._queue = queue
        self._decode: Callable[[bytes], Any] = codec.decode if codec else decode_plain
        self._failure = failure
        self._timeout = timeout
        self._read = self._given = _read_id(after)
        self._ready: deque[tuple[Place, int, bytes]] = deque()
        self._is_over = False
        self._error: BaseException | None = None

    @property
    def is_void(self) -> bool:
        """What was given so far does not count, and nothing that does has come yet.

        Between chunks, that is only news. At the end of the loop it means that the run which led to the outcome has
        emitted nothing at all.
        """
        return 0 < self._given.delivery < self.delivery

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk[T]:
        if not self._ready and not self._is_over:
            self._wait()
        chunk = self._next()
        if chunk is None:
            raise StopIteration
        return chunk

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk[T]:
        if not self._ready and not self._is_over:
            await self._await()
        chunk = self._next()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def _wait(self) -> None:
        """Read until there is something to give, or it is over."""
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        self._queue = self._queue or self._broker.find_queue(self._id)
        if self._queue is None:
            self._learn(Page(UNKNOWN))
            return
        rung = threading.Event()
        with self._broker.doorbell.on_ring(self._id, rung.set):
            while not self._learn(self._broker.read_chunks(self._queue, self._id, self._read)):
                rung.wait(self._patience(deadline))
                rung.clear()

    async def _await(self) -> None:
        """Read until there is something to give, or it is over."""
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        self._queue = self._queue or await self._broker.afind_queue(self._id)
        if self._queue is None:
            self._learn(Page(UNKNOWN))
            return
        rung = asyncio.Event()
        loop = asyncio.get_running_loop()
        with self._broker.doorbell.on_ring(self._id, lambda: loop.call_soon_threadsafe(rung.set)):
            while not self._learn(await self._broker.aread_chunks(self._queue, self._id, self._read)):
                try:
                    async with asyncio.timeout(self._patience(deadline)):
                        await rung.wait()
                except TimeoutError:
                    continue
                rung.clear()

    def _patience(self, deadline: float | None) -> float:
        if deadline is None:
            return _LOOK_AGAIN_SECONDS
        left = deadline - time.monotonic()
        if left <= 0:
            raise ResultTimeout(f"nothing new came from task {self._id} for {self._timeout:g} s")
        return min(left, _LOOK_AGAIN_SECONDS)

    def _learn(self, page: Page) -> bool:
        """Take in what was read; tells whether there is something to give, or it is over."""
        record, last, chunks = page
        if record.state is not State.UNKNOWN and self._take(record.attempt, last, chunks):
            return True
        if record.state.ended or record.state is State.UNKNOWN:
            self._is_over = True
            self._error = self._failure(record)
        return self._is_over

    def _take(self, attempt: int, last: Place, chunks: Sequence[tuple[Place, bytes]]) -> bool:
        """Take in the chunks of a page, those before the first gap; tells whether there are some."""
        self.delivery = last.delivery
        if last.delivery != self._read.delivery:
            self._read = Place(last.delivery, -1)
        expected = self._read.number + 1
        whole = [(place, attempt, value) for n, (place, value) in enumerate(chunks, expected) if place.number == n]
        following = chunks[0][0].number if chunks else last.number + 1
        if whole:
            self._ready.extend(whole)
            self._read = whole[-1][0]
        elif following > expected:
            self._read = Place(last.delivery, following - 1)
            raise ChunksLost(f"of task {self._id} the chunks {expected} to {following - 1} are not there any more")
        return bool(whole)

    def _next(self) -> Chunk[T] | None:
        if self._ready:
            place, attempt, value = self._ready.popleft()
            self._given = place
            return Chunk(f"{place.delivery}-{place.number}", self._decode(value), attempt, *place)
        if self._error is not None:
            raise self._error
        return None
