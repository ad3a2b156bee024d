"""Runs handlers, a bounded number at a time, on the event loop or in threads."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from streamq.errors import BrokerUnavailable

T = TypeVar("T")

_log = logging.getLogger("streamq.agents")


class Runner:
    """Runs what one agent has to do.

    Args:
        concurrency: so many handlers at a time.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._free = asyncio.Semaphore(concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads: ThreadPoolExecutor | None = None

    @property
    def is_full(self) -> bool:
        """As many run as may."""
        return self._free.locked()

    async def until_free(self) -> None:
        """Wait until one more may run."""
        async with self._free:
            pass

    async def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it as soon as it may."""
        try:
            await self._free.acquire()
        except BaseException:
            work.close()
            raise
        task = asyncio.get_running_loop().create_task(work, name="streamq-agent-handler")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._free.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("what an agent has to do could not be done", exc_info=error)

    async def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Call a handler: one that is no coroutine function runs in a thread."""
        if inspect.iscoroutinefunction(function):
            return await function(argument)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._concurrency, thread_name_prefix="streamq-agent")
        run = contextvars.copy_context().run
        value = await asyncio.get_running_loop().run_in_executor(self._threads, run, function, argument)
        return await value if inspect.isawaitable(value) else value

    async def end(self, grace: float) -> None:
        """Wait until everything has ended, and after so many seconds cancel what has not. Threads cannot be ended."""
        try:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=grace)
        finally:
            left = list(self._tasks)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            if self._threads is not None:
                self._threads.shutdown(wait=False, cancel_futures=True)


async def persist(send: Callable[[], Awaitable[T]]) -> T:
    """Do what may be done twice until the server is there.

    Raises:
        BrokerError: it is, and refuses.
    """
    while True:
        try:
            return await send()
        except BrokerUnavailable:
            await asyncio.sleep(random.uniform(0, 1.0))  # noqa: S311 - spreads load
