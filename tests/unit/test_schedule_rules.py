"""When a schedule is due: cron expressions over changes of the clock, and intervals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from streamq.errors import ConfigError
from streamq.schedule.rules import Cron, cron, every, read_rule
from tests.transitions import INTERVALS, MINUTE, WALL_CLOCK, crossings, instants_meant, instants_shown

HOUR = 60 * MINUTE


def ms(text: str) -> int:
    """Read an instant such as ``2026-03-29T01:00Z``."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def fired(rule: Cron, first: str, last: str) -> list[str]:
    """List the instants of a rule in a span of time, both ends included, as text in UTC."""
    found, now = [], ms(first) - 1
    while (now := rule.after(now, "x")) <= ms(last):
        found.append(datetime.fromtimestamp(now / 1000, UTC).strftime("%dT%H:%M"))
    return found


def test_a_cron_expression_goes_by_the_clock_of_its_zone():
    """Nine in Berlin is eight in winter and seven in summer, UTC."""
    rule = cron("0 9 * * mon-fri", tz="Europe/Berlin")
    assert fired(rule, "2026-03-26T00:00Z", "2026-03-31T23:00Z") == ["26T08:00", "27T08:00", "30T07:00", "31T07:00"]


def test_what_a_gap_leaves_out_is_made_up_for_at_its_end():
    """In Berlin on 29 March 2026 there is no 2:30; it is three o'clock then."""
    rule = cron("30 2 * * *", tz="Europe/Berlin")
    assert fired(rule, "2026-03-28T00:00Z", "2026-03-30T12:00Z") == ["28T01:30", "29T01:00", "30T00:30"]


@pytest.mark.parametrize("expression", ["0,15,30 2 * * *", "0 2,3 * * *"])
def test_what_a_gap_leaves_out_is_made_up_for_once(expression):
    """If several times were left out, or one of its times is at its end, that is one instant."""
    rule = cron(expression, tz="Europe/Berlin")
    assert fired(rule, "2026-03-29T00:00Z", "2026-03-29T12:00Z") == ["29T01:00"]


def test_what_a_fold_repeats_is_due_the_first_time():
    """In Berlin on 25 October 2026 it is 2:30 twice."""
    rule = cron("30 2 * * *", tz="Europe/Berlin")
    assert fired(rule, "2026-10-24T12:00Z", "2026-10-26T12:00Z") == ["25T00:30", "26T01:30"]


def test_an_interval_goes_on_in_a_gap_and_in_a_fold():
    rule = cron("*/30 * * * *", tz="Europe/Berlin")
    assert fired(rule, "2026-03-29T00:30Z", "2026-03-29T01:30Z") == ["29T00:30", "29T01:00", "29T01:30"]
    assert fired(rule, "2026-10-25T00:00Z", "2026-10-25T02:00Z") == [
        *("25T00:00", "25T00:30", "25T01:00", "25T01:30", "25T02:00")
    ]


def test_an_interval_of_some_hours_is_due_whenever_the_clock_shows_them():
    """Not at all in a gap, twice in a fold; once the first time has passed, the second one is still to come."""
    rule = cron("*/30 2 * * *", tz="Europe/Berlin")
    assert fired(rule, "2026-03-29T00:00Z", "2026-03-29T12:00Z") == []
    twice = ["25T00:00", "25T00:30", "25T01:00", "25T01:30"]
    assert fired(rule, "2026-10-25T00:00Z", "2026-10-25T12:00Z") == twice
    assert fired(rule, "2026-10-25T00:45Z", "2026-10-25T12:00Z") == twice[2:]


def test_a_clock_that_moves_by_half_an_hour_loses_nothing():
    """On Lord Howe on 5 April 2026 it is 1:30 to 2:00 twice, and then 2:00, 2:15, 2:30, 2:45."""
    rule = cron("*/15 2 * * *", tz="Australia/Lord_Howe")
    assert fired(rule, "2026-04-04T12:00Z", "2026-04-04T20:00Z") == ["04T15:30", "04T15:45", "04T16:00", "04T16:15"]


def test_a_day_that_a_zone_leaves_out():
    """There was no 30 December 2011 in Samoa; its noon is made up for at the beginning of the 31st."""
    rule = cron("0 12 * * *", tz="Pacific/Apia")
    assert fired(rule, "2011-12-29T00:00Z", "2011-12-31T12:00Z") == ["29T22:00", "30T10:00", "30T22:00"]


def test_a_sixth_field_is_the_second():
    rule = cron("*/20 30 2 * * *", tz="UTC")
    instants = [rule.after(ms("2026-01-01T02:30Z") - 1, "x")]
    for _ in range(3):
        instants.append(rule.after(instants[-1], "x"))
    assert [b - a for a, b in pairwise(instants)] == [20_000, 20_000, 24 * HOUR - 40_000]


def test_a_cron_instant_is_later_than_the_time_given():
    """By a millisecond or more; also if that lies within a second."""
    rule = cron("* * * * * *")
    assert [rule.after(now, "x") for now in (0, 1, 999, 1000)] == [1000, 1000, 1000, 2000]


@pytest.mark.parametrize("year", [2011, 2018, 2037])
@pytest.mark.parametrize(
    ("expression", "listed"),
    [*dict.fromkeys(INTERVALS, instants_shown).items(), *dict.fromkeys(WALL_CLOCK, instants_meant).items()],
)
def test_none_is_left_out_and_none_is_due_twice(year, expression, listed):
    """Each minute around each change of the clock in some zones is looked at."""
    fits = {**INTERVALS, **WALL_CLOCK}[expression]
    for crossing in crossings((year,)):
        assert crossing.instants(cron(expression, tz=crossing.zone)) == listed(crossing, fits), crossing


def test_the_transitions_that_are_looked_at_are_those_of_the_zones():
    """Twice a year in Berlin; the oracles would otherwise agree on nothing."""
    found = [crossing for crossing in crossings((2026,)) if crossing.zone == "Europe/Berlin"]
    zone = ZoneInfo("Europe/Berlin")
    offsets = [
        [datetime.fromtimestamp(one.moment + by, zone).utcoffset() / timedelta(hours=1) for by in (-1, 0)]
        for one in found
    ]
    assert offsets == [[1, 2], [2, 1]]


# ---- intervals


def test_an_interval_is_a_multiple_since_1970():
    assert every(seconds=30).after(ms("2026-01-01T10:00:10Z"), "x") == ms("2026-01-01T10:00:30Z")
    assert every(minutes=5).after(ms("2026-01-01T10:05Z"), "x") == ms("2026-01-01T10:10Z")
    assert every(hours=24).after(ms("2026-01-01T10:05Z"), "x") == ms("2026-01-02T00:00Z")
    assert every(hours=1, minutes=30).interval_ms == 90 * MINUTE


def test_jitter_is_chance_on_which_all_agree():
    """Each instant is later by up to so much, whoever computes it from whatever moment; none is left out."""
    rule, now, found = every(seconds=30, jitter=29.9), 0, []
    for number in range(200):
        found.append(rule.after(now, "x"))
        now = found[-1] if number % 2 else found[-1] + 1
    assert [instant // 30_000 for instant in found] == list(range(found[0] // 30_000, found[0] // 30_000 + 200))
    late = [instant % 30_000 for instant in found]
    assert max(late) > 25_000
    assert min(late) < 5_000
    assert [rule.after(instant - 1, "x") for instant in found] == found
    assert [rule.after(instant - 1, "y") for instant in found] != found


# ---- what is written and read


@pytest.mark.parametrize(
    "rule",
    [cron("*/5 9-17 * * mon-fri", tz="Europe/Berlin"), cron("0 0 1 1 *"), every(seconds=30, jitter=5), every(hours=1)],
    ids=str,
)
def test_a_rule_is_what_was_stored_of_it(rule):
    assert read_rule(rule.to_dict()) == rule
    assert eval(repr(rule), {"cron": cron, "every": every}) == rule  # noqa: S307 - as people read it


@pytest.mark.parametrize(
    "stored",
    [
        *(None, {}, [], {"cron": "x", "tz": "UTC"}, {"cron": "* * * * *", "tz": "Nowhere"}),
        *({"every": 0, "jitter": 0}, {"every": 5, "jitter": 5}, {"every": "5", "jitter": 1}, {"sometimes": 1}),
    ],
    ids=str,
)
def test_what_is_no_rule_is_not_read(stored):
    with pytest.raises(ValueError, match=r"no rule|cannot be used|no time zone"):
        read_rule(stored)


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("", "Wrong number of fields"),
        ("* * * *", "Wrong number of fields"),
        ("60 * * * *", "Bad minute"),
        ("*/0 * * * *", "Bad minute"),
        ("0 0 30 2 *", "Bad day-of-month"),
        ("0 0 * * someday", "Bad day-of-week"),
        (5, "is text such as"),
    ],
)
def test_an_expression_that_cannot_be_used(expression, why):
    with pytest.raises(ConfigError, match=why):
        cron(expression)


@pytest.mark.parametrize("tz", ["Nowhere/City", "", "/etc/localtime", "..", None, 1, "Europe"])
def test_a_zone_that_is_not_there(tz):
    with pytest.raises(ConfigError, match="there is no time zone"):
        cron("* * * * *", tz=tz)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "0.1 seconds to 366 days, not 0 seconds"),
        ({"seconds": 0.05}, "not 0.05 seconds"),
        ({"hours": 9000}, "366 days"),
        ({"seconds": -1, "hours": 1}, "seconds of every"),
        ({"seconds": True}, "seconds of every"),
        ({"minutes": "5"}, "minutes of every"),
        ({"seconds": float("nan")}, "seconds of every"),
        ({"seconds": 30, "jitter": 30}, "less than the interval of 30 seconds"),
        ({"seconds": 30, "jitter": -1}, "jitter of every"),
    ],
    ids=str,
)
def test_an_interval_that_cannot_be_used(options, why):
    with pytest.raises(ConfigError, match=why):
        every(**options)
