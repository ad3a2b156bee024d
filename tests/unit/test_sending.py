"""What of an enqueue travels with its message."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from streamq.errors import ConfigError
from streamq.nodes import FlowPart
from streamq.sending import Steering, delay_of, expiry_of, read_steering, with_flow

WRONG = (
    b'{"headers":{"x":1}}',
    b'{"headers":[]}',
    b'{"flow":{}}',
    b'{"flow":7}',
    b'{"flow":{"home":"q","parents":7}}',
    b'{"flow":{"home":"q","parents":[[1,2]]}}',
    b'{"flow":{"home":"q","next":[[1]]}}',
)
NOON = datetime(2031, 5, 1, 12, tzinfo=UTC)
NOON_MS = 1_935_403_200_000


def test_a_call_without_options_says_nothing():
    """Most messages have none, and are not made longer by it."""
    assert Steering().encode() == b""
    assert read_steering(b"") == Steering()


@pytest.mark.parametrize(
    "steering",
    [
        Steering(level=0),
        Steering(expires_ms=1_700_000_000_000),
        Steering(scheduled_ms=1_700_000_000_000),
        Steering(expires_after_ms=1500),
        Steering(ordering_key="Kunde 7", fairness_key="ü"),
        Steering(limits=(("mail", "a:b", 1.5), ("llm", "", 2000.0))),
        Steering(headers={"trace": "ü", "": ""}),
        Steering(flow=FlowPart(home="q")),
        Steering(
            level=3,
            flow=FlowPart(
                home="q", root="r", parents=(3, (5, 9, 2)), children=(1, 2), next=((1, 5), (2, 9)), group="collect"
            ),
        ),
    ],
)
def test_what_is_said_arrives(steering):
    """A worker reads what the caller wrote."""
    assert read_steering(steering.encode()) == steering


def test_what_a_newer_version_says_is_passed_over():
    """In a rolling deployment new callers reach old workers."""
    assert read_steering(b'{"level":3,"colour":"red"}') == Steering(level=3)
    assert read_steering(b'{"flow":{"home":"q","colour":"red"}}') == Steering(flow=FlowPart(home="q"))


@pytest.mark.parametrize("options", [b"{", b"[]", b"7", b"\xff", b'{"limits":[["x"]]}', *WRONG])
def test_what_cannot_be_read_is_an_error(options):
    """It is one kind of error, whatever was written."""
    with pytest.raises(ValueError):  # noqa: PT011 - what it says comes from the parts
        read_steering(options)


@pytest.mark.parametrize(
    ("countdown", "delay_ms"),
    [
        (None, 0),
        (0, 0),
        (1.5, 1500),
        (0.1, 100),
        (0.0001, 1),
        (1.0001, 1001),
        (0.29, 290),
        (10 * 365 * 86400, 315360000000),
    ],
)
def test_a_countdown_is_never_cut_short(countdown, delay_ms):
    """What is less than a ms counts as one, and what a float lacks is no such part."""
    assert delay_of(countdown, None) == delay_ms


@pytest.mark.parametrize(
    "eta",
    [
        NOON,
        datetime(2031, 5, 1, 14, tzinfo=ZoneInfo("Europe/Berlin")),
        NOON - timedelta(microseconds=1),
        NOON - timedelta(microseconds=999),
    ],
)
def test_a_moment_is_the_same_in_every_time_zone(eta):
    """And is rounded up to the next ms."""
    assert delay_of(None, eta) == -NOON_MS


def test_a_moment_long_ago_is_still_a_moment():
    assert delay_of(None, datetime(1, 1, 1, tzinfo=UTC)) == -1


@pytest.mark.parametrize("refuse", [lambda moment: delay_of(None, moment), expiry_of])
def test_a_naive_datetime_is_refused(refuse):
    """It would be another moment on each machine; the error says what to write."""
    with pytest.raises(ConfigError, match=r"no time zone.*datetime\.now\(UTC\)"):
        refuse(NOON.replace(tzinfo=None))


@pytest.mark.parametrize("eta", ["tomorrow", 5, NOON.date()])
def test_an_eta_that_is_no_datetime(eta):
    with pytest.raises(ConfigError, match="eta must be a datetime"):
        delay_of(None, eta)


def test_a_countdown_and_an_eta_contradict_each_other():
    with pytest.raises(ConfigError, match="not both"):
        delay_of(1, NOON)


@pytest.mark.parametrize("expires", [-1, math.nan, math.inf, "5", True, 200 * 365.25 * 86400])
def test_what_cannot_be_an_expiry(expires):
    with pytest.raises(ConfigError, match="expires must be 0 or more seconds or a datetime"):
        expiry_of(expires)


@pytest.mark.parametrize(
    ("expires", "enqueued_ms", "at"),
    [(None, 1000, math.inf), (1.5, 1000, 2500), (0, 1000, 1001), (NOON, 1000, NOON_MS), (NOON, NOON_MS + 1, NOON_MS)],
)
def test_when_a_message_expires(expires, enqueued_ms, at):
    """Seconds count from the first enqueue on, by the same clock."""
    assert expiry_of(expires).expires_at(enqueued_ms) == at


def test_of_two_expiries_the_first_counts():
    assert Steering(expires_ms=5000, expires_after_ms=1000).expires_at(100) == 1100


@pytest.mark.parametrize("steering", [Steering(), Steering(level=3, headers={"a": "b"})])
def test_the_place_in_a_flow_is_added_to_what_is_said(steering):
    part = FlowPart(home="q", parents=(1,))
    assert read_steering(with_flow(steering.encode(), part)) == replace(steering, flow=part)
