"""Workers fire schedules: each instant once, whatever happens to them; and operators look after them."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from streamq import ConfigError, State, StreamQ, by, cron, current, every
from streamq.broker import schedules
from streamq.broker.fleet import Fleet
from streamq.config import WorkerSettings
from streamq.schedule.plan import Definition, message_id
from streamq.worker import scheduler
from streamq.worker.child import Job
from streamq.worker.outage import Outage
from tests.serving import serving
from tests.workers import until

MINUTE, HOUR = 60_000, 3_600_000
YEARLY = cron("0 0 1 1 *")
NEW_YEAR = round(datetime(datetime.now(UTC).year, 1, 1, tzinfo=UTC).timestamp() * 1000)


class Shop:
    """An app whose tasks note their ids, and its schedules in Redis."""

    def __init__(self, url: str, connection: Any) -> None:
        self.url = url
        self.app = StreamQ(url)
        self.queue = self.app.broker.keys.queue("default")
        self.run = connection.run
        self.redis = connection.client.execute_command
        self.seen: list[tuple[str, datetime | None]] = []

        @self.app.task(name="count")
        async def count(label: str = "") -> None:
            self.seen.append((current().id + label, current().scheduled_for))

        self.count = count

    @property
    def ids(self) -> list[str]:
        return [one for one, _ in self.seen]

    def declare(self, rule: Any, **options: Any) -> None:
        """Have the code of a task declare a schedule."""

        @self.app.task(name="tick", schedule=rule, **options)
        async def tick() -> None:
            self.seen.append((current().id, current().scheduled_for))

    def job(self, *, since_ms: int = 0) -> Job:
        worker = WorkerSettings(lease=1.0)
        tasks = dict(self.app.tasks)
        return Job(self.app.settings, worker, "w-1", "", tasks, None, lambda **_: None, since_ms)

    def set_due(self, name: str, ms: int) -> None:
        """Say at which instant a schedule is due next, as if no worker had looked since."""
        self.redis("ZADD", self.queue.timetable[0], ms, name)

    def now(self) -> int:
        seconds, micros = self.redis("TIME")
        return int(seconds) * 1000 + int(micros) // 1000


@pytest.fixture
def shop(server_url, connection, monkeypatch):
    monkeypatch.setattr(scheduler, "_LONGEST_SECONDS", 0.05)
    monkeypatch.setattr(scheduler, "_NONE_SECONDS", 0.05)
    shop = Shop(server_url, connection)
    yield shop
    shop.app.close()


async def eventually(what: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not what():  # noqa: ASYNC110 - it looks at the server
            await asyncio.sleep(0.005)


# ---- workers


def test_each_instant_is_fired_once_while_workers_are_killed(start_worker, tmp_path, monkeypatch):
    """Two workers, one of them killed again and again: no instant is left out, and none has two messages."""
    ticks = tmp_path / "ticks"
    ticks.touch()
    monkeypatch.setenv("STREAMQ_TEST_TICKS", str(ticks))
    chance = random.Random(5)  # noqa: S311 - a test
    running = [start_worker("tests.apps.ticking", "--lease", "0.5", ready=False) for _ in range(2)]
    for _ in range(3):
        enough = len(ticks.read_text().splitlines()) + chance.randint(1, 6)
        until(lambda enough=enough: len(ticks.read_text().splitlines()) > enough, seconds=60)
        running.pop(chance.randrange(2)).kill()
        running.append(start_worker("tests.apps.ticking", "--lease", "0.5", ready=False))
    last = message_id("tests.apps.ticking.tick", (time.time_ns() // 200_000_000 + 1) * 200)
    until(lambda: any(line.split()[0] >= last for line in ticks.read_text().splitlines()), seconds=60)
    for worker in running:
        worker.until_logged("is ready")
        assert worker.terminate() == 0
    seen = [line.split() for line in ticks.read_text().splitlines()]
    first_runs = Counter(task_id for task_id, deliveries in seen if deliveries == "1")
    assert set(first_runs.values()) == {1}
    times = sorted({datetime.fromisoformat(task_id.partition(".tick:")[2]) for task_id, _ in seen})
    assert {b - a for a, b in pairwise(times)} == {timedelta(seconds=0.2)}


async def test_what_the_code_declares_is_fired_and_knows_its_instant(shop):
    shop.declare(every(seconds=0.1), missed="all")
    async with serving(shop.job()):
        await eventually(lambda: len(shop.seen) >= 3)
    (first, at), (_, then), *_ = shop.seen
    assert then - at == timedelta(seconds=0.1)
    assert first == message_id("tick", round(at.timestamp() * 1000))
    assert shop.app.schedules.get("tick").declared


async def test_a_schedule_does_not_overtake_itself(shop):
    """Of a task that is unique there is no second run while one goes on; its instants are over without one."""
    go_on = asyncio.Event()

    @shop.app.task(name="slow", schedule=every(seconds=0.1), missed="all", unique=by(ttl=60))
    async def slow() -> None:
        shop.seen.append((current().id, None))
        await go_on.wait()

    shop.app.schedules.add("often", shop.count.s("!"), every(seconds=0.1))
    async with serving(shop.job()):
        await eventually(lambda: len(shop.seen) >= 5)
        assert sum(one.startswith("schedule:slow:") for one in shop.ids) == 1
        go_on.set()
        await eventually(lambda: sum(one.startswith("schedule:slow:") for one in shop.ids) >= 2)


async def test_what_is_added_while_workers_run_is_fired(shop):
    """With its arguments."""
    async with serving(shop.job()):
        added = shop.app.schedules.add("often", shop.count.s("!"), every(seconds=0.1))
        await eventually(lambda: len(shop.seen) >= 2)
    assert all(one.startswith("schedule:often:") and one.endswith("!") for one in shop.ids)
    assert shop.seen[0][1] >= added.next_at


@pytest.mark.parametrize(("missed", "hours_ago"), [("one", [0]), ("skip", []), ("all", [3, 2, 1, 0])])
async def test_what_was_missed(shop, missed, hours_ago):
    """No worker was there for hours, and an instant came every hour; the last one is half an hour old."""
    now = shop.now()
    last = (now - HOUR // 2) // MINUTE * MINUTE
    shop.app.schedules.add("hourly", shop.count.s(), cron(f"{last // MINUTE % 60} * * * *"), missed=missed)
    shop.set_due("hourly", last - 3 * HOUR)
    async with serving(shop.job()):
        await eventually(lambda: shop.app.schedules.get("hourly").next_at.timestamp() * 1000 == last + HOUR)
        await eventually(lambda: len(shop.seen) >= len(hours_ago))
    assert shop.ids == [message_id("hourly", last - ago * HOUR) for ago in hours_ago]


async def test_an_instant_that_is_there_already_is_left_as_it_is(shop):
    """Somebody has enqueued it by hand, for later."""
    shop.app.schedules.add("yearly", shop.count.s(), YEARLY)
    result = shop.count.using(task_id=message_id("yearly", NEW_YEAR), countdown=3600).delay()
    shop.set_due("yearly", NEW_YEAR)
    async with serving(shop.job()):
        await eventually(lambda: shop.app.schedules.get("yearly").last_at)
    assert result.status() is State.DELAYED
    assert shop.seen == []
    result.forget()
    shop.redis("DEL", shop.queue.delayed, shop.queue.record(result.id))


async def test_a_schedule_that_cannot_be_read_is_not_in_the_way(shop, caplog):
    """A newer version has stored it; it is left as it is, and said once."""
    shop.app.schedules.add("unknown", shop.count.s(), YEARLY)
    shop.redis("HSET", shop.queue.timetable[1], "unknown", '{"lunar":1}')
    shop.set_due("unknown", 1)
    shop.app.schedules.add("often", shop.count.s(), every(seconds=0.1))
    async with serving(shop.job()):
        await eventually(lambda: len(shop.seen) >= 3)
    assert all(one.startswith("schedule:often:") for one in shop.ids)
    assert [record.message for record in caplog.records if "unknown" in record.message] == [
        "schedule unknown is not fired by this worker: what is stored of it cannot be used: no schedule: {'lunar': 1}"
    ]
    assert shop.app.schedules.get("unknown").rule is None
    with pytest.raises(ConfigError, match="cannot be read"):
        shop.app.schedules.run_now("unknown")


async def test_many_that_are_due_at_once(shop, monkeypatch):
    """They are fired in steps, also behind some that are left as they are."""
    monkeypatch.setattr(scheduler, "_COUNT", 10)
    for number in range(15):
        shop.run(schedules.define_schedule(shop.queue, f"of-others-{number}", b"{}", 1, since_ms=1_000_000))
    names = [f"yearly-{number}" for number in range(25)]
    for name in names:
        shop.app.schedules.add(name, shop.count.s(), YEARLY)
        shop.set_due(name, NEW_YEAR)
    async with serving(shop.job()):
        await eventually(lambda: len(shop.seen) >= len(names))
    assert sorted(shop.ids) == sorted(message_id(name, NEW_YEAR) for name in names)


async def test_what_only_the_code_of_others_declares_is_left_to_them(shop):
    """A worker with other code, older or newer, does not fire it."""
    definition = Definition("count", every(seconds=0.1), "one", b"[]")
    shop.run(schedules.define_schedule(shop.queue, "gone", definition.encode(), 1, since_ms=1_000_000))
    shop.app.schedules.add("often", shop.count.s(), every(seconds=0.1))
    async with serving(shop.job()):
        await eventually(lambda: len(shop.seen) >= 3)
    assert all(one.startswith("schedule:often:") for one in shop.ids)
    assert shop.app.schedules.get("gone")


async def test_what_no_code_has_declared_for_a_day_is_removed(shop):
    definition = Definition("count", every(seconds=0.1), "one", b"[]")
    shop.run(schedules.define_schedule(shop.queue, "gone", definition.encode(), 1, since_ms=1_000_000))
    shop.redis("HSET", shop.queue.timetable[3], "gone", f"1 {shop.now() - 24 * HOUR}")
    async with serving(shop.job()):
        await eventually(lambda: not shop.redis("EXISTS", *shop.queue.timetable))
    assert shop.seen == []


async def test_a_rule_that_was_changed_in_code_is_another_from_then_on(shop, connection):
    """What was missed by the old rule is not made up for; a worker that is older, and starts anew, changes nothing."""
    shop.declare(YEARLY)
    shop.app.schedules.add("often", shop.count.s(), every(seconds=0.1))
    async with serving(shop.job(since_ms=1_000_000)):
        await eventually(lambda: shop.seen)
    assert shop.app.schedules.get("tick").rule == YEARLY
    shop.set_due("tick", 1)
    newer = Shop(shop.url, connection)
    newer.declare(every(hours=24))
    async with serving(newer.job(since_ms=2_000_000)):
        await eventually(lambda: newer.seen)
    changed = newer.app.schedules.get("tick")
    newer.app.close()
    assert changed.rule == every(hours=24)
    assert changed.next_at > datetime.now(UTC)
    before = len(shop.seen)
    async with serving(shop.job(since_ms=1_000_000)):
        await eventually(lambda: len(shop.seen) > before)
    assert shop.app.schedules.get("tick") == changed
    assert {one.split(":")[1] for one in shop.ids + newer.ids} == {"often"}


async def test_a_name_that_was_taken_at_run_time_stays_so(shop, caplog):
    shop.app.schedules.add("tick", shop.count.s(), YEARLY)
    shop.declare(every(seconds=0.1))
    async with serving(shop.job()):
        await eventually(lambda: "added at run time, and stands" in caplog.text)
    assert shop.app.schedules.get("tick").rule == YEARLY


async def test_what_is_paused_stays_so_when_workers_start(shop):
    shop.declare(every(seconds=0.1))
    async with serving(shop.job()):
        await eventually(lambda: shop.seen)
        assert shop.app.schedules.pause("tick")
    count = len(shop.seen)
    shop.app.schedules.add("often", shop.count.s(), every(seconds=0.1))
    async with serving(shop.job()):
        await eventually(lambda: len(shop.seen) >= count + 3)
    assert all(one.startswith("schedule:often:") for one in shop.ids[count + 1 :])
    assert shop.app.schedules.get("tick").paused


async def test_without_schedules_a_worker_seldom_asks(shop, monkeypatch):
    """Every five seconds; with some of them once a second, and when the next one is due, also one that was fired."""
    monkeypatch.undo()
    fleet = Fleet(shop.app.settings, WorkerSettings(), "w-1", 0.1)
    asking = scheduler.Scheduler(fleet, ["default"], [], 0, outage=Outage())
    try:
        assert await asking._fire_due("default") == 5.0
        shop.app.schedules.add("yearly", shop.count.s(), YEARLY)
        assert 0.8 <= await asking._fire_due("default") <= 1.0
        shop.set_due("yearly", shop.now() + 500)
        assert 0.1 <= await asking._fire_due("default") <= 0.51
        shop.app.schedules.add("often", shop.count.s(), every(seconds=0.2))
        shop.set_due("often", 1)
        assert await asking._fire_due("default") <= 0.21
    finally:
        await fleet.close()
