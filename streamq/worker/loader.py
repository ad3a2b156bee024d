"""Gets the arguments of tasks of flows where they were too much for the message: the results of many tasks, say."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

from streamq._redis.failures import Backoff
from streamq.broker.fleet import Fleet
from streamq.codec import encode_error
from streamq.errors import BrokerError, BrokerUnavailable, UnknownTaskId
from streamq.lifecycle import Failed, Outcome
from streamq.sending import part_of
from streamq.worker.holdings import Holdings, Run
from streamq.worker.outage import Outage

_log = logging.getLogger("streamq.worker")


class Loader:
    """Holds runs back until their arguments are there.

    Args:
        fleet: the broker.
        holdings: what is held; leases are renewed meanwhile.
        outage: is told when Redis is away.
        begin: takes runs whose arguments are there.
        settle: takes a run whose flow is not there any more, and its outcome.
    """

    def __init__(
        self,
        fleet: Fleet,
        holdings: Holdings,
        outage: Outage,
        begin: Callable[[Iterable[Run]], None],
        settle: Callable[[Run, Outcome], None],
    ) -> None:
        self._fleet = fleet
        self._holdings = holdings
        self._outage = outage
        self._begin = begin
        self._settle = settle
        self._waiting: deque[Run] = deque()
        self._wake = asyncio.Event()

    def begin(self, runs: list[Run]) -> None:
        """Begin runs, those that have no arguments yet later."""
        lacking = [run for run in runs if not run.delivery.message.args and part_of(run.delivery.message) is not None]
        if lacking:
            self._waiting += lacking
            self._wake.set()
            runs = [run for run in runs if run not in lacking]
        self._begin(runs)

    async def run(self) -> None:
        """Get arguments until cancelled."""
        backoff = Backoff()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                run = self._waiting[0]
                args: bytes | BrokerError | UnknownTaskId
                try:
                    args = await self._fleet.courier.arguments(run.delivery.message)
                except BrokerUnavailable as error:
                    self._outage.noticed(error)
                    await asyncio.sleep(backoff.next())
                    continue
                except (BrokerError, UnknownTaskId) as error:
                    args = error
                backoff.reset()
                if self._waiting and self._waiting[0] is run:  # it may have been given out meanwhile
                    self._waiting.popleft()
                    self._go_on(run, args)

    def _go_on(self, run: Run, args: bytes | BrokerError | UnknownTaskId) -> None:
        message = run.delivery.message
        if isinstance(args, UnknownTaskId):
            self._settle(run, Failed(encode_error(args, with_traceback=False)))
        elif isinstance(args, BrokerError) or run.lost:
            if not run.lost:
                _log.error("cannot get the arguments of task %s, it will come again: %s", message.id, args)
            self._holdings.drop(run)
        else:
            run.delivery = run.delivery._replace(message=message._replace(args=args))
            self._begin([run])

    def drain(self) -> list[Run]:
        """Let nothing more begin; gives out what has no arguments yet."""
        waiting, self._waiting = [*self._waiting], deque()
        return waiting
