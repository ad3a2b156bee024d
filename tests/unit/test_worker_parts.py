"""Parts of a worker that need no server: pace, outages, what is held, and log lines."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import sys
import threading
from types import SimpleNamespace

import pytest

from streamq._redis.failures import Backoff
from streamq.context import running
from streamq.errors import BrokerReset, BrokerUnavailable
from streamq.message import Delivery, Message
from streamq.worker import outage as outage_module
from streamq.worker.holdings import Holdings, Run
from streamq.worker.lanes import Pace
from streamq.worker.logs import _TEXT, _JsonFormatter, _TaskFilter, configure
from streamq.worker.losses import Losses
from streamq.worker.metrics import Counters
from streamq.worker.outage import Outage


def held(n: int, stream: str = "s") -> Run:
    return Run(Delivery(Message(str(n), "shop.buy", "q", b'["hunter2"]'), stream, b"1-%d" % n, 0, 1), None)


# ---- what is cancelled


def test_what_was_cancelled_on_its_way_to_the_worker_does_not_begin():
    """The news of it can be faster than the message itself."""
    holdings, stopped = Holdings(), []
    executor = SimpleNamespace(stop=stopped.append)
    losses = Losses(None, holdings, executor, None, counters=Counters(), cancel_lost=True)
    losses.cancelled("s", b"1-2")
    for n in range(2_000):
        losses.cancelled("other", b"%d-1" % n)
        if n == 1_500:  # what was told long ago has been forgotten meanwhile
            losses.cancelled("s", b"1-2")
    first, second = held(1), held(2)
    losses.arrived([first, second])
    assert stopped == [second]
    assert second.lost
    assert not first.lost
    losses.arrived([held(2)])
    assert stopped == [second], "news are for one delivery"


# ---- pace


def test_without_a_pace_nothing_is_fetched_ahead():
    assert Pace().ahead() == 0


@pytest.mark.parametrize(("ended", "seconds", "ahead"), [(1000, 1, 50), (1000, 0.5, 100), (10, 1, 0), (10**6, 1, 300)])
def test_what_is_fetched_ahead_starts_within_50_ms(ended, seconds, ahead):
    """At the pace of late, and never more than fits a bounded memory."""
    pace = Pace()
    pace.ended = ended
    pace._since -= seconds
    assert pace.ahead() == pytest.approx(ahead, abs=2)
    assert pace.ended == 0


def test_a_pace_is_that_of_late():
    """After a pause without an end, nothing is fetched ahead again."""
    pace = Pace()
    pace.ended = 1000
    pace._since -= 1
    assert pace.ahead() > 0
    pace._since -= 1
    assert pace.ahead() == 0


# ---- outages


def test_an_outage_is_said_once(caplog):
    """One line when Redis goes, however many services notice, and one when it is back."""
    caplog.set_level(logging.INFO, "streamq.worker")
    outage = Outage()
    outage.over()
    for _ in range(5):
        outage.noticed(BrokerUnavailable("connection refused"))
    outage.over()
    outage.over()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "connection refused" in caplog.messages[0]
    outage.noticed(BrokerUnavailable("again"))
    assert len(caplog.records) == 3


def test_after_a_long_outage_owners_have_a_lease_to_come_back(monkeypatch):
    """Nobody could renew: what looks abandoned then is not. A short one lets no lease run out."""
    now = 1000.0
    monkeypatch.setattr(outage_module.time, "monotonic", lambda: now)
    seen = Outage()
    assert not seen.left_leases_unrenewed(15)
    seen.noticed(BrokerUnavailable("no answer"))
    assert seen.left_leases_unrenewed(15)
    now += 5
    seen.over()
    assert not seen.left_leases_unrenewed(15)
    seen.noticed(BrokerUnavailable("no answer"))
    now += 10
    seen.over()
    assert seen.left_leases_unrenewed(15)
    now += 16
    assert not seen.left_leases_unrenewed(15)


def test_a_vanished_stream_is_said_once_a_minute(caplog):
    """Each service notices it for itself, again and again; it is no outage."""
    outage = Outage()
    for _ in range(5):
        outage.noticed(BrokerReset("NOGROUP"))
    assert len(caplog.records) == 1
    outage._reset_said -= 61
    outage.noticed(BrokerReset("NOGROUP"))
    assert len(caplog.records) == 2
    outage.over()
    assert len(caplog.records) == 2


def test_pauses_grow_and_are_spread():
    """Each is anywhere below a bound that doubles up to two seconds; then it begins again."""
    backoffs = [Backoff() for _ in range(200)]
    for bound in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        pauses = [backoff.next() for backoff in backoffs]
        assert 0 <= min(pauses) < bound * 0.2
        assert bound * 0.8 < max(pauses) <= bound
    backoffs[0].reset()
    assert backoffs[0].next() <= 0.1


# ---- what is held


async def test_a_run_is_held_from_its_arrival_to_its_commit():
    holdings = Holdings()
    first, second, other = held(1), held(2), held(1, "t")
    for run in (first, second, other):
        holdings.add(run)
    assert len(holdings) == 3
    assert ("s", b"1-1") in holdings
    assert holdings.get("t", b"1-1") is other
    assert holdings.entries() == {"s": [b"1-1", b"1-2"], "t": [b"1-1"]}
    holdings.drop(first)
    holdings.drop(first)
    assert holdings.all() == [second, other]
    assert holdings.get("s", b"1-1") is None
    assert ("s", b"1-1") not in holdings


async def test_those_who_wait_for_progress_are_woken():
    """All of them, each time; one that gives up does not take the others with it."""
    holdings = Holdings()
    run = held(1)
    holdings.add(run)
    waiting = [holdings.progress() for _ in range(3)]
    await asyncio.wait(waiting, timeout=0)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    holdings.drop(run)
    await asyncio.gather(*waiting[1:])
    again = holdings.progress()
    await asyncio.wait([again], timeout=0)
    assert not again.done()
    holdings.nudge()
    holdings.nudge()
    await again


async def test_a_thread_may_look_at_what_is_held():
    """While the loop adds and drops, the lease thread sees one moment of it."""
    holdings, stop, seen = Holdings(), threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            seen.append(sum(map(len, holdings.entries().values())))

    thread = threading.Thread(target=look)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        for n in range(2000):
            holdings.add(held(n))
            if n % 2:
                holdings.drop(held(n - 1))
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(before)
    assert len(holdings) == 1000
    assert all(0 <= number <= 1001 for number in seen)


# ---- log lines


@pytest.fixture
def record():
    """Give a log record as user code makes it."""
    return logging.LogRecord("shop", logging.WARNING, __file__, 1, "sold %d of %s", (3, "tea"), None)


@pytest.fixture
def in_a_task():
    """Be inside a task."""
    token = running.set((held(17).delivery, None))
    yield
    running.reset(token)


def test_a_line_of_text(record, in_a_task):
    """It names worker, logger and task, but not the arguments."""
    assert _TaskFilter("w-1").filter(record)
    line = logging.Formatter(_TEXT).format(record)
    assert line.endswith("WARNING w-1 shop: sold 3 of tea [shop.buy 17 attempt 1]")
    assert "hunter2" not in line


def test_a_line_of_text_outside_a_task(record):
    assert _TaskFilter("w-1").filter(record)
    assert logging.Formatter(_TEXT).format(record).endswith("w-1 shop: sold 3 of tea")


def test_a_line_of_json(record, in_a_task):
    """One object, on one line, whatever the message holds."""
    record.msg, record.args = 'a "quoted"\nline \udc80 %s', (math.nan,)
    _TaskFilter("w-1").filter(record)
    line = _JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line) | {"time": ...} == {
        "time": ...,
        "level": "WARNING",
        "logger": "shop",
        "message": 'a "quoted"\nline \udc80 nan',
        "worker": "w-1",
        "task_id": "17",
        "task_name": "shop.buy",
        "attempt": 1,
    }
    assert "hunter2" not in line


def test_a_line_of_json_outside_a_task_with_an_error(record):
    """There is no task to name; the traceback is one field."""
    try:
        raise ValueError("no tea")  # noqa: TRY301 - so that it has a traceback
    except ValueError:
        record.exc_info = sys.exc_info()
    _TaskFilter("w-1").filter(record)
    found = json.loads(_JsonFormatter().format(record))
    assert "task_id" not in found
    assert "attempt" not in found
    assert found["exception"].endswith("ValueError: no tea")
    assert found["time"].endswith("+00:00")


@pytest.mark.parametrize(("form", "ending"), [("text", "w-1 shop: sold tea"), ("json", '"worker": "w-1"}')])
def test_logs_go_to_standard_error(capsys, form, ending):
    """The root logger is set up, so that user code is heard too."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure("w-1", "WARNING", form)
        logging.getLogger("shop").warning("sold tea")
        logging.getLogger("shop").info("not heard")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.rstrip().endswith(ending)
    assert len(captured.err.splitlines()) == 1
