"""What of a schedule's instants is fired, what is stored of it, and what the decorator takes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

import streamq
from streamq import Context, StreamQ, by, cron, every
from streamq.config import check_task_id
from streamq.context import context_of
from streamq.errors import ConfigError
from streamq.message import Delivery, Lock, Message, Terms
from streamq.schedule.plan import (
    Definition,
    check_schedule_name,
    declared,
    message_id,
    plan,
    read_definition,
)

SECOND, MINUTE = 1000, 60_000
EACH_MINUTE = Definition("shop.count", every(minutes=1), "one", b"[]")


def policy(missed, rule=EACH_MINUTE.rule, args=b"[]"):
    return replace(EACH_MINUTE, missed=missed, rule=rule, args=args)


# ---- what is fired


@pytest.mark.parametrize("missed", ["skip", "one", "all"])
def test_an_instant_that_has_just_come(missed):
    assert plan("x", policy(missed), MINUTE, MINUTE + 5) == ([MINUTE], 2 * MINUTE)


@pytest.mark.parametrize(
    ("missed", "instants"),
    [("skip", [9 * MINUTE]), ("one", [9 * MINUTE]), ("all", [n * MINUTE for n in range(3, 10)])],
)
def test_several_have_come_since_a_worker_looked(missed, instants):
    assert plan("x", policy(missed), 3 * MINUTE, 10 * MINUTE - 1) == (instants, 10 * MINUTE)


@pytest.mark.parametrize(("late", "instants"), [(60 * SECOND, [24 * 60 * MINUTE]), (60 * SECOND + 1, [])])
def test_an_instant_that_was_missed_for_a_minute_can_be_skipped(late, instants):
    day = 24 * 60 * MINUTE
    daily = cron("0 0 * * *")
    assert plan("x", policy("skip", daily), day, day + late) == (instants, 2 * day)
    assert plan("x", policy("one", daily), day, day + late) == ([day], 2 * day)


def test_all_are_made_up_for_in_steps():
    """Each goes on where the one before has ended."""
    due, found = MINUTE, []
    while due <= 600 * MINUTE:
        instants, due = plan("x", policy("all"), due, 600 * MINUTE)
        assert len(instants) <= 250
        found += instants
    assert found == [n * MINUTE for n in range(1, 601)]
    assert due == 601 * MINUTE


def test_large_arguments_make_small_steps():
    """A script with hundreds of them would take its time."""
    instants, _ = plan("x", policy("all", args=b'["%b"]' % (b"x" * 400_000)), MINUTE, 600 * MINUTE)
    assert len(instants) == 2
    instants, _ = plan("x", policy("all", args=b'["%b"]' % (b"x" * 4_000_000)), MINUTE, 600 * MINUTE)
    assert len(instants) == 1


@pytest.mark.parametrize(
    "rule",
    [every(seconds=0.1), every(seconds=7, jitter=6), cron("* * * * * *"), cron("30 2 * * *", tz="Europe/Berlin")],
    ids=str,
)
def test_after_years_the_last_one_is_found_at_once(rule):
    """Without looking at the millions between."""
    now = round(datetime(2026, 3, 29, 12, tzinfo=UTC).timestamp() * 1000)
    ([last], after) = plan("x", policy("one", rule), rule.after(0, "x"), now)
    assert last <= now < after
    assert rule.after(last - 1, "x") == last
    assert rule.after(last, "x") == after


# ---- ids


@pytest.mark.parametrize(
    ("ms", "text"),
    [(1_795_428_000_000, "2026-11-23T10:00:00Z"), (1_795_428_000_200, "2026-11-23T10:00:00.200Z")],
)
def test_the_id_says_the_schedule_and_the_instant(ms, text):
    assert message_id("nightly", ms) == f"schedule:nightly:{text}"


def test_the_longest_name_makes_an_id_that_can_be_used():
    name = check_schedule_name("~" * 128)
    assert check_task_id(message_id(name, 1_795_428_000_200))


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ü", "x" * 129, None, 5, "a\n"])
def test_a_name_that_cannot_be_used(name):
    with pytest.raises(ConfigError, match="schedule name"):
        check_schedule_name(name)


# ---- what is stored


@pytest.mark.parametrize(
    "definition",
    [
        EACH_MINUTE,
        replace(EACH_MINUTE, terms=Terms()),
        replace(EACH_MINUTE, terms=Terms(Lock("shop.count:x", "running", 60_000, longest_ms=5))),
        Definition("a", cron("0 9 * * *", tz="Asia/Tokyo"), "all", '["ü",1]'.encode(), b'{"level":3}'),
    ],
)
def test_a_definition_is_what_was_stored_of_it(definition):
    assert read_definition(definition.encode()) == definition


def test_what_a_newer_version_adds_is_passed_over():
    stored = json.loads(EACH_MINUTE.encode()) | {"colour": "red"}
    assert read_definition(json.dumps(stored).encode()) == EACH_MINUTE


@pytest.mark.parametrize(
    "change",
    [
        *({"rule": {"lunar": 1}}, {"missed": "some"}, {"args": None}, {"task": 5}),
        *({"terms": {"moon": "full", "lock": None}}, {"terms": {"lock": {"name": "x"}}}, {"terms": {}}),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_an_error(change):
    stored = json.loads(EACH_MINUTE.encode()) | change
    with pytest.raises(ValueError, match=r"no rule|no schedule|no terms"):
        read_definition(json.dumps(stored).encode())


@pytest.mark.parametrize("stored", [b"", b"x", b"[]", b"\xff"])
def test_what_is_no_definition_is_an_error(stored):
    with pytest.raises(ValueError):  # noqa: PT011 - what it says comes from the parts
        read_definition(stored)


def test_a_message_keeps_what_its_call_says_and_has_its_instant():
    definition = replace(EACH_MINUTE, options=b'{"level":3}')
    message = definition.message("x", "q", 5)
    assert message == Message(
        "schedule:x:1970-01-01T00:00:00.005Z", "shop.count", "q", b"[]", options=b'{"level":3,"scheduled_ms":5}'
    )


def test_a_task_knows_for_which_instant_it_is():
    def scheduled_for(message: Message) -> datetime | None:
        return context_of(Delivery(message, "", b"", 0, 1), None).scheduled_for

    assert scheduled_for(EACH_MINUTE.message("x", "q", 1500)) == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    assert scheduled_for(Message("1", "shop.count", "q", b"[]")) is None
    assert scheduled_for(Message("1", "shop.count", "q", b"[]", options=b'{"level":3}')) is None


# ---- what the decorator takes


@pytest.fixture
def app():
    return StreamQ("redis://localhost:1/0")


def test_a_task_can_have_several_schedules(app):
    """The first is named as the task, the others with a number."""
    rules = [every(minutes=1), cron("0 9 * * *")]

    @app.task(name="shop.count", schedule=rules, missed="skip")
    def count(limit: int = 5) -> None: ...

    call = count.s().message
    assert declared("shop.count", count.options.schedule, count.options.missed, call) == {
        "shop.count": Definition("shop.count", rules[0], "skip", call.args),
        "shop.count#2": Definition("shop.count", rules[1], "skip", call.args),
    }


def test_a_bound_task_needs_no_more_than_its_context(app):
    @app.task(schedule=every(minutes=1), bind=True)
    async def count(context: Context) -> None: ...

    assert count.options.schedule == (every(minutes=1),)


def test_a_shared_task_can_have_a_schedule(monkeypatch):
    """Also before there is an app."""
    monkeypatch.setattr("streamq.latest._current", [])
    monkeypatch.setattr("streamq.decorator.task._registry", streamq.decorator.Registry())

    @streamq.task(schedule=every(minutes=1))
    def count() -> None: ...

    assert count.options.schedule == (every(minutes=1),)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"schedule": "* * * * *"}, "made by cron"),
        ({"schedule": 30}, "made by cron"),
        ({"schedule": [every(minutes=1), None]}, "made by cron"),
        ({"schedule": [every(minutes=1), every(seconds=60)]}, "twice"),
        ({"schedule": every(minutes=1), "missed": "some"}, "missed must be one of skip, one, all"),
        ({"schedule": every(minutes=1), "debounce": by(seconds=5)}, "no task_id, countdown, eta or debounce"),
        ({"schedule": every(minutes=1), "name": "zähle"}, "schedule name 'zähle'"),
    ],
)
def test_a_schedule_that_cannot_be_used(app, options, why):
    with pytest.raises(ConfigError, match=why):

        @app.task(**options)
        def count() -> None: ...

    assert not app.tasks


def test_a_task_that_needs_arguments_cannot_have_a_schedule(app):
    """Such a call is added at run time, with its arguments."""
    with pytest.raises(ConfigError, match=r"a schedule calls it without arguments, but .*limit"):

        @app.task(schedule=every(minutes=1))
        def count(limit: int) -> None: ...
