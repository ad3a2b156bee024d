"""What a worker makes of the times that its messages have, and when it looks for those that are due."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator

import pytest

from streamq.broker.calls import Due
from streamq.lifecycle import Expired, Rejected
from streamq.message import Delivery, Message
from streamq.worker import heeding, promoter
from streamq.worker.heeding import expiry, heed
from streamq.worker.holdings import Run
from streamq.worker.outage import Outage
from streamq.worker.promoter import Promoter

NOW = 1_700_000_000_000


@pytest.fixture(autouse=True)
def _clock(monkeypatch):
    monkeypatch.setattr(heeding, "now_ms", lambda: NOW)


def run_with(options: bytes, age_ms: int = 0) -> Run:
    return Run(Delivery(Message("1", "shop.buy", "q", b"[]", options=options), "s", b"1-1", 0, NOW - age_ms), None)


@pytest.mark.parametrize(
    ("options", "age_ms", "too_late"),
    [
        (b'{"level":3}', 10**9, False),
        (b'{"expires_ms":%d}' % (NOW + 1), 10**9, False),
        (b'{"expires_ms":%d}' % NOW, 0, True),
        (b'{"expires_after_ms":1000}', 999, False),
        (b'{"expires_after_ms":1000}', 1000, True),
    ],
)
def test_a_run_begins_before_its_message_expires(options, age_ms, too_late):
    """At the moment itself it is too late."""
    run = run_with(options, age_ms)
    outcome = heed(run)
    assert isinstance(outcome, Expired) == too_late
    assert expiry(run) == outcome
    if too_late:
        stored = json.loads(outcome.error)
        assert stored["type"] == "streamq.errors.TaskExpired"
        assert stored["message"].startswith("it had not begun by 2023-11-14T22:13:2")


def test_without_an_expiry_it_may_begin_at_any_time():
    run = run_with(b'{"level":3}')
    assert heed(run) is None
    assert run.expires_ms == math.inf


@pytest.mark.parametrize(
    "options",
    [b"no json", b"[]", b'{"expires_ms":"5"}', b'{"expires_ms":-1}', b'{"expires_after_ms":NaN}', b'{"limits":7}'],
)
def test_options_that_cannot_be_read_are_for_a_human(options):
    """Nobody knows how such a message is to be run, so it goes to the dead letters."""
    outcome = heed(run_with(options))
    assert isinstance(outcome, Rejected)
    assert "options cannot be read" in outcome.reason
    assert json.loads(outcome.error)["message"] == outcome.reason


# ---- the promoter


class Looks:
    """A fleet that has nothing due, and notes when it is asked."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.meanwhile = lambda: None

    async def promote(self, *_: object) -> Due:
        self.times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)
        self.meanwhile()
        return Due([], None, [], paused=False, moving=False, outbox=False, rooms=[])


@pytest.fixture
def only_when_told(monkeypatch):
    """Have promoters that do not look again by themselves."""
    monkeypatch.setattr(promoter, "_LONGEST_SECONDS", 1000.0)


@contextlib.asynccontextmanager
async def looking() -> AsyncIterator[Looks]:
    looks = Looks()
    looks.promoter = Promoter(looks, ["q"], Outage())
    running = asyncio.create_task(looks.promoter.run())
    try:
        await looked(looks, 1)
        yield looks
    finally:
        running.cancel()
        await asyncio.wait([running])


async def looked(looks: Looks, times: int) -> None:
    async with asyncio.timeout(5):
        while len(looks.times) < times:  # noqa: ASYNC110 - it makes no sound
            await asyncio.sleep(0)


async def test_a_promoter_that_is_told_looks_then(only_when_told):
    """As soon as the first of all that it was told is due, and not before."""
    async with looking() as looks:
        began = asyncio.get_running_loop().time()
        for seconds in (60, 0.05, 0.02, 30):
            looks.promoter.expect(seconds)
        await looked(looks, 2)
        assert looks.times[1] >= began + 0.02
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(looks.times) == 2


async def test_a_promoter_that_is_told_while_it_looks_looks_again(only_when_told):
    """What it was told of may have come just after its look."""
    async with looking() as looks:

        def in_the_second_look() -> None:
            if len(looks.times) == 2:
                looks.promoter.expect(0.01)

        looks.meanwhile = in_the_second_look
        looks.promoter.expect(0)
        await looked(looks, 3)
