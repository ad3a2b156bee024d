"""Takes over what dead workers held, and gives it back to the fleet.

Every worker sweeps, at times of its own; XAUTOCLAIM is atomic, so no lock is needed that a dead worker could keep.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random

from streamq.broker.fleet import Fleet
from streamq.errors import BrokerError, BrokerReset
from streamq.message import Delivery, Malformed
from streamq.worker.fetcher import bury_malformed
from streamq.worker.holdings import Holdings
from streamq.worker.lease import Lease
from streamq.worker.outage import Outage

_log = logging.getLogger("streamq.worker")

_SWEEP_SECONDS = (0.6, 1.4)
_COUNT = 100  # of larger sweeps one call can take several ms of the server's time
_START = b"0-0"


class Reaper:
    """Sweeps the pending entries of all streams."""

    def __init__(self, fleet: Fleet, holdings: Holdings, lease: Lease, outage: Outage, lease_seconds: float) -> None:
        self._fleet = fleet
        self._holdings = holdings
        self._lease = lease
        self._outage = outage
        self._lease_ms = round(lease_seconds * 1000)
        self._died = f"no sign of life for {lease_seconds:g} s"

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(random.uniform(*_SWEEP_SECONDS))  # noqa: S311 - spreads load, hides nothing
            if not self._lease.is_alive():
                raise RuntimeError("the lease thread has ended: what is held here would be taken for abandoned")
            if not self._lease.is_good:
                continue  # after a gap our own work must be renewed first, or it would look abandoned to ourselves
            try:
                for stream in self._fleet.streams:
                    with contextlib.suppress(BrokerReset):  # the fetcher makes the stream again
                        await self._sweep(stream)
            except BrokerError as error:
                self._outage.noticed(error)

    async def _sweep(self, stream: str) -> None:
        cursor = _START
        while True:
            claimed = await self._fleet.claim(stream, self._lease_ms, cursor, _COUNT)
            mine = [one for one in claimed.deliveries if (one.stream, one.entry) not in self._holdings]
            good = (one for one in mine if isinstance(one, Delivery))
            given, buried = await self._fleet.give_back(good, died=self._died)
            if given:
                _log.warning("%d tasks of a worker that gave no sign of life are given to others", given)
            if buried:
                _log.error("%d tasks under which too many workers have died are dead letters now", buried)
            await bury_malformed(self._fleet, (one for one in mine if isinstance(one, Malformed)))
            if claimed.bodies_lost:
                _log.error("%d pending entries of %s had been deleted by hand", claimed.bodies_lost, stream)
            cursor = claimed.cursor
            if cursor == _START:
                return
