"""What a run says while it goes on, from when it is said until it is written. Any thread may say; one writes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from streamq.codec import encode_result
from streamq.context import DONE
from streamq.errors import BrokerError, ResultTooLarge
from streamq.progress import Progress

# So much may wait to be written before who emits has to wait as well; also the bounds of one script.
_FULL_CHUNKS = 1000
_FULL_BYTES = 256 * 1024
_MORE_BYTES = 16  # that a chunk takes in Redis
_LOOK_SECONDS = 0.05  # a thread that waits in C would not see that it is to end


class Bounds(NamedTuple):
    """Bytes that one chunk, and all of a run, may have."""

    chunk: int
    stream: int


class Letters(NamedTuple):
    """What is to be written next.

    Attributes:
        first: the index of the first chunk.
        chunks: encoded.
        progress: how far the run is, if it has said so anew.
    """

    first: int
    chunks: list[bytes]
    progress: Progress | None


class Outbox:
    """The outbox of one run.

    Args:
        bounds: of what is emitted.
        ready: is called, from any thread, when there is something to write.

    Attributes:
        failure: why its chunks cannot be written, for good.
    """

    def __init__(self, bounds: Bounds, ready: Callable[[], object]) -> None:
        self.failure: BrokerError | None = None
        self._bounds = bounds
        self._ready: Callable[[], object] = ready
        self._lock = threading.Lock()
        self._chunks: deque[bytes] = deque()
        self._first = 0
        self._bytes = 0
        self._total = 0
        self._progress: Progress | None = None
        self._is_taken = False
        self._is_closed = False
        self._then: Callable[[], object] | None = None
        self._waiting: list[Callable[[], object]] = []

    def emit(self, value: Any) -> Awaitable[None]:
        """Take a chunk; as `Context.emit`."""
        if self.failure is not None:
            raise self.failure
        data = encode_result(value, "emitted")
        if len(data) > self._bounds.chunk:
            raise ResultTooLarge(
                f"the chunk has {len(data)} bytes, over the limit of {self._bounds.chunk} (max_result)"
            )
        total = self._total + len(data) + _MORE_BYTES
        if total > self._bounds.stream:
            raise ResultTooLarge(f"all chunks have {total} bytes, over the limit of {self._bounds.stream} (max_stream)")
        self._total = total
        return self.add(data)

    def add(self, chunk: bytes) -> Awaitable[None]:
        """Take an encoded chunk; what is given is done when there is room for the next."""
        with self._lock:
            if self._is_closed:
                return DONE
            is_news = not self._chunks
            self._chunks.append(chunk)
            self._bytes += len(chunk)
        if is_news:
            self._ready()
        return self._room() if self._is_full else DONE

    def say(self, progress: Progress) -> None:
        """Take how far the run is, in place of what it has said before."""
        with self._lock:
            if self._is_closed:
                return
            self._progress = progress
        self._ready()

    @property
    def _is_full(self) -> bool:
        return len(self._chunks) >= _FULL_CHUNKS or self._bytes >= _FULL_BYTES

    def _room(self) -> Awaitable[None]:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._wait()
            return DONE
        future: asyncio.Future[None] = loop.create_future()
        self._when_room(partial(_fulfil, loop, future))
        return future

    def _wait(self) -> None:
        rung = threading.Event()
        self._when_room(rung.set)
        while not rung.wait(_LOOK_SECONDS):
            pass

    def _when_room(self, wake: Callable[[], object]) -> None:
        with self._lock:
            must_wait = self._is_full and not self._is_closed
            if must_wait:
                self._waiting.append(wake)
        if not must_wait:
            wake()

    # ---- the side that writes

    def take(self) -> Letters:
        """Give what is to be written next, in bounds. Chunks stay here until `written`; a progress is said once."""
        with self._lock:
            self._is_taken = True
            progress, self._progress = self._progress, None
            chunks, size = [], 0
            for chunk in islice(self._chunks, _FULL_CHUNKS):
                chunks.append(chunk)
                size += len(chunk)
                if size >= _FULL_BYTES:
                    break
            return Letters(self._first, chunks, progress)

    def written(self, count: int) -> bool:
        """Note that so many of the chunks that were taken are written; tells whether there is more."""
        with self._lock:
            self._is_taken = False
            for _ in range(min(count, len(self._chunks))):
                self._bytes -= len(self._chunks.popleft())
            self._first += count
            has_more = bool(self._chunks) or self._progress is not None
            wakes = [] if self._is_full else self._waiting
            if wakes:
                self._waiting = []
            then = None
            if not has_more:
                then, self._then = self._then, None
        for wake in wakes:
            wake()
        if then is not None:
            then()
        return has_more

    def end(self, then: Callable[[], object]) -> bool:
        """Take nothing more, and have `then` called when all is written; False if it is."""
        with self._lock:
            self._is_closed = True
            has_more = bool(self._chunks) or self._progress is not None or self._is_taken
            if has_more:
                self._then = then
        if has_more:
            self._ready()  # an exception that struck in `add` may have kept it from that
        self._ready = _nothing  # the run is part of it, and has this: no cycle is to be left
        return has_more

    def drop(self, failure: BrokerError | None = None) -> None:
        """Take nothing more, and forget what is not written: it is in vain, or cannot be."""
        with self._lock:
            self.failure = self.failure or failure
            self._is_closed = True
            self._ready = _nothing
            self._chunks.clear()
            self._bytes = 0
            self._progress = None
        self.written(0)


def _nothing() -> None:
    """Do it."""


def _fulfil(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    def fulfil() -> None:
        if not future.done():
            future.set_result(None)

    with contextlib.suppress(RuntimeError):  # the loop has been closed
        loop.call_soon_threadsafe(fulfil)
