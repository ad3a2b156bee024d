"""Moves delayed tasks to their streams when their time has come, by the server's clock."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterable

from streamq.broker.fleet import Fleet
from streamq.errors import BrokerError
from streamq.worker.outage import Outage

_COUNT = 100
_LONGEST_SECONDS = 1.0


class Promoter:
    """Looks at the delayed tasks of some queues, again at once while there are due ones."""

    def __init__(self, fleet: Fleet, queues: Iterable[str], outage: Outage) -> None:
        self._fleet = fleet
        self._queues = tuple(queues)
        self._outage = outage
        self._sooner = asyncio.Event()
        self._wake_at = 0.0

    def expect(self, seconds: float) -> None:
        """Look again in so many seconds, if not before: a task of this worker will be due."""
        loop = asyncio.get_running_loop()
        if loop.time() + seconds < self._wake_at:
            loop.call_later(seconds, self._sooner.set)

    async def run(self) -> None:
        """Promote until cancelled."""
        while True:
            self._sooner.clear()
            pause = _LONGEST_SECONDS * random.uniform(0.8, 1.0)  # noqa: S311 - keeps a fleet out of step
            try:
                for queue in self._queues:
                    found = await self._fleet.promote(queue, _COUNT)
                    while len(found.task_ids) == _COUNT:
                        found = await self._fleet.promote(queue, _COUNT)
                    if found.next_ms is not None:
                        pause = min(pause, (found.next_ms + 1) / 1000)
                    if found.moving:
                        await self._fleet.carry(queue)
            except BrokerError as error:
                self._outage.noticed(error)
            self._wake_at = asyncio.get_running_loop().time() + pause
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._sooner.wait()
