"""Makes events of what was heard, and gets those that were missed from the logs, where events are kept."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Generator
from datetime import datetime, timedelta
from typing import Any

from streamq._redis.keys import Keys
from streamq._redis.scripts import Call
from streamq.broker import event_log, reads
from streamq.broker.event_log import Logged
from streamq.channels.buffer import Counts, Missing
from streamq.channels.gaps import Gap, moment
from streamq.channels.listener import Reader, Steps, insist
from streamq.channels.readers import Complaints
from streamq.checks import is_number
from streamq.errors import ConfigError
from streamq.events.event import Event
from streamq.events.kinds import read_event
from streamq.events.wanted import Wanted

Since = float | timedelta | datetime
"""Seconds or a span before now, or a time."""

_log = logging.getLogger("streamq.channels")

_OVERLAP_MS = 5000  # that is read again of the logs, since neither clocks nor what is on its way are exact
_WINDOW = 20_000  # events that are remembered, so that none is given twice
_KEPT_SECONDS = 3600.0  # a log is gone so long after its last event


class Window:
    """Remembers the last of the events that came one way, so that those that come the other way too are known.

    Args:
        size: so many.
    """

    def __init__(self, size: int) -> None:
        self._order: deque[int] = deque()
        self._there: set[int] = set()
        self._size = size

    def __contains__(self, data: bytes) -> bool:
        return hash(data) in self._there

    def add(self, data: bytes) -> None:
        """Remember one."""
        mark = hash(data)
        if mark in self._there:
            return
        self._there.add(mark)
        self._order.append(mark)
        if len(self._order) > self._size:
            self._there.discard(self._order.popleft())


def check_since(since: Since) -> Since:
    """See that one can begin there.

    Raises:
        ConfigError: it is no span of 0 or more seconds, and no time with a time zone.
    """
    if isinstance(since, datetime):
        if since.tzinfo is None:
            raise ConfigError(f"since needs its time zone: {since!r}")
    elif not (isinstance(since, timedelta) or is_number(since)) or _seconds(since) < 0:
        raise ConfigError(f"since must be a time, or a span of 0 or more seconds before now, not {since!r}")
    return since


def _seconds(span: float | timedelta) -> float:
    return span.total_seconds() if isinstance(span, timedelta) else span


class EventReader(Reader[Event | Gap]):
    """Reads events, in the order in which they were heard; those that were missed come from the logs, if there are any.

    Args:
        keys: of the namespace.
        wanted: which to give.
        since: where to begin in the logs; None: with what is published from now on.
        gaps: whether gaps are given; they are logged otherwise.
        buffer: so many messages may wait to be read.
    """

    def __init__(self, keys: Keys, wanted: Wanted, since: Since | None, *, gaps: bool, buffer: int) -> None:
        self._keys = keys
        self._wanted = wanted
        self._since = since
        self._gaps = gaps
        self._missed: list[Missing] = []
        self._held: list[tuple[bytes, bytes]] = []  # was heard while something older is still to come
        self._walk: Generator[Call[Any] | list[Logged], Any, None] | None = None
        self._logged, self._heard = Window(_WINDOW + buffer), Window(_WINDOW + buffer)
        self._counts = Counts()
        self._complaints = Complaints("event")
        self._time_ms = 0.0  # of the last event that was heard
        self._begun = time.time()
        self._told_since: datetime | None = None  # of a lost connection: each name that is subscribed tells of it
        self.is_behind = since is not None

    def read(self, channel: bytes, data: bytes, counts: Counts) -> list[Event | Gap]:
        """Make an event, if it is wanted and has not come from a log before."""
        self._counts = counts
        if self.is_behind:
            self._held.append((channel, data))
            return []
        event = self._event(channel, data)
        if event is None:
            return []
        self._time_ms = event.time.timestamp() * 1000
        if data in self._logged:
            counts.repeated += 1
            return []
        self._heard.add(data)
        return [event] if event in self._wanted else []

    def missing(self, gap: Missing) -> list[Event | Gap]:
        """Have it got from the logs."""
        self._missed.append(gap)
        self.is_behind = True
        return []

    def catch_up(self) -> Steps[Event | Gap]:
        """Read the next page of the logs."""
        if self._walk is None:
            return (yield from self._begin_walk())
        page: list[Logged] | None = yield from _next_page(self._walk)
        if page is not None:
            return [event for one in page if (event := self._of_log(one))]
        self._walk = None
        self.is_behind = bool(self._missed)
        if self.is_behind:
            return []
        held, self._held = self._held, []
        return [event for heard in held for event in self.read(*heard, self._counts)]

    def _begin_walk(self) -> Steps[Event | Gap]:
        """Look what the logs have; gives the gaps that they cannot fill."""
        lasts: dict[str, bytes] = yield from insist_on_all(event_log.logs(self._keys))
        start_ms = yield from self._start()
        missed, self._missed, self._since = self._missed, [], None
        gaps = [self._gap(one) for one in missed if not lasts or time.time() - one.since > _KEPT_SECONDS]
        if missed and lasts:
            _log.info("what was missed is read from the logs of events")
            if not gaps and (yield from insist_on_all(event_log.is_trimmed(lasts, start_ms + _OVERLAP_MS))):
                gaps.append(Gap("trimmed", since=moment(start_ms / 1000)))
        self._walk = event_log.pages(lasts, start_ms)
        told = [gap for gap in gaps if gap.reason != "reconnected" or gap.since != self._told_since]
        self._told_since = next((gap.since for gap in gaps if gap.reason == "reconnected"), self._told_since)
        if self._gaps:
            return [*told]
        for gap in told:
            _log.warning("events are missing: %s", gap)
        return []

    def _gap(self, missed: Missing) -> Gap:
        return Gap(missed.reason, missed.dropped or None, since=moment(missed.since))

    def _start(self) -> Generator[Any, Any, int]:
        """Say from which Redis time on, ms, the logs have what is missing."""
        now_ms: int = yield from insist(reads.now())
        starts: list[float] = []
        if isinstance(self._since, datetime):
            starts.append(self._since.timestamp() * 1000)
        elif self._since is not None:
            starts.append(now_ms - _seconds(self._since) * 1000)
        ahead_ms = now_ms - time.time() * 1000
        for gap in self._missed:
            lost_ms = gap.since * 1000 + ahead_ms
            if gap.reason == "overflow":  # what was dropped may have waited for long
                lost_ms = min(lost_ms, self._time_ms or self._begun * 1000 + ahead_ms)
            starts.append(lost_ms - _OVERLAP_MS)
        return max(0, int(min(starts)))

    def _of_log(self, one: Logged) -> Event | None:
        if one.event in self._heard or one.event in self._logged:
            return None
        self._logged.add(one.event)
        event = self._event(one.log.encode(), one.event)
        return event if event is not None and event in self._wanted else None

    def _event(self, where: bytes, data: bytes) -> Event | None:
        try:
            return read_event(data)
        except ValueError as error:
            self._complaints.skip(where.decode("utf-8", "backslashreplace"), str(error), self._counts)
            return None


def insist_on_all(steps: Generator[Call[Any], Any, Any]) -> Generator[Any, Any, Any]:
    """Send each call of some steps until the server is there; returns what they do."""
    answer: Any = None
    while True:
        try:
            call = steps.send(answer)
        except StopIteration as end:
            return end.value
        answer = yield from insist(call)


def _next_page(walk: Generator[Call[Any] | list[Logged], Any, None]) -> Generator[Any, Any, list[Logged] | None]:
    """Go on with a walk to its next page; None: it is at its end."""
    answer: Any = None
    while True:
        try:
            step = walk.send(answer)
        except StopIteration:
            return None
        if not isinstance(step, Call):
            return step
        answer = yield from insist(step)
