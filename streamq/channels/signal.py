"""Wakes one who waits, on an event loop or in a thread, from any thread."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable


class _Bell:
    """Wakes what waits on one event loop: all whose turn it is with one call of the loop, which is a system call."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_rung = False

    def ring(self, future: asyncio.Future[None]) -> None:
        self._waiting.append(future)
        if not self._is_rung:
            self._is_rung = True
            try:
                future.get_loop().call_soon_threadsafe(self._wake)  # holds no loop, which could never go then
            except RuntimeError:  # the loop has been closed
                self._waiting.clear()

    def _wake(self) -> None:
        self._is_rung = False  # first: what comes from now on rings again
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)


_bells: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Bell] = weakref.WeakKeyDictionary()


class Signal:
    """Is set by those who have something, and waited for by one who wants it."""

    def __init__(self) -> None:
        self._is_set = False
        self._wake: Callable[[], object] | None = None

    @property
    def is_set(self) -> bool:
        """It has been set since it was cleared."""
        return self._is_set

    def set(self) -> None:
        """Wake the one who waits, or who will wait next."""
        self._is_set = True
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def clear(self) -> None:
        """Have the next wait last until it is set again."""
        self._is_set = False

    def wait(self, seconds: float | None) -> None:
        """Wait in a thread until it is set, or for so long."""
        event = threading.Event()
        self._wake = event.set
        if not self._is_set:
            event.wait(seconds)
        self._wake = None

    async def await_(self, seconds: float | None) -> None:
        """Wait on the running event loop until it is set, or for so long."""
        loop = asyncio.get_running_loop()
        bell = _bells.get(loop)
        if bell is None:
            bell = _bells[loop] = _Bell()
        future = loop.create_future()
        self._wake = lambda: bell.ring(future)
        if self._is_set:
            return
        if seconds is None:
            await future
            return
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            pass
