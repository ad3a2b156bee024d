"""What follows from each outcome of a run."""

from __future__ import annotations

from typing import get_args

import pytest

from streamq.lifecycle import (
    Abandoned,
    Bury,
    Complete,
    Died,
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


def test_states_that_are_the_end():
    assert {state for state in State if state.ended} == {State.SUCCEEDED, State.FAILED, State.DEAD}
