"""Listeners: what one reads from, by ``async for`` or by ``for``. Both do the same steps; only the waiting differs."""

from __future__ import annotations

import asyncio
import logging
import random
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

from streamq._redis.hub import Kind
from streamq._redis.scripts import Call
from streamq._redis.steps import adrive, drive
from streamq.broker.reach import Reach
from streamq.channels.buffer import Buffer, Counts, Missing, WhenFull
from streamq.channels.signal import Signal
from streamq.errors import BrokerError, BrokerUnavailable

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an item

_log = logging.getLogger("streamq.channels")

_AT_A_TIME = 100
_PAUSE_SECONDS = 1.0  # at most, before a server that is away is asked again


class Pause(NamedTuple):
    """A step: wait until something comes, or for so long."""

    seconds: float | None = None


Steps = Generator[Call[Any] | Pause, Any, list[I] | None]
"""Gives calls to be answered, and pauses; returns items, which may be none yet. None: there will be no more."""


class Listener(ABC, Generic[I]):
    """Gives what it hears, one by one; ``with`` or ``async with`` it, or let it go, to hear no more.

    It begins when the first item is asked for, or at the ``with``: what is published from then on is heard. One
    listener is for one loop or thread at a time.

    Attributes:
        counts: what came, what was dropped, and so on.
    """

    def __init__(self, reach: Reach) -> None:
        self.counts = Counts()
        self._reach = reach
        self._signal = Signal()
        self._ready: deque[I] = deque()
        self._stop: Any = None  # of weakref.finalize
        self._is_opening = False

    @abstractmethod
    def _start(self) -> Callable[[], object]:
        """Begin to listen; returns what ends it, which must not need this object."""

    @abstractmethod
    def _begin(self) -> Steps[I]:
        """Wait until everything is heard from now on."""

    @abstractmethod
    def _more(self) -> Steps[I]:
        """Wait for items."""

    def _opening(self) -> Steps[I]:
        if self._stop is None:
            self._stop = weakref.finalize(self, self._start())
            self._stop.atexit = False
            self._is_opening = True
            yield from self._begin()
            self._is_opening = False
        return []

    def _next(self) -> Steps[I]:
        yield from self._opening()
        return None if self._is_closed else (yield from self._more())

    @property
    def _is_closed(self) -> bool:
        return self._stop is not None and not self._stop.alive

    def __enter__(self) -> Self:
        self._follow(self._opening())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self._afollow(self._opening())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    def __next__(self) -> I:
        while not self._ready:
            if (found := self._follow(self._next())) is None:
                raise StopIteration
            self._ready.extend(found)
        return self._ready.popleft()

    async def __anext__(self) -> I:
        while not self._ready:
            if (found := await self._afollow(self._next())) is None:
                raise StopAsyncIteration
            self._ready.extend(found)
        return self._ready.popleft()

    def close(self) -> None:
        """Hear no more; whoever waits for something comes to the end."""
        if self._stop is not None:
            self._stop()
        self._signal.set()

    async def aclose(self) -> None:
        """Hear no more."""
        self.close()

    def _follow(self, steps: Steps[I]) -> list[I] | None:
        try:
            return drive(steps, self._do)
        except BaseException:
            if self._is_opening:
                self.close()
            raise

    async def _afollow(self, steps: Steps[I]) -> list[I] | None:
        try:
            return await adrive(steps, self._ado)
        except BaseException:
            if self._is_opening:
                await self.aclose()
            raise

    def _do(self, step: Call[Any] | Pause) -> Any:
        return self._signal.wait(step.seconds) if isinstance(step, Pause) else self._reach.sync.run(step)

    async def _ado(self, step: Call[Any] | Pause) -> Any:
        if isinstance(step, Pause):
            return await self._signal.await_(step.seconds)
        return await self._reach.on_loop.run(step)


def insist(call: Call[T]) -> Generator[Call[Any] | Pause, Any, T]:
    """Send a call until the server is there.

    Raises:
        BrokerError: it is, and refuses.
    """
    while True:
        try:
            answer: T = yield call
        except BrokerUnavailable:
            yield Pause(random.uniform(0, _PAUSE_SECONDS))  # noqa: S311 - spreads load
        else:
            return answer


class Reader(ABC, Generic[I]):
    """Makes items of what was heard.

    Attributes:
        is_behind: what was missed has to be got from where it is kept, before anything else is read.
    """

    is_behind = False

    @abstractmethod
    def read(self, channel: bytes, data: bytes, counts: Counts) -> list[I]:
        """Make items of one message: the message, and what is missing before it; none if it is to be skipped."""

    @abstractmethod
    def missing(self, gap: Missing) -> list[I]:
        """Say what is missing."""

    def origin(self, _data: bytes) -> bytes:
        """Name the session that a message is of, for those that are dropped."""
        return b""

    def begin(self) -> Steps[I]:
        """Look where to begin; everything that is published from now on is heard."""
        yield from ()
        return []

    def catch_up(self) -> Steps[I]:
        """Get some of what is missing from where it is kept; having got all of it, be behind no more."""
        yield from ()
        return []


class LiveListener(Listener[I]):
    """Hears what is published, by the one connection of this process.

    Args:
        reach: the server.
        topics: what to subscribe.
        reader: makes items of what comes.
        buffer: so many messages may wait.
        when_full: what becomes of one more.
        needle: what does not hold these bytes is not for this listener.

    Raises:
        ConfigError: the size of the buffer, or the policy, cannot be used.
    """

    def __init__(
        self,
        reach: Reach,
        topics: list[tuple[Kind, str]],
        reader: Reader[I],
        *,
        buffer: int,
        when_full: WhenFull,
        needle: bytes = b"",
    ) -> None:
        super().__init__(reach)
        self._topics = topics
        self._reader = reader
        self._when_full = when_full
        self._buffer = Buffer(buffer, when_full, len(topics), self._signal, reader.origin, needle=needle)
        self.counts = self._buffer.counts
        self._told: BrokerError | None = None  # what was said to be in the way

    def _start(self) -> Callable[[], object]:
        # One that may hold up its connection has one of its own.
        hub = self._reach.new_hub() if self._when_full == "block" else self._reach.hub
        buffer, topics, is_own = self._buffer, self._topics, self._when_full == "block"

        def stop() -> None:
            buffer.close()
            for kind, name in topics:
                hub.unsubscribe(kind, name, buffer)
            if is_own:
                hub.close()

        for kind, name in topics:
            hub.subscribe(kind, name, buffer)
        return stop

    def _begin(self) -> Steps[I]:
        while not self._buffer.has_joined:
            self._signal.clear()
            if (error := self._buffer.failure or self._buffer.trouble) is not None:
                raise error
            if not self._buffer.has_joined:
                yield Pause()
        return (yield from self._reader.begin())

    def _more(self) -> Steps[I]:
        if self._reader.is_behind:
            return (yield from self._reader.catch_up())
        while not len(self._buffer):
            self._signal.clear()
            if self._buffer.failure is not None:
                self.close()
                raise self._buffer.failure
            if self._is_closed:
                return None
            self._tell_of(self._buffer.trouble)
            if not len(self._buffer):
                yield Pause()
        items: list[I] = []
        for item in self._buffer.take_out(_AT_A_TIME):
            items += self._reader.missing(item) if isinstance(item, Missing) else self._reader.read(*item, self.counts)
        return items

    def _tell_of(self, trouble: BrokerError | None) -> None:
        if trouble is not None and trouble is not self._told:
            _log.info("lost the connection: %s; trying again", trouble)
        self._told = trouble

    async def aclose(self) -> None:
        """Hear no more."""
        if self._when_full == "block":  # its own connection has to be closed
            await asyncio.to_thread(self.close)
        else:
            self.close()
