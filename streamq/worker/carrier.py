"""Goes on with flows where a commit could not do so itself: what belongs on other queues, and what is too much at once.

All of it is noted in Redis. What this process does not come to, another finds there a little later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from streamq.broker.fleet import Fleet
from streamq.broker.flowing import Work
from streamq.errors import BrokerError
from streamq.worker.outage import Outage


class Carrier:
    """Sees to what the commits of this process have left to do, in the order in which it came."""

    def __init__(self, fleet: Fleet, outage: Outage) -> None:
        self._fleet = fleet
        self._outage = outage
        self._work: dict[Work, None] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def take(self, work: Iterable[Work]) -> None:
        """Take on what is to be done."""
        self._work |= dict.fromkeys(work)
        self._wake.set()
        self._idle.clear()

    async def run(self) -> None:
        """See to it until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            work, self._work = self._work, {}
            try:
                await self._fleet.courier.see_to(work)
            except BrokerError as error:
                self._outage.noticed(error)
            if not self._work:
                self._idle.set()

    async def settled(self) -> None:
        """Wait until nothing is left that was taken on."""
        await self._idle.wait()
