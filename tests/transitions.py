"""Changes of the clock in several zones, and, minute by minute, what a schedule has to make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from streamq.schedule.rules import Cron

MINUTE = 60_000  # ms
# Whole hours on both hemispheres, half an hour, changes at midnight, several in a year (Ramadan), a day left out, none.
ZONES = (
    *("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo"),
    *("America/Havana", "Africa/Casablanca", "Antarctica/Troll", "Pacific/Apia", "UTC"),
)
_AROUND = 3 * 3600  # seconds before and after a change that are looked at


@dataclass(frozen=True)
class Crossing:
    """The hours around a change of the clock; `moment` is the first second after it."""

    zone: str
    moment: int

    def __str__(self) -> str:
        return f"{self.zone}-{datetime.fromtimestamp(self.moment, UTC):%Y-%m-%d}"

    @property
    def span(self) -> range:
        """The minutes that are looked at, all but the first, seconds since 1970."""
        return range(self.moment - _AROUND, self.moment + _AROUND, 60)

    def instants(self, rule: Cron) -> list[int]:
        """List what a rule gives there, each from the one before."""
        found, now = [], 1000 * self.span.start
        while (now := rule.after(now, "x")) < 1000 * self.span.stop:
            found.append(now)
        return found


@lru_cache
def _transitions(zone: str, year: int) -> tuple[int, ...]:
    there = ZoneInfo(zone)
    first, last = (round(datetime(one, 1, 1, tzinfo=UTC).timestamp()) for one in (year, year + 1))
    found = []
    for day in range(first, last, 24 * 3600):
        before, after = day, day + 24 * 3600
        if _offset(before, there) != _offset(after, there):
            while after - before > 1:
                middle = (before + after) // 2
                before, after = (
                    (middle, after) if _offset(middle, there) == _offset(before, there) else (before, middle)
                )
            found.append(after)
    return tuple(found)


def _offset(seconds: int, zone: ZoneInfo) -> timedelta | None:
    return datetime.fromtimestamp(seconds, zone).utcoffset()


def crossings(years: Iterable[int]) -> Iterator[Crossing]:
    """Give the changes of the clock of all zones in some years; for a zone that has none, a New Year."""
    for year in years:
        for zone in ZONES:
            moments = _transitions(zone, year) or (round(datetime(year, 1, 1, tzinfo=UTC).timestamp()),)
            yield from (Crossing(zone, moment) for moment in moments)


# Expressions, and what they mean, said without them.
INTERVALS: dict[str, Callable[[datetime], bool]] = {
    "*/30 * * * *": lambda wall: wall.minute % 30 == 0,
    "*/20 0-2 * * *": lambda wall: wall.minute % 20 == 0 and wall.hour <= 2,
}
WALL_CLOCK: dict[str, Callable[[datetime], bool]] = {
    "0,30 0-4 * * *": lambda wall: wall.minute in {0, 30} and wall.hour <= 4,
}


def instants_shown(crossing: Crossing, fits: Callable[[datetime], bool]) -> list[int]:
    """List each minute of real time at which the clock shows what is meant."""
    _, *walls = _walls(crossing)
    return [1000 * moment for moment, wall in walls if fits(wall)]


def instants_meant(crossing: Crossing, fits: Callable[[datetime], bool]) -> list[int]:
    """List each minute at which the clock first shows what is meant, or something later."""
    found = []
    (_, latest), *walls = _walls(crossing)
    for moment, wall in walls:
        new = int((wall - latest) / timedelta(minutes=1))
        if any(fits(wall - timedelta(minutes=back)) for back in range(new)):
            found.append(1000 * moment)
        latest = max(latest, wall)
    return found


def _walls(crossing: Crossing) -> Iterator[tuple[int, datetime]]:
    zone = ZoneInfo(crossing.zone)
    for moment in crossing.span:
        yield moment, datetime.fromtimestamp(moment, zone).replace(tzinfo=None, fold=0)
