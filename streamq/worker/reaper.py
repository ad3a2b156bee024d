"""Takes over what dead workers held, gives it back to the fleet, and removes their consumers.

Every worker sweeps, at times of its own; XAUTOCLAIM is atomic, so no lock is needed that a dead worker could keep.
A sweep also tells the server that its own consumer is there: the consumer's idle time begins anew. (Not before Redis
7.2, where only a message does so. There the consumer of a worker that has long been idle is removed as well, and made
again with the next message.)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import defaultdict

from streamq.broker.calls import Claimed
from streamq.broker.fleet import Fleet
from streamq.errors import BrokerError, BrokerReset
from streamq.message import Delivery, Malformed
from streamq.worker.fetcher import bury_malformed
from streamq.worker.holdings import Holdings
from streamq.worker.lease import Lease
from streamq.worker.metrics import Counters
from streamq.worker.outage import Outage

_log = logging.getLogger("streamq.worker")

_SWEEP_SECONDS = (0.6, 1.4)
_LONGEST_READ_SECONDS = 1.2  # if nothing comes
_COUNT = 100  # of larger sweeps one call can take several ms of the server's time
_STEPS = 10  # in one stream and sweep; the next sweep goes on from there
_START = b"0-0"

_TIDY_SECONDS = (45.0, 75.0)
_FORGOTTEN_LEASES = 3
_FORGOTTEN_LEAST_SECONDS = 60.0


class Reaper:
    """Sweeps the pending entries of all streams, and removes the consumers of workers that are no more."""

    def __init__(
        self,
        fleet: Fleet,
        holdings: Holdings,
        lease: Lease,
        outage: Outage,
        *,
        counters: Counters,
        lease_seconds: float,
    ) -> None:
        self._fleet = fleet
        self._holdings = holdings
        self._lease = lease
        self._outage = outage
        self._counters = counters
        self._lease_ms = round(lease_seconds * 1000)
        self._unread_seconds = max(lease_seconds, _LONGEST_READ_SECONDS)
        self._died = f"no sign of life for {lease_seconds:g} s"
        self._forgotten_ms = round(max(_FORGOTTEN_LEASES * lease_seconds, _FORGOTTEN_LEAST_SECONDS) * 1000)
        self._cursors: defaultdict[str, bytes] = defaultdict(lambda: _START)

    async def run(self) -> None:
        """Sweep until cancelled."""
        tidy_at = time.monotonic() + random.uniform(*_TIDY_SECONDS)  # noqa: S311 - spreads load, hides nothing
        while True:
            await asyncio.sleep(random.uniform(*_SWEEP_SECONDS))  # noqa: S311 - see above
            if not self._lease.is_alive():
                raise RuntimeError("the lease thread has ended: what is held here would be taken for abandoned")
            if not self._lease.is_good or self._outage.left_leases_unrenewed(self._lease_ms / 1000):
                continue  # after a gap our own work must be renewed first, and that of others, or it looks abandoned
            if time.monotonic() - self._holdings.reading_since > self._unread_seconds:
                continue  # the event loop was blocked: what it was sent meanwhile looks abandoned, and is read first
            try:
                for stream in self._fleet.streams:
                    await self.sweep(stream)
                self._outage.hear()
                if time.monotonic() >= tidy_at:
                    tidy_at = time.monotonic() + random.uniform(*_TIDY_SECONDS)  # noqa: S311 - see above
                    await self.tidy()
            except BrokerError as error:
                self._outage.noticed(error)

    async def sweep(self, stream: str) -> None:
        """Take over what nobody has renewed for a lease, in a bounded number of steps, and give it to the fleet."""
        try:
            for _ in range(_STEPS):
                claimed = await self._fleet.claim(stream, self._lease_ms, self._cursors[stream], _COUNT)
                await self._pass_on(stream, claimed)
                self._cursors[stream] = claimed.cursor
                if claimed.cursor == _START:
                    return
        except BrokerReset:  # the fetcher makes the stream again
            self._cursors[stream] = _START

    async def _pass_on(self, stream: str, claimed: Claimed) -> None:
        mine = [one for one in claimed.deliveries if (one.stream, one.entry) not in self._holdings]
        good = (one for one in mine if isinstance(one, Delivery))
        given, buried = await self._fleet.reclaim(good, died=self._died)
        if buried:
            _log.error("%d tasks under which too many workers have died are dead letters now", buried)
        if given:
            self._counters["reclaimed", ""] += given
            _log.warning("%d tasks of a worker that gave no sign of life are given to others", given)
        await bury_malformed(self._fleet, (one for one in mine if isinstance(one, Malformed)))
        if claimed.bodies_lost:
            _log.error("%d pending entries of %s had been deleted by hand", claimed.bodies_lost, stream)

    async def tidy(self) -> None:
        """Remove consumers that hold nothing and have not asked for anything for long."""
        for stream in self._fleet.streams:
            with contextlib.suppress(BrokerReset):
                if gone := await self._fleet.retire_idle(stream, self._forgotten_ms):
                    _log.info("removed %d consumers of %s that are no more", gone, stream)
