"""Row 13: tasks that wait for their time, while workers and the server are killed: none is lost, none comes too early.

The time is Redis's: server and campaign have the same clock, which is looked at.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

import redis

from tests.chaos.ledger import Line
from tests.chaos.producer import Order, Sent
from tests.chaos.report import Report
from tests.chaos.stage import Case, Stage

LEASE = 1.5
DELAYED, RETRIED = 300, 200
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
        stage.producer.begin(orders, seconds=6.0)
        _harm(stage)
        report = stage.finish(lease=LEASE)
        apart = max(apart, _clocks_apart(stage.server.client))
        report.require(apart < _GRAIN_SECONDS, f"the server's clock is {apart:.3f} s off: nothing can be said of times")
        _account(report, stage.lines(), stage.producer.sent)
        stage.failed = not report.ok
        return report


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
