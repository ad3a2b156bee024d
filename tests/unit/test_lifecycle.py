"""What follows from each outcome of a run."""

from __future__ import annotations

from typing import get_args

import pytest

from streamq.lifecycle import (
    Abandoned,
    Bury,
    Complete,
    Died,
    Expired,
    Failed,
    FailedForNow,
    Outcome,
    Park,
    Rejected,
    Release,
    State,
    Succeeded,
    Unroutable,
    decide,
    is_suspect,
)
from streamq.message import Delivery, Message

NOW = 1_700_000_000_000
HOUR = 3600 * 1000
DAY = 24 * HOUR


def delivery(*, fence: int = 0, age_ms: int = 0) -> Delivery:
    return Delivery(Message("1", "shop.buy", "q", b"[]"), "sq:{q}:stream:5", b"1-1", fence, NOW - age_ms)


@pytest.mark.parametrize(
    ("outcome", "step"),
    [
        (Succeeded(b"1"), Complete(State.SUCCEEDED, b"1")),
        (Failed(b"{}"), Complete(State.FAILED, b"{}")),
        (FailedForNow(b"{}", 2.5), Park(2.5, "retry", 2, b"{}")),
        (Expired(b"{}"), Complete(State.EXPIRED, b"{}")),
        (Rejected(b"{}", "no tea"), Bury(b"{}", "no tea")),
        (Unroutable(b"{}", "unknown task"), Park(1.0, "unknown task", 1)),
        (Abandoned(), Release()),
        (Died("signal SIGKILL"), Release("signal SIGKILL")),
    ],
)
def test_each_outcome_leads_to_one_step(outcome, step):
    assert decide(outcome, delivery(), NOW, DAY) == step


def test_every_outcome_is_decided():
    """A new kind of outcome cannot be forgotten."""
    for kind in get_args(Outcome):
        outcome = kind(*[b"{}"] * len(kind.__dataclass_fields__))
        assert decide(outcome, delivery(), NOW, DAY) is not None


def test_an_unknown_task_waits_ever_longer():
    """A worker that knows it may be on its way; the pauses double up to a minute."""
    pauses = [
        decide(Unroutable(b"{}", "why"), delivery(fence=fence), NOW, DAY).seconds
        for fence in (0, 1, 2, 5, 6, 7, 10_000)
    ]
    assert pauses == [1, 2, 4, 32, 60, 60, 60]


def test_a_task_that_stays_unknown_is_buried_after_a_day():
    """However often it was handed over in that day."""
    assert isinstance(decide(Unroutable(b"{}", "why"), delivery(fence=2000, age_ms=23 * HOUR), NOW, DAY), Park)
    assert decide(Unroutable(b"{}", "why"), delivery(age_ms=25 * HOUR), NOW, DAY) == Bury(b"{}", "why")


@pytest.mark.parametrize("off_ms", [-HOUR, HOUR])
def test_a_clock_that_is_an_hour_off_buries_nothing(off_ms):
    """That of the worker's host may differ from that of Redis, which dates the messages."""
    step = decide(Unroutable(b"{}", "why"), delivery(), NOW + off_ms, DAY)
    assert step == Park(1.0, "why", 1)


@pytest.mark.parametrize(
    ("deaths", "most", "suspect"), [(0, 3, 0), (1, 3, 0), (2, 3, 1), (9, 3, 1), (1, 2, 1), (1, 1, 0)]
)
def test_who_is_suspect(deaths, most, suspect):
    """The next death is the last."""
    assert is_suspect(deaths, most) == suspect


def test_states_that_are_the_end():
    ends = {State.SUCCEEDED, State.FAILED, State.DEAD, State.CANCELLED, State.EXPIRED, State.SKIPPED}
    assert {state for state in State if state.ended} == ends
