"""How the services of a worker bear it that Redis is away: it is said once."""

from __future__ import annotations

import logging
import time

from streamq.errors import BrokerError, BrokerReset

_log = logging.getLogger("streamq.worker")

_RESET_LOG_SECONDS = 60.0


class Outage:
    """Shared by all services of one process, so that the log has one line when Redis goes and one when it returns.

    Attributes:
        times: how often Redis went.
        heard: when a fetch or a sweep last succeeded, by the monotonic clock; None: never.
    """

    def __init__(self) -> None:
        self.times = 0
        self.heard: float | None = None
        self._since: float | None = None
        self._length = 0.0
        self._ended = float("-inf")
        self._reset_said = float("-inf")

    def noticed(self, error: BrokerError) -> None:
        """Say that Redis is away, or that it has lost a stream, unless that was just said."""
        now = time.monotonic()
        if isinstance(error, BrokerReset):
            if now - self._reset_said >= _RESET_LOG_SECONDS:
                self._reset_said = now
                _log.warning("a stream or its group has vanished and is made again: %s", error)
        elif self._since is None:
            self._since = now
            self.times += 1
            _log.warning("Redis is away, waiting for it: %s", error)

    def hear(self) -> None:
        """Note that Redis has just done what was asked."""
        self.heard = time.monotonic()

    def over(self) -> None:
        """Note that Redis has done what was asked, and say that it is back, if it was away."""
        self.hear()
        if self._since is not None:
            self._ended = time.monotonic()
            self._length = self._ended - self._since
            self._since = None
            _log.info("Redis is back after %.1f s", self._length)

    def left_leases_unrenewed(self, lease: float) -> bool:
        """Tell whether leases of `lease` seconds may have run out whose owners live, and could not renew them.

        They have the length of a lease to come back.
        """
        if self._since is not None:
            return True
        return self._length > lease / 2 and time.monotonic() - self._ended < lease
