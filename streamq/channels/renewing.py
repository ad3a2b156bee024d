"""Renews the leases of what groups have taken, from a thread, so that a blocked event loop does not lose them."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import Protocol

from streamq._redis.scripts import Call
from streamq.broker.reach import Reach
from streamq.errors import BrokerError

_log = logging.getLogger("streamq.channels")


class Holder(Protocol):
    """What has taken messages."""

    @property
    def renewal_seconds(self) -> float:
        """How often their leases are renewed."""

    def renewal(self) -> Call[list[bytes]] | None:
        """The call that renews them; None: there are none."""

    def lost(self, entries: list[bytes]) -> None:
        """Take note of those that are another's by now."""


class Renewer:
    """One thread for all that is taken in this process; it ends when nobody takes anything."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._holders: weakref.WeakKeyDictionary[Holder, float] = weakref.WeakKeyDictionary()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closing = False

    def add(self, holder: Holder) -> None:
        """Renew what it has taken, for as long as it lives."""
        with self._changed:
            self._holders[holder] = time.monotonic() + holder.renewal_seconds
            if self._thread is None:
                self._is_closing = False
                self._thread = threading.Thread(target=self._run, name="streamq-renewals", daemon=True)
                self._thread.start()
            self._changed.notify()

    def remove(self, holder: Holder) -> None:
        """Renew nothing more of it."""
        with self._changed:
            self._holders.pop(holder, None)
            self._changed.notify()

    def close(self) -> None:
        """Renew nothing more."""
        with self._changed:
            self._is_closing = True
            thread, self._thread = self._thread, None
            self._changed.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=2.0)

    def _run(self) -> None:
        while True:
            with self._changed:
                due = [holder for holder, at in self._holders.items() if at <= time.monotonic()]
                for holder in due:
                    self._holders[holder] = time.monotonic() + holder.renewal_seconds
                if not due:
                    if self._is_closing or not self._holders:
                        if self._thread is threading.current_thread():
                            self._thread = None
                        return
                    self._changed.wait(max(0.0, min(self._holders.values()) - time.monotonic()))
                    continue
            for holder in due:
                self._renew(holder)
            del due[:], holder  # else the last would live until the next

    def _renew(self, holder: Holder) -> None:
        call = holder.renewal()
        if call is None:
            return
        try:
            holder.lost(self._reach.sync.run(call))
        except BrokerError as error:
            _log.debug("leases could not be renewed: %s", error)
