"""Commits outcomes: all that became ready while the last round trip was under way go in one script."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable

from streamq.broker.calls import Settlement
from streamq.broker.fleet import Fleet
from streamq.errors import BrokerError, BrokerRefused, BrokerReset, BrokerUnavailable
from streamq.lifecycle import Bury, Complete, Outcome, Park, Release, decide
from streamq.message import Delivery
from streamq.worker.holdings import Holdings, Run
from streamq.worker.outage import Backoff, Outage

_log = logging.getLogger("streamq.worker")

# Bounds of one script: what takes longer holds up other clients of the server.
_BATCH = 200
_UNKNOWN_TASK = "unknown task"
_BATCH_BYTES = 2 * 1024 * 1024


class Committer:
    """Takes outcomes and sees to it that each is committed, refused, or left to the lease.

    An outcome is kept, and its lease renewed, for as long as Redis is away.
    """

    def __init__(self, fleet: Fleet, holdings: Holdings, outage: Outage) -> None:
        self._fleet = fleet
        self._holdings = holdings
        self._outage = outage
        self._ready: list[tuple[Run, Outcome]] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False

    def put(self, run: Run, outcome: Outcome) -> None:
        """Take the outcome of a run."""
        self._ready.append((run, outcome))
        self._wake.set()
        self._idle.clear()

    async def run(self) -> None:
        """Commit until `close` is called and nothing is left."""
        while not (self._closing and not self._ready):
            if not self._ready:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
                continue
            batch, self._ready = self._ready, []
            await self._commit(batch)
        self._idle.set()

    async def _commit(self, batch: list[tuple[Run, Outcome]]) -> None:
        settlements: list[tuple[Run, Settlement]] = []
        size, now_ms = 0, time.time_ns() // 1_000_000
        for run, outcome in batch:
            match decide(outcome, run.delivery, now_ms):
                case Complete(state, body):
                    settlements.append((run, Settlement(run.delivery, state, body)))
                    size += len(body)
                    if len(settlements) >= _BATCH or size > _BATCH_BYTES:
                        await self._finish(settlements)
                        settlements, size = [], 0
                case Bury(error):
                    await self._put_away(
                        run, self._fleet.bury(run.delivery, _UNKNOWN_TASK, error), "to the dead letters"
                    )
                case Park(seconds):
                    await self._put_away(
                        run, self._fleet.park(run.delivery, seconds, _UNKNOWN_TASK), f"back for {seconds:g} s"
                    )
                case Release():
                    await self._release(run)
        if settlements:
            await self._finish(settlements)

    async def _finish(self, settlements: list[tuple[Run, Settlement]]) -> None:
        backoff = Backoff()
        while True:
            try:
                refused = await self._fleet.commit(settlement for _, settlement in settlements)
            except (BrokerUnavailable, BrokerRefused) as error:  # a password or a permission may be put right
                self._outage.noticed(error)
                await asyncio.sleep(backoff.next())
            except BrokerError as error:
                if len(settlements) > 1:  # find the one that cannot be written
                    for one in settlements:
                        await self._finish([one])
                else:
                    self._give_up(settlements[0][0], error)
                return
            else:
                break
        for delivery in refused:
            _fenced(delivery)
        for run, _ in settlements:
            self._holdings.drop(run)

    def _give_up(self, run: Run, error: BrokerError) -> None:
        if isinstance(error, BrokerReset):
            self._outage.noticed(error)
        else:
            _log.error("cannot commit task %s, it will be run again: %s", run.delivery.message.id, error)
        self._holdings.drop(run)

    async def _put_away(self, run: Run, moving: Awaitable[bool], where: str) -> None:
        message = run.delivery.message
        try:
            moved = await moving
        except BrokerError as failure:
            self._outage.noticed(failure)
            _log.warning("task %s is left to the lease", message.id)
        else:
            if moved:
                _log.warning("no task is registered as %r: message %s goes %s", message.task, message.id, where)
            else:
                _fenced(run.delivery)
        self._holdings.drop(run)

    async def _release(self, run: Run) -> None:
        try:
            await self._fleet.give_back([run.delivery])
        except BrokerError as error:
            self._outage.noticed(error)  # the lease gives it back
        self._holdings.drop(run)

    async def settled(self) -> None:
        """Wait until nothing is left to commit."""
        await self._idle.wait()

    def close(self) -> None:
        """Have `run` return when nothing is left."""
        self._closing = True
        self._wake.set()


def _fenced(delivery: Delivery) -> None:
    _log.warning(
        "task %s (%s) was given to another worker meanwhile: this outcome is refused",
        delivery.message.id,
        delivery.message.task,
    )
