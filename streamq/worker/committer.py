"""Commits outcomes: all that became ready while the last round trip was under way go in one script."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from streamq._redis.failures import Backoff
from streamq.broker.calls import Settlement
from streamq.broker.fleet import Fleet
from streamq.errors import BrokerError, BrokerRefused, BrokerReset, BrokerUnavailable
from streamq.lifecycle import Abandoned, Became, Bury, Complete, Died, Outcome, Park, Release, Unroutable, decide
from streamq.message import Delivery
from streamq.sending import part_of
from streamq.worker.carrier import Carrier
from streamq.worker.clock import now_ms
from streamq.worker.holdings import Holdings, Run
from streamq.worker.metrics import Counters
from streamq.worker.outage import Outage
from streamq.worker.outbox import Outbox
from streamq.worker.promoter import Promoter

_log = logging.getLogger("streamq.worker")

# Bounds of one script: what takes longer holds up other clients of the server.
_BATCH = 200
_BATCH_BYTES = 2 * 1024 * 1024

S = TypeVar("S", Complete, Park)
T = TypeVar("T")


class Committer:
    """Takes outcomes and sees to it that each is committed, refused, or left to the lease.

    An outcome is kept, and its lease renewed, for as long as Redis is away.

    Args:
        fleet: the broker.
        holdings: what is held, until its outcome is committed.
        outage: is told when Redis is away.
        promoter: is told when what is put back will be due.
        carrier: takes on what is to be done for flows.
        counters: count the outcomes.
        unknown_ttl: seconds for which a message that no worker can run is put back.
    """

    def __init__(
        self,
        fleet: Fleet,
        holdings: Holdings,
        outage: Outage,
        promoter: Promoter,
        carrier: Carrier,
        *,
        counters: Counters,
        unknown_ttl: float,
    ) -> None:
        self._fleet = fleet
        self._holdings = holdings
        self._outage = outage
        self._promoter = promoter
        self._carrier = carrier
        self._counters = counters
        self._unknown_ttl_ms = unknown_ttl * 1000
        self._ready: list[tuple[Run, Outcome]] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False

    def put(self, run: Run, outcome: Outcome) -> None:
        """Take the outcome of a run."""
        if run.outbox is not None and self._waits(run, run.outbox, outcome):
            return
        self._ready.append((run, outcome))
        self._wake.set()
        self._idle.clear()

    def _waits(self, run: Run, outbox: Outbox, outcome: Outcome) -> bool:
        """Have an outcome come again when all that its run has emitted is written; False if it need not."""
        if outbox.failure is not None:
            self._give_up(run, outbox.failure)
            return True
        if isinstance(outcome, (Abandoned, Died)):
            outbox.drop()  # another run will begin anew
        return outbox.end(partial(self.put, run, outcome))

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
        ended: list[tuple[Run, Complete]] = []
        parked: list[tuple[Run, Park]] = []
        size, now = 0, now_ms()
        for run, outcome in batch:
            match decide(outcome, run.delivery, now, self._unknown_ttl_ms):
                case Complete() as step:
                    ended.append((run, step))
                    size += len(step.body)
                case Park() as step:
                    parked.append((run, step))
                    size += len(step.error)
                    if isinstance(outcome, Unroutable):
                        message = run.delivery.message
                        text = "message %s is put back for %g s: %s %r"
                        _log.warning(text, message.id, step.seconds, step.reason, message.task)
                case Became() as step:
                    await self._become(run, step)
                case Bury(error, reason):
                    await self._bury(run, error, reason)
                case Release(died):
                    await self._release(run, died)
            if len(ended) >= _BATCH or len(parked) >= _BATCH or size > _BATCH_BYTES:
                await self._settle(ended, self._finish)
                await self._settle(parked, self._park)
                ended, parked, size = [], [], 0
        await self._settle(ended, self._finish)
        await self._settle(parked, self._park)

    async def _finish(self, ended: Sequence[tuple[Run, Complete]]) -> list[Delivery]:
        done = await self._fleet.commit(Settlement(run.delivery, step.state, step.body) for run, step in ended)
        if done.more:
            self._carrier.take(done.more)
        return done.refused

    async def _park(self, parked: Sequence[tuple[Run, Park]]) -> list[Delivery]:
        refused = await self._fleet.park((run.delivery, step) for run, step in parked)
        self._promoter.expect(min(step.seconds for _, step in parked))
        return refused

    async def _settle(
        self,
        batch: list[tuple[Run, S]],
        settle: Callable[[Sequence[tuple[Run, S]]], Awaitable[list[Delivery]]],
    ) -> None:
        """Settle runs in one script; if Redis cannot do that, one by one, to find the one that stands in the way."""
        if not batch:
            return
        try:
            refused = await self._patiently(lambda: settle(batch))
        except BrokerError as error:
            if len(batch) > 1:
                for one in batch:
                    await self._settle([one], settle)
            else:
                self._give_up(batch[0][0], error)
            return
        lost = set(refused)
        for run, step in batch:
            if lost and run.delivery in lost:
                self._fenced(run)
            elif isinstance(step, Complete):
                self._count(step.state, run)
            else:
                self._count("retried" if step.error else "handed_back", run)
            self._holdings.drop(run)

    def _count(self, what: str, run: Run) -> None:
        # Names that no function here has come from messages, and could be any number.
        self._counters[what, run.task.name if run.task is not None else ""] += 1

    def _fenced(self, run: Run) -> None:
        if run.cancelled:
            return
        message = run.delivery.message
        self._count("fenced", run)
        text = "task %s (%s) was given to another worker meanwhile, or cancelled: this outcome is refused"
        _log.warning(text, message.id, message.task)

    async def _patiently(self, send: Callable[[], Awaitable[T]]) -> T:
        """Send until Redis is there; it may also grant a permission, or take a password, that it now refuses."""
        backoff = Backoff()
        while True:
            try:
                return await send()
            except (BrokerUnavailable, BrokerRefused) as error:
                self._outage.noticed(error)
                await asyncio.sleep(backoff.next())

    async def _become(self, run: Run, step: Became) -> None:
        delivery = run.delivery
        try:
            begun = await self._patiently(lambda: self._fleet.courier.become(delivery, step.drawing, step.own))
        except BrokerError as error:
            self._give_up(run, error)
        else:
            if begun.goes_on:
                self._carrier.take([(delivery.message.queue, f"flow:{delivery.message.id}")])
            if begun.is_new:
                self._count("replaced", run)
            else:
                self._fenced(run)
        self._holdings.drop(run)

    async def _bury(self, run: Run, error: bytes, reason: str) -> None:
        delivery = run.delivery
        try:
            if await self._patiently(lambda: self._fleet.bury(delivery, reason, error)):
                self._count("dead", run)
                self._tell_flow(delivery)
                _log.warning("message %s is a dead letter now: %s", delivery.message.id, reason)
            else:
                self._fenced(run)
        except BrokerError as failure:
            self._give_up(run, failure)
        self._holdings.drop(run)

    async def _release(self, run: Run, died: str) -> None:
        try:
            given, buried = await self._patiently(lambda: self._fleet.give_back([run.delivery], died=died))
            if buried:
                message = run.delivery.message
                _log.error("task %s (%s) has seen too many deaths and is a dead letter now", message.id, message.task)
                self._tell_flow(run.delivery)
            if given or buried:
                self._count("dead" if buried else "handed_back", run)
        except BrokerError as error:
            self._give_up(run, error)
        self._holdings.drop(run)

    def _tell_flow(self, delivery: Delivery) -> None:
        """Have the flow of a task that is a dead letter now be told at once; it is noted that it has to be."""
        message = delivery.message
        if part_of(message) is not None:
            self._carrier.take([(message.queue, f"end:{message.id}")])

    def _give_up(self, run: Run, error: BrokerError) -> None:
        if isinstance(error, BrokerReset):
            self._outage.noticed(error)
        else:
            _log.error("cannot commit task %s, it will be run again: %s", run.delivery.message.id, error)
        self._holdings.drop(run)

    async def settled(self) -> None:
        """Wait until nothing is left to commit."""
        await self._idle.wait()

    def close(self) -> None:
        """Have `run` return when nothing is left."""
        self._closing = True
        self._wake.set()
