"""Moves delayed tasks to their streams when their time has come, by the server's clock, and wakes those that wait.

It also goes on with what others have begun on its queues, and not ended: moves of messages, and flows.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Iterable

from streamq.broker.fleet import Fleet
from streamq.errors import BrokerError
from streamq.worker.outage import Outage

_COUNT = 100
_LONGEST_SECONDS = 1.0


class Promoter:
    """Looks at the delayed tasks and the rooms of some queues, again at once while there are due ones."""

    def __init__(self, fleet: Fleet, queues: Iterable[str], outage: Outage) -> None:
        self._fleet = fleet
        self._queues = tuple(queues)
        self._outage = outage
        self._loop = asyncio.get_running_loop()
        self._sooner = asyncio.Event()
        self._wake_at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def expect(self, seconds: float) -> None:
        """Look again in so many seconds, if not before: a task or a room will be due."""
        moment = self._loop.time() + seconds
        if moment < self._wake_at:
            self._rest()
            self._wake_at = moment
            self._timer = self._loop.call_at(moment, self._sooner.set)

    def _rest(self) -> None:
        """Expect nothing."""
        self._wake_at = math.inf
        if self._timer is not None:
            self._timer.cancel()

    async def run(self) -> None:
        """Promote until cancelled."""
        try:
            while True:
                self._rest()
                self._sooner.clear()  # what is expected from now on, while we look, is looked at again
                self.expect(_LONGEST_SECONDS * random.uniform(0.8, 1.0))  # noqa: S311 - keeps a fleet out of step
                try:
                    for queue in self._queues:
                        await self._promote(queue)
                except BrokerError as error:
                    self._outage.noticed(error)
                await self._sooner.wait()
        finally:
            self._rest()

    async def _promote(self, queue: str) -> None:
        """Promote all that is due, and wake those whose turn it is."""
        is_more = True
        while is_more:
            found = await self._fleet.promote(queue, _COUNT)
            next_ms = await self._fleet.rooms.sweep(queue, found.rooms) if found.rooms else None
            for ms in (found.next_ms, next_ms):
                if ms is not None:
                    self.expect((ms + 1) / 1000)
            is_more = _COUNT in (len(found.task_ids), len(found.rooms))
        if found.moving:
            await self._fleet.carry(queue)
        if found.outbox:
            await self._fleet.courier.sweep(queue)
