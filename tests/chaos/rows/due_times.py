"""Row 13: tasks that wait for their time, while workers and the server are killed: none is lost, none comes too early.

Some come by schedules: each instant becomes one task, however many workers look for it, and however late.
The time is Redis's: server and campaign have the same clock, which is looked at.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

import redis

from streamq import every
from streamq.schedule.plan import message_id
from tests.chaos import check
from tests.chaos.ledger import Line
from tests.chaos.producer import Order, Sent
from tests.chaos.report import Report
from tests.chaos.stage import Case, Stage
from tests.workers import until

LEASE = 1.5
DELAYED, RETRIED = 300, 200
SCHEDULES = {"tick": 250, "tock": 400}  # ms from one instant to the next
LONGEST_SECONDS = 8.0  # of a countdown
HARMS = (3, 1, 1, 2, 2)  # of each kind in `_harm`
ATTEMPTS = 3  # of `again_later`
_GRAIN_SECONDS = 0.002  # times of Redis are whole milliseconds


def run(case: Case) -> Report:
    """Play the row."""
    with Stage(case) as stage:
        rnd = stage.random
        orders = [
            Order(rnd.choice(("on_loop", "in_thread")), (rnd.uniform(0, 0.8),), rnd.uniform(0.1, LONGEST_SECONDS))
            for _ in range(DELAYED)
        ]
        for number in range(RETRIED):
            countdown = rnd.uniform(0.1, LONGEST_SECONDS / 2) if number % 2 else None
            orders.append(Order("again_later", (rnd.uniform(0.1, LONGEST_SECONDS / 4),), countdown))
        rnd.shuffle(orders)
        apart = _clocks_apart(stage.server.client)
        stage.fleet.start(2, "-p", "2", lease=LEASE, grace=1.0)
        first = _begin_schedules(stage)
        stage.producer.begin(orders, seconds=6.0)
        _harm(stage)
        stage.producer.join()
        fired = _end_schedules(stage, first)
        report = stage.finish(lease=LEASE)
        apart = max(apart, _clocks_apart(stage.server.client))
        report.require(apart < _GRAIN_SECONDS, f"the server's clock is {apart:.3f} s off: nothing can be said of times")
        _account(report, stage.lines(), stage.producer.sent)
        _account_fired(report, stage.lines(), fired)
        stage.failed = not report.ok
        return report


def _begin_schedules(stage: Stage) -> dict[str, int]:
    """Add them; returns the first instant of each, ms."""
    schedules, call = stage.app.app.schedules, stage.app.on_loop.s()
    return {
        name: _ms(schedules.add(name, call, every(seconds=interval / 1000), missed="all").next_at)
        for name, interval in SCHEDULES.items()
    }


def _end_schedules(stage: Stage, first: Mapping[str, int]) -> dict[str, set[str]]:
    """Wait until all is fired that is due by now, and remove them; returns the ids that there are of each."""
    client, schedules, producer = stage.server.client, stage.app.app.schedules, stage.producer
    seconds, _ = client.time()
    fired = {}
    for name, interval in SCHEDULES.items():
        until(lambda name=name: _ms(schedules.get(name).next_at) > 1000 * seconds, seconds=stage.case.patience)
        schedules.remove(name)
        keys = client.scan_iter(f"{check.QUEUE}:task:schedule:{name}:*", count=1000)
        fired[name] = {key.partition(":task:")[2] for key in keys}
        due = max(1000 * seconds, first[name] + interval * (len(fired[name]) - 1))
        for instant in range(first[name], due + 1, interval):
            task_id = message_id(name, instant)
            producer.sent[task_id] = Sent(Order("on_loop", (0.0,)), instant / 1000)
            producer.acknowledged.append(task_id)
    return fired


def _account_fired(report: Report, lines: Sequence[Line], fired: Mapping[str, set[str]]) -> None:
    """See to it that each instant was fired, and once: a second message would be run under the same fence."""
    runs = Counter((line.id, line.fence) for line in lines if line.what == "begun" and line.id.startswith("schedule:"))
    ran = {task_id for task_id, _ in runs}
    report.more["fired"] = sum(map(len, fired.values()))
    for name, ids in fired.items():
        of_it = {task_id for task_id in ran if task_id.startswith(f"schedule:{name}:")}
        report.require(of_it == ids, f"of {name}: {sorted(of_it ^ ids)[:3]} were not both fired and run")
    twice = [one for one, count in runs.items() if count > 1]
    report.require(not twice, f"run twice under one fence: {twice[:3]}")


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _harm(stage: Stage) -> None:
    """Kill and replace workers, and kill the server, as planned."""
    rnd, fleet = stage.random, stage.fleet
    kinds = (fleet.kill_child, fleet.kill_worker, fleet.kill_supervisor, fleet.replace_worker, stage.kill_server)
    plan = [(rnd.uniform(0.3, 0.8), kind) for kind in rnd.sample(kinds, sum(HARMS), counts=HARMS)]
    for pause, harm in plan:
        time.sleep(pause)
        harm()


def _clocks_apart(client: redis.Redis) -> float:
    """Measure by how many seconds the server's time lies outside of the time in which it was asked, at best."""
    apart = []
    for _ in range(5):
        before = time.time()
        seconds, micros = client.time()
        after = time.time()
        it_is = seconds + micros / 1e6
        apart.append(max(0.0, before - it_is, it_is - after))
    return min(apart)


def _account(report: Report, lines: Sequence[Line], sent: Mapping[str, Sent]) -> None:
    runs: defaultdict[str, defaultdict[int, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if line.what == "begun":
            runs[line.id][line.attempt].append(line)
    late: list[float] = []
    for task_id, attempts in runs.items():
        order, at = sent[task_id]
        expected = ATTEMPTS if order.task == "again_later" else 1
        report.require(sorted(attempts) == [*range(1, expected + 1)], f"{task_id} had the attempts {sorted(attempts)}")
        due = at + (order.countdown or 0.0)
        for attempt in sorted(attempts):
            began = min(line.at for line in attempts[attempt])
            late.append(began - due)
            # Of the runs of one attempt, that with the last fence has asked for the next one.
            due = max(attempts[attempt], key=lambda line: line.fence).at + order.args[0]
    early = [seconds for seconds in late if seconds < -_GRAIN_SECONDS]
    report.require(not early, f"{len(early)} runs came too early, by up to {-min(early, default=0):.3f} s")
    late.sort()
    report.more |= {"late_p50": round(late[len(late) // 2], 3), "late_max": round(late[-1], 2), "times": len(late)}
