"""Reads messages, as many as there is room for."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterable
from typing import Any

from streamq._redis.failures import Backoff
from streamq.broker.fleet import Fetched, Fleet
from streamq.codec import encode_error
from streamq.errors import BrokerError, BrokerReset, StreamqError
from streamq.message import Delivery, Malformed
from streamq.nodes import split_id
from streamq.sending import part_of
from streamq.worker.executor import Executor
from streamq.worker.gate import Gate
from streamq.worker.holdings import Holdings, Run
from streamq.worker.loader import Loader
from streamq.worker.losses import Losses
from streamq.worker.metrics import Counters
from streamq.worker.outage import Outage

_log = logging.getLogger("streamq.worker")


async def bury_malformed(fleet: Fleet, entries: Iterable[Malformed]) -> None:
    """Move entries that are no messages to the dead letters, so that they do not stop what comes after them."""
    for entry in entries:
        error = encode_error(StreamqError(f"the message {entry.reason}"), with_traceback=False)
        if await fleet.bury(entry, f"malformed: {entry.reason}", error):
            _log.error(
                "entry %s of queue %s %s: moved to the dead letters",
                entry.entry.decode(),
                entry.queue,
                entry.reason,
            )


class Fetcher:
    """Moves messages from the streams to the executor."""

    def __init__(
        self,
        fleet: Fleet,
        executor: Executor,
        holdings: Holdings,
        outage: Outage,
        *,
        gate: Gate,
        loader: Loader,
        losses: Losses,
        counters: Counters,
        lease_seconds: float,
    ) -> None:
        self._fleet = fleet
        self._holdings = holdings
        self._gate = gate
        self._loader = loader
        self._losses = losses
        self._executor = executor
        self._outage = outage
        self._counters = counters
        self._lease_seconds = lease_seconds
        self._stopping = False

    async def run(self) -> None:
        """Fetch until `stop` is called. A read is never cancelled: entries in its reply would be orphans."""
        backoff = Backoff()
        while not self._stopping:
            room = self._executor.room()
            if room <= 0:
                await self._holdings.progress()
                continue
            asked = self._holdings.reading_since = time.monotonic()
            try:
                fetched = await self._fleet.fetch(room)
                runs = self._executor.hold(fetched.deliveries)
                self._holdings.reading_since = float("inf")
                if time.monotonic() - asked > self._lease_seconds / 2:
                    runs = await self._without_what_is_anothers(runs)
                await self._attend(fetched, runs)
            except BrokerError as error:
                self._outage.noticed(error)
                await self._recover(error)
                await asyncio.sleep(backoff.next())
            else:
                self._outage.over()
                backoff.reset()

    async def _without_what_is_anothers(self, runs: list[Run]) -> list[Run]:
        """Leave out what others have taken over: no lease is renewed of what lies unread while the loop is blocked.

        All is held meanwhile, or a sweep of this worker's own would take it for abandoned.
        """
        try:
            kept = await self._fleet.keep(run.delivery for run in runs)
        except BrokerError as error:
            self._outage.noticed(error)
            return runs  # what is another's will be refused
        mine = {(one.stream, one.entry) for one in kept}
        lost = [run for run in runs if (run.delivery.stream, run.delivery.entry) not in mine]
        for run in lost:
            self._holdings.drop(run)
        if lost:
            self._counters["leases_lost", ""] += len(lost)
            _log.warning("%d messages went to other workers before this one came to read them", len(lost))
        return [run for run in runs if run not in lost]

    async def _attend(self, fetched: Fetched, runs: list[Run]) -> None:
        self._counters["fetched", ""] += len(runs)
        self._gate.fetched(runs)
        self._losses.arrived(runs)
        if fetched.listening and runs:
            await self._announce(run.delivery for run in runs)
        self._loader.begin(runs)
        if fetched.malformed:
            await bury_malformed(self._fleet, fetched.malformed)

    async def _announce(self, deliveries: Iterable[Delivery]) -> None:
        events = []
        for delivery in deliveries:
            message = delivery.message
            text: dict[str, Any] = {
                "event": "task.started",
                "queue": message.queue,
                "task": message.task,
                "id": message.id,
                "worker": self._fleet.consumer,
                "deliveries": delivery.deliveries,
                "time": time.time_ns() // 1_000_000,
            }
            if (part := part_of(message)) is not None:
                text["flow"] = {"id": split_id(message.id)[0], **part.place()}
            queue = self._fleet.keys.queue(message.queue)
            events.append((queue.log, f"{queue.events}{message.task}:started", json.dumps(text).encode()))
        try:
            await self._fleet.announce(events)
        except BrokerError as error:
            self._outage.noticed(error)  # news may be lost, work may not

    async def _recover(self, error: BrokerError) -> None:
        if isinstance(error, BrokerReset):
            try:
                await self._fleet.prepare()
            except BrokerError as failure:
                self._outage.noticed(failure)

    async def stop(self) -> None:
        """Have `run` return after the read that is under way, which ends at once if it waits for messages."""
        self._stopping = True
        self._holdings.nudge()
        try:
            await self._fleet.interrupt()
        except BrokerError as error:
            self._outage.noticed(error)  # the read ends by itself, after its BLOCK
