"""Calls the handlers of an app when something happens: what ``streamq listen`` runs."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from streamq.channels.gaps import Gap
from streamq.channels.listener import Listener
from streamq.events.event import Event
from streamq.events.handlers import Handler

_log = logging.getLogger("streamq.listen")


class Service:
    """Calls handlers, several at a time; what they raise is logged.

    Args:
        handlers: what to call.
        concurrency: so many calls may run at a time; then events wait in the buffer of the listener.
        grace: seconds for which calls may go on after `stop`.
    """

    def __init__(self, handlers: Sequence[Handler], *, concurrency: int, grace: float) -> None:
        self._handlers = handlers
        self._room = asyncio.Semaphore(concurrency)
        self._threads = ThreadPoolExecutor(concurrency, "streamq-handler")
        self._grace = grace
        self._calls: set[asyncio.Task[None]] = set()
        self._in_threads: set[threading.Thread] = set()  # that call a handler
        self._listener: Listener[Event | Gap] | None = None
        self._is_stopping = False
        self._at_once = asyncio.Event()

    async def run(self, listener: Listener[Event | Gap]) -> bool:
        """Handle what a listener gives until `stop` is called; what is in its buffer then is not handled.

        Returns:
            False if calls still run in threads, which cannot be stopped, when it is over.

        Raises:
            BrokerError: the server refuses.
        """
        self._listener = listener
        try:
            async for event in listener:
                if isinstance(event, Gap):
                    _log.warning("events are missing: %s", event)
                    continue
                for handler in self._handlers:
                    if event in handler.wanted and not self._is_stopping:
                        await self._begin(handler, event)
                if self._is_stopping:
                    break
        finally:
            await listener.aclose()
            is_over = await self._end()
        return is_over

    def stop(self) -> None:
        """Hear no more, and have `run` return when the calls that run have ended, or their grace is over.

        Called again, it has what still runs cancelled at once.
        """
        if self._is_stopping:
            self._at_once.set()
            return
        self._is_stopping = True
        self._room.release()  # for `run`, if it waits for room
        if self._listener is not None:
            self._listener.close()

    async def _begin(self, handler: Handler, event: Event) -> None:
        await self._room.acquire()
        if self._is_stopping:
            return
        call = asyncio.create_task(self._call(handler, event), name=f"streamq-handler {handler.name}")
        self._calls.add(call)
        call.add_done_callback(self._done)

    def _done(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._room.release()

    async def _call(self, handler: Handler, event: Event) -> None:
        try:
            if handler.is_async:
                await handler.function(event)
            else:
                await asyncio.get_running_loop().run_in_executor(self._threads, self._in_thread, handler, event)
        except asyncio.CancelledError:
            _log.warning("the handler %s of %s %s was cancelled", handler.name, event.type, event.id or event.worker)
        except Exception:  # noqa: BLE001 - one of the user's
            _log.exception("the handler %s of %s %s failed", handler.name, event.type, event.id or event.worker)

    def _in_thread(self, handler: Handler, event: Event) -> None:
        running = threading.current_thread()
        self._in_threads.add(running)
        try:
            handler.function(event)
        finally:
            self._in_threads.discard(running)

    async def _end(self) -> bool:
        if self._calls:
            _log.info("waiting for %d handlers, %g s at most", len(self._calls), self._grace)
            hurry = asyncio.create_task(self._at_once.wait())
            ended = asyncio.create_task(asyncio.wait(set(self._calls)))
            await asyncio.wait({hurry, ended}, timeout=self._grace, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            for call in self._calls:
                call.cancel()
            await asyncio.gather(hurry, ended, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        return not self._in_threads
