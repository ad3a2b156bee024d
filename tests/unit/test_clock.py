"""What is dated by Redis is judged by the time that Redis has."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tenacity import stop_after_delay

from streamq import Retry, StreamQ
from streamq.lifecycle import FailedForNow, Rejected
from streamq.message import Delivery, Message
from streamq.worker import clock, outcomes

HOUR_MS = 3_600_000


@pytest.fixture
def set_clock() -> Iterator[None]:
    yield clock.set_offset
    clock.set_offset(0)


@pytest.mark.parametrize("ahead_ms", [0, HOUR_MS, -HOUR_MS])
def test_a_host_whose_clock_is_wrong_does_not_give_up_early(app: StreamQ, set_clock, ahead_ms):
    """The first attempt was possible a second ago, by the clock of Redis."""
    set_clock(ahead_ms)
    assert isinstance(fail_after(app, ahead_ms, 1_000), FailedForNow)


def test_after_its_delay_a_policy_gives_up(app: StreamQ, set_clock):
    set_clock(HOUR_MS)
    assert isinstance(fail_after(app, HOUR_MS, 120_000), Rejected)


def fail_after(app: StreamQ, ahead_ms: int, milliseconds: int):
    @app.task(retry=Retry(stop=stop_after_delay(60)))
    def fail() -> None: ...

    since = time.time_ns() // 1_000_000 + ahead_ms - milliseconds
    delivery = Delivery(Message("1", fail.name, "q", b"[]"), "s", b"1-1", 0, since, since_ms=since)
    return outcomes.failed(fail, delivery, ValueError("no tea"))
