"""Moves delayed tasks to their streams when their time has come, by the server's clock."""

from __future__ import annotations

import asyncio
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

    async def run(self) -> None:
        """Promote until cancelled."""
        while True:
            pause = _LONGEST_SECONDS * random.uniform(0.8, 1.0)  # noqa: S311 - keeps a fleet out of step
            try:
                for queue in self._queues:
                    found = await self._fleet.promote(queue, _COUNT)
                    while len(found.task_ids) == _COUNT:
                        found = await self._fleet.promote(queue, _COUNT)
                    if found.next_ms is not None:
                        pause = min(pause, (found.next_ms + 1) / 1000)
            except BrokerError as error:
                self._outage.noticed(error)
            await asyncio.sleep(pause)
