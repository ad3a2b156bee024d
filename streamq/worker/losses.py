"""What happens to the runs whose messages this worker has no longer: another has them, or they were cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from streamq.broker.fleet import Fleet
from streamq.errors import BrokerError
from streamq.lifecycle import State
from streamq.worker.executor import Executor
from streamq.worker.holdings import Holdings, Run
from streamq.worker.metrics import Counters
from streamq.worker.processes import ProcessPool

_log = logging.getLogger("streamq.worker")

_UNKNOWN_MOST = 1000  # most of them are in other workers


class Losses:
    """Tells runs that they are in vain, and ends them.

    Args:
        fleet: is asked what has become of a task.
        holdings: what is held.
        executor: ends runs.
        processes: passes on that a lease is lost.
        counters: count what is lost and what is cancelled.
        cancel_lost: async tasks that another worker has are cancelled.
    """

    def __init__(
        self,
        fleet: Fleet,
        holdings: Holdings,
        executor: Executor,
        processes: ProcessPool,
        *,
        counters: Counters,
        cancel_lost: bool,
    ) -> None:
        self._fleet = fleet
        self._holdings = holdings
        self._executor = executor
        self._processes = processes
        self._counters = counters
        self._cancel_lost = cancel_lost
        self._asking: set[asyncio.Task[None]] = set()
        self._unknown: dict[tuple[str, bytes], None] = {}  # what was cancelled and is not held, in order

    def cancelled(self, stream: str, entry: bytes) -> None:
        """Stop the run of a task of which was told that it was cancelled."""
        run = self._holdings.get(stream, entry)
        if run is None:
            self._unknown[stream, entry] = None
            if len(self._unknown) > _UNKNOWN_MOST:
                del self._unknown[next(iter(self._unknown))]
        elif not run.ended and not run.cancelled:
            self._stop(run)

    def arrived(self, runs: Iterable[Run]) -> None:
        """Stop those that were cancelled while they were on their way to this worker."""
        if self._unknown:
            for run in runs:
                if self._unknown.pop((run.delivery.stream, run.delivery.entry), False) is None:
                    self._stop(run)

    def lost(self, stream: str, entry: bytes) -> None:
        """Find out why a message is no longer this worker's, and do what follows."""
        run = self._holdings.get(stream, entry)
        # Of an ended run nothing may be pending because it was committed a moment ago; if not, it will be refused.
        if run is not None and not run.ended and not run.lost:
            run.lost = True
            asking = asyncio.create_task(self._ask(run))
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)

    async def _ask(self, run: Run) -> None:
        try:
            state = await self._fleet.state(run.delivery)
        except BrokerError:
            state = State.UNKNOWN
        if run.ended or run.cancelled:
            return
        if state is State.CANCELLED:
            self._stop(run)
            return
        message = run.delivery.message
        self._counters["leases_lost", ""] += 1
        _log.warning("the lease of task %s (%s) has gone to another worker", message.id, message.task)
        if self._cancel_lost:
            self._executor.cancel(run)
        else:
            self._processes.lost(run)

    def _stop(self, run: Run) -> None:
        run.lost = run.cancelled = True
        message = run.delivery.message
        self._counters["cancelled", message.task] += 1
        _log.info("task %s (%s) was cancelled", message.id, message.task)
        self._executor.stop(run)

    async def close(self) -> None:
        """Ask no more."""
        for asking in self._asking:
            asking.cancel()
        if self._asking:
            await asyncio.wait(self._asking)
