"""Rules that say at which instants a schedule is due. Pure: time is a number, Redis time in ms.

Cronsim says which times on the wall clock an expression means. What becomes of them when the clock is changed is
decided here, by the rule of Debian's cron (cron(8)). Cronsim has that rule too, but loses the first half of an hour in
which, on Lord Howe, the clock has gone back by half an hour.

- A *wall-clock* expression, whose hour and minute (and second, if there is one) begin with no ``*``, such as
  ``30 2 * * *``, is meant to happen at that time of the day, once. A time that a gap leaves out is made up for once, at
  the first instant after the gap; if several were left out, or one is due then anyhow, that is one instant. A time that
  comes twice counts the first time only.
- An *interval* expression, such as ``*/5 * * * *`` or ``*/5 2 * * *``, goes by what the clock shows: in a gap it shows
  nothing, so nothing is due; and what it shows twice is due twice.
- `every` knows no clock: its instants are multiples of the interval since 1970 in UTC, shifted by the jitter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from streamq.checks import is_number
from streamq.errors import ConfigError

_LEAST_MS = 100
_MOST_MS = 366 * 24 * 3600 * 1000


@dataclass(frozen=True, repr=False)
class Cron:
    """When a clock somewhere shows certain times. Made by `cron`."""

    expression: str
    tz: str

    @cached_property
    def zone(self) -> tzinfo:
        """Where that clock is."""
        return UTC if self.tz == "UTC" else ZoneInfo(self.tz)

    @cached_property
    def is_interval(self) -> bool:
        """It goes by what the clock shows, also when it shows it twice."""
        *times, _day, _month, _weekday = self.expression.split()
        return any(field.startswith("*") for field in times)

    def after(self, ms: int, name: str) -> int:  # noqa: ARG002 - `every` needs it
        """Return the first instant later than `ms`, for the schedule of that name."""
        seconds = ms // 1000
        return 1000 * (self._next_shown(seconds) if self.is_interval else self._next_meant(seconds))

    def to_dict(self) -> dict[str, Any]:
        """Give the form in which it is stored; `read_rule` reads it."""
        return {"cron": self.expression, "tz": self.tz}

    def __repr__(self) -> str:
        return f"cron({self.expression!r}, tz={self.tz!r})"

    def _next_meant(self, seconds: int) -> int:
        wall = _local(seconds, self.zone).replace(tzinfo=None)
        return next(due for due in (self._once(wall) for wall in CronSim(self.expression, wall)) if due > seconds)

    def _once(self, wall: datetime) -> int:
        """Say when a wall-clock time comes for the first time, or what it is made up for at."""
        first, second = _both(wall, self.zone)
        return _end_of_gap(second, first, self.zone) if first > second else first

    def _next_shown(self, seconds: int) -> int:
        local = _local(seconds, self.zone)
        wall = local.replace(tzinfo=None)
        due = next(due for due in self._shown(wall) if due > seconds)
        first, second = _both(wall, self.zone)
        if first == seconds < second:  # it will show again what it has shown up to now
            again = self._shown(wall - timedelta(seconds=second - first))
            due = min(due, next(due for due in again if due > seconds))
        return due

    def _shown(self, wall: datetime) -> Iterator[int]:
        """Say when the clock shows the times after `wall`: each the first time, then, if there is one, the second."""
        for time in CronSim(self.expression, wall):
            first, second = _both(time, self.zone)
            if first <= second:
                yield first
            if first < second:
                yield second


@dataclass(frozen=True, repr=False)
class Every:
    """An interval. Made by `every`.

    Attributes:
        interval_ms: from one instant to the next, ms.
        jitter_ms: by at most so much each is later, ms.
    """

    interval_ms: int
    jitter_ms: int = 0
    zone: ClassVar[tzinfo] = UTC

    def after(self, ms: int, name: str) -> int:
        """Return the first instant later than `ms`, for the schedule of that name."""
        number = ms // self.interval_ms
        due = self._instant(number, name)
        return due if due > ms else self._instant(number + 1, name)

    def to_dict(self) -> dict[str, Any]:
        """Give the form in which it is stored; `read_rule` reads it."""
        return {"every": self.interval_ms, "jitter": self.jitter_ms}

    def __repr__(self) -> str:
        jitter = f", jitter={self.jitter_ms / 1000:g}" if self.jitter_ms else ""
        return f"every(seconds={self.interval_ms / 1000:g}{jitter})"

    def _instant(self, number: int, name: str) -> int:
        due = number * self.interval_ms
        if not self.jitter_ms:
            return due
        # Chance that all workers agree on, and that is another for each schedule and each instant.
        chance = int.from_bytes(blake2b(f"{name} {number}".encode(), digest_size=8).digest(), "big")
        return due + chance % (self.jitter_ms + 1)


Rule = Cron | Every


def cron(expression: str, *, tz: str = "UTC") -> Cron:
    """Make a rule of a cron expression: ``cron("*/5 9-17 * * mon-fri", tz="Europe/Berlin")``.

    Args:
        expression: minute, hour, day of the month, month, day of the week; a sixth field before them is the second. As
            in Debian's cron (crontab(5)), with names of days and months; also ``L`` (the last day), ``LW`` (the last
            weekday), ``mon#2`` (the second Monday), ``5L`` (the last Friday).
        tz: the name of a time zone in the IANA database. How its changes of the clock are dealt with is said at the top
            of this module.

    Raises:
        ConfigError: one of them cannot be used, or there is no such time.
    """
    if not isinstance(expression, str):
        raise ConfigError(f"a cron expression is text such as '*/5 * * * *', not {expression!r}")
    try:
        never = next(CronSim(expression, datetime(2000, 1, 1)), None) is None  # noqa: DTZ001 - on the wall
    except (CronSimError, ValueError) as error:
        raise ConfigError(f"cron expression {expression!r} cannot be used: {error}") from None
    if never:
        raise ConfigError(f"cron expression {expression!r} cannot be used: there is no such time")
    try:
        ZoneInfo(tz)
    except (LookupError, OSError, TypeError, ValueError, AttributeError):
        raise ConfigError(f"there is no time zone {tz!r}; they are named as 'Europe/Berlin'") from None
    return Cron(expression, tz)


def every(*, hours: float = 0, minutes: float = 0, seconds: float = 0, jitter: float = 0) -> Every:
    """Make a rule of an interval: ``every(seconds=30, jitter=5)``.

    Its instants are multiples of the interval since 1970 in UTC, whenever it was set up: each half hour is at :00 and
    :30, and 24 hours end at midnight UTC.

    Args:
        hours: of the interval; all three are added.
        minutes: of the interval.
        seconds: of the interval, which has to be 0.1 s at least and 366 days at most.
        jitter: seconds; each instant is later by something from 0 to this, which differs from instant to instant and
            from schedule to schedule, but is the same for all workers. Less than the interval.

    Raises:
        ConfigError: one of them cannot be used.
    """
    for name, value in {"hours": hours, "minutes": minutes, "seconds": seconds, "jitter": jitter}.items():
        if not is_number(value) or not 0 <= value < float("inf"):
            raise ConfigError(f"{name} of every() must be a number of 0 or more, not {value!r}")
    interval_ms, jitter_ms = round(1000 * (3600 * hours + 60 * minutes + seconds)), round(1000 * jitter)
    if not _LEAST_MS <= interval_ms <= _MOST_MS:
        raise ConfigError(
            f"the interval of every() must be 0.1 seconds to 366 days, not {interval_ms / 1000:g} seconds"
        )
    if jitter_ms >= interval_ms:
        raise ConfigError(f"the jitter of every() must be less than the interval of {interval_ms / 1000:g} seconds")
    return Every(interval_ms, jitter_ms)


def read_rule(stored: Any) -> Rule:
    """Read what `to_dict` has given.

    Raises:
        ValueError: it is no rule that this version knows.
    """
    match stored:
        case {"cron": str(expression), "tz": str(tz)}:
            return _known_cron(expression, tz)
        case {"every": int(interval_ms), "jitter": int(jitter_ms)} if 0 <= jitter_ms < interval_ms:
            return Every(interval_ms, jitter_ms)
    raise ValueError(f"no rule: {stored!r}")


@lru_cache(maxsize=1024)
def _known_cron(expression: str, tz: str) -> Cron:
    try:
        return cron(expression, tz=tz)
    except ConfigError as error:
        raise ValueError(str(error)) from None


def _local(seconds: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(seconds, zone)


def _both(wall: datetime, zone: tzinfo) -> tuple[int, int]:
    """Say when a clock shows `wall`, the first and the second time: mostly that is the same instant.

    In a gap the second is before the first (PEP 495), and it is shown at neither.
    """
    first, second = (int(wall.replace(tzinfo=zone, fold=fold).timestamp()) for fold in (0, 1))
    return first, second


def _end_of_gap(before: int, after: int, zone: tzinfo) -> int:
    """Find the change of the clock between two instants."""
    offset = _local(after, zone).utcoffset()
    while after - before > 1:
        middle = (before + after) // 2
        if _local(middle, zone).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after
