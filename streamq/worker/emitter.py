"""Writes what runs emit: all that became ready while the last round trip was under way goes in the next."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from streamq._redis.failures import Backoff
from streamq._redis.scripts import Call
from streamq.broker import chunks
from streamq.broker.fleet import Fleet
from streamq.config import Settings
from streamq.errors import BrokerError, BrokerOutOfMemory, BrokerRefused, BrokerUnavailable
from streamq.worker.holdings import Run
from streamq.worker.outage import Outage
from streamq.worker.outbox import Bounds, Outbox

_log = logging.getLogger("streamq.worker")

_ROUND_RUNS = 100
_ROUND_BYTES = 2 * 1024 * 1024
_ENDED = BrokerUnavailable("the worker has ended before all that the task has emitted was written")
_PASSING = (BrokerUnavailable, BrokerRefused, BrokerOutOfMemory)


class _Sent(NamedTuple):
    """What goes of one run in a round trip: so many chunks, or how far it is."""

    run: Run
    outbox: Outbox
    size: int
    call: Call[Any]


class Emitter:
    """Takes what runs emit, and sees to it that it is written, refused, or in vain.

    What is emitted is kept for as long as Redis is away, or full. To be made on the event loop.

    Args:
        fleet: the broker.
        outage: is told when Redis is away.
        lost: is told, by stream and entry, of a run whose chunks were refused.
        settings: those of the app.
    """

    def __init__(
        self, fleet: Fleet, outage: Outage, lost: Callable[[str, bytes], object], *, settings: Settings
    ) -> None:
        self._fleet = fleet
        self._outage = outage
        self._lost = lost
        self._bounds = Bounds(settings.max_result, settings.max_stream)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._opening = threading.Lock()
        self._ready: dict[Run, Outbox] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_full = False
        self._is_closed = False

    def open(self, run: Run) -> None:
        """Give a run its outbox; any thread may ask."""
        with self._opening:
            if run.outbox is None:
                run.outbox = Outbox(self._bounds, partial(self._note, run))

    def _note(self, run: Run) -> None:
        if threading.get_ident() == self._thread:
            self._add(run)
        else:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(self._add, run)

    def _add(self, run: Run) -> None:
        assert run.outbox is not None  # noqa: S101 - it has called
        if self._is_closed:
            run.outbox.drop(_ENDED)
            return
        self._ready[run] = run.outbox
        self._wake.set()
        self._idle.clear()

    async def run(self) -> None:
        """Write until cancelled."""
        backoff = Backoff()
        while True:
            if not self._ready:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
                continue
            trouble = await self._write()
            if trouble is None:
                backoff.reset()
            else:
                self._say(trouble)
                await asyncio.sleep(backoff.next())

    def _round(self) -> list[_Sent]:
        """Take what goes in the next round trip."""
        batch: list[_Sent] = []
        room = _ROUND_BYTES
        for run, outbox in [*self._ready.items()][:_ROUND_RUNS]:
            delivery, queue = run.delivery, self._fleet.keys.queue(run.delivery.message.queue)
            first, found, said = outbox.take()
            if not found and said is None:
                del self._ready[run]
                outbox.written(0)
            if said is not None:
                call = chunks.progress(queue, delivery.message.id, said, delivery.fence)
                batch.append(_Sent(run, outbox, 0, call))
            done, ttl_ms = self._fleet.keys.done, self._fleet.ttl_ms
            if found:
                emit = chunks.emit(queue, delivery, first, found, done=done, ttl_ms=ttl_ms)
                batch.append(_Sent(run, outbox, len(found), emit))
            room -= sum(map(len, found))
            if room <= 0:
                break
        return batch

    async def _write(self) -> BrokerError | None:
        """Write some of what there is; returns what is in the way of it for now."""
        batch = self._round()
        try:
            replies: list[Any] = await self._fleet.run_each([one.call for one in batch]) if batch else []
        except BrokerError as error:
            replies = [error] * len(batch)
        trouble: BrokerError | None = None
        self._is_full = self._is_full and any(isinstance(reply, BrokerOutOfMemory) for reply in replies)
        for (run, outbox, size, _), reply in zip(batch, replies, strict=True):
            written = 0
            if size and isinstance(reply, _PASSING):
                trouble = reply
            elif size and isinstance(reply, BrokerError):
                _log.error("cannot write what task %s emits: %s", run.delivery.message.id, reply)
                outbox.drop(reply)
            elif size and not reply:
                outbox.drop()
                self._lost(run.delivery.stream, run.delivery.entry)
            else:
                written = size
            self._ready.pop(run, None)
            if outbox.written(written):
                self._ready[run] = outbox  # behind all others
        return trouble

    def _say(self, trouble: BrokerError) -> None:
        if not isinstance(trouble, BrokerOutOfMemory):
            self._outage.noticed(trouble)
        elif not self._is_full:
            self._is_full = True
            _log.warning("Redis is full, what tasks emit waits until there is room: %s", trouble)

    async def settled(self) -> None:
        """Wait until nothing is left to write."""
        await self._idle.wait()

    def close(self) -> None:
        """Forget what is left, and what is still to come, so that nobody waits for it."""
        self._is_closed = True
        for outbox in list(self._ready.values()):
            outbox.drop(_ENDED)  # an outcome that waits for it must not be committed
