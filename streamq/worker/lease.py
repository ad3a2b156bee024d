"""Renews the leases of what this process holds.

It has a thread and a connection of its own, so that an event loop that is blocked does not lose its tasks. It renews
only what is held in memory, never all that is pending: an entry whose delivery was lost on the way would be kept from
everybody for ever. It ends last of all services, when the last task of a drain has ended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from streamq.broker.renewals import Renewals
from streamq.errors import BrokerError, BrokerReset
from streamq.worker.holdings import Holdings

_log = logging.getLogger("streamq.worker")

_RENEWALS_IN_A_LEASE = 4
_RETRY_SECONDS = 0.5
_BATCH = 200


class Lease(threading.Thread):
    """The thread that renews.

    Args:
        renewals: the connection.
        holdings: what to renew.
        seconds: the length of a lease.
        lost: called in this thread with the stream and entry of a delivery that belongs to another by now.
    """

    def __init__(
        self, renewals: Renewals, holdings: Holdings, seconds: float, lost: Callable[[str, bytes], object]
    ) -> None:
        super().__init__(name="streamq-lease", daemon=True)
        self._renewals = renewals
        self._holdings = holdings
        self._seconds = seconds
        self._lost = lost
        self._stopping = threading.Event()
        self._renewed_at = time.monotonic()

    @property
    def is_good(self) -> bool:
        """What is held was renewed lately, so that none of it can look abandoned."""
        return time.monotonic() - self._renewed_at < self._seconds / 2

    def run(self) -> None:
        """Renew until `stop` is called."""
        pause = self._seconds / _RENEWALS_IN_A_LEASE
        while not self._stopping.wait(pause):
            began = time.monotonic()
            try:
                self._renew()
            except BrokerError as error:
                _log.debug("leases could not be renewed: %s", error)
                pause = min(_RETRY_SECONDS, self._seconds / _RENEWALS_IN_A_LEASE)
            else:
                self._renewed_at = began
                pause = self._seconds / _RENEWALS_IN_A_LEASE

    def _renew(self) -> None:
        for stream, entries in self._holdings.entries().items():
            for start in range(0, len(entries), _BATCH):
                try:
                    lost = self._renewals.renew(stream, entries[start : start + _BATCH])
                except BrokerReset:
                    continue  # the stream is gone; the fetcher makes it again
                for entry in lost:
                    self._lost(stream, entry)

    def stop(self) -> None:
        """End the thread and close its connection."""
        self._stopping.set()
        if self.is_alive():
            self.join()
        self._renewals.close()
