"""Row 19: tasks of some ordering keys, while workers are killed and replaced and their connections are reset.

Of each key one runs after the other, in the order of enqueueing: none begins before the one in front of it has ended.
"""

from __future__ import annotations

import time

from tests.chaos.producer import Order
from tests.chaos.report import Report
from tests.chaos.stage import Case, Stage
from tests.proxy import Fault

LEASE = 1.5
KEYS = 20


def run(case: Case) -> Report:
    """Play the row."""
    each, rounds = (8, 1) if case.smoke else (30, 3)
    with Stage(case) as stage:
        rnd = stage.random
        orders = [
            Order("in_line", (f"k{key}", rnd.uniform(0.0, 0.03), rnd.random() < 0.1))
            for _ in range(each)
            for key in range(KEYS)
        ]
        stage.fleet.start(3, "-p", "2", lease=LEASE, grace=2.0)
        stage.proxy.storm(case.seed, 0.01, (Fault.BEFORE, Fault.AFTER, Fault.DELAY), seconds=0.1)
        stage.producer.begin(orders, seconds=4.0 * rounds, threads=1)
        harms = (stage.fleet.kill_child, stage.fleet.kill_child, stage.fleet.kill_worker, stage.fleet.replace_worker)
        for harm in rnd.sample(harms, len(harms)) * rounds:
            time.sleep(rnd.uniform(0.5, 1.0))
            harm()
        report = stage.finish(lease=LEASE)
        _check_order(report, stage)
        return report


def _check_order(report: Report, stage: Stage) -> None:
    begun: dict[str, list[float]] = {}
    for line in stage.lines():
        if line.what == "begun":
            begun.setdefault(line.id, []).append(line.at)
    in_front: dict[str, str] = {}
    overtaken = 0
    for task_id, sent in stage.producer.sent.items():
        key = sent.order.args[0]
        if key in in_front:
            overtaken += min(begun[task_id]) < max(begun[in_front[key]])
        in_front[key] = task_id
    report.require(not overtaken, f"{overtaken} began before the last run of the one in front of them")
    report.more["keys"] = len(in_front)
