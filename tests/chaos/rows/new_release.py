"""Row 14: callers of a new release meet workers of the old one, which lack some tasks; then these are replaced."""

from __future__ import annotations

import os
import time

from tests.chaos import check
from tests.chaos.producer import Order
from tests.chaos.report import Report
from tests.chaos.stage import Case, Stage

LEASE = 15.0
NEW = "new_in_release"
TASKS, OF_NEW = 800, 160
SECONDS = 3.0  # for which tasks are enqueued: half of it before the first worker is replaced
_RELEASE = "CHAOS_RELEASE"  # see `app`


def run(case: Case) -> Report:
    """Play the row."""
    with Stage(case) as stage:
        rnd = stage.random
        names = [NEW] * OF_NEW + rnd.choices(("on_loop", "in_thread"), k=TASKS - OF_NEW)
        orders = [Order(name, (rnd.uniform(0, 0.1),)) for name in rnd.sample(names, TASKS)]
        os.environ[_RELEASE] = "old"
        stage.fleet.start(2, lease=LEASE)
        del os.environ[_RELEASE]
        stage.producer.begin(orders, seconds=SECONDS)
        time.sleep(SECONDS / 2)
        # All that was acknowledged by now can only have met workers that do not know it.
        early = [one for one in list(stage.producer.acknowledged) if stage.producer.sent[one].order.task == NEW]
        for worker in list(stage.fleet.workers):
            time.sleep(rnd.uniform(0.0, 0.5))
            stage.fleet.replace_worker(worker, wait=True)
        report = stage.finish(lease=LEASE)
        _account(report, stage, early)
        stage.failed = not report.ok
        return report


def _account(report: Report, stage: Stage, early: list[str]) -> None:
    ids = [one for one, sent in stage.producer.sent.items() if sent.order.task == NEW]
    found = check.records(stage.server.client, ids)
    back = {task_id: int(record.get("fence", 0)) for task_id, record in found.items()}  # each time raises the fence
    report.faults["put back, being unknown"] = sum(back.values())
    known_at_once = [task_id for task_id in early if not back.get(task_id)]
    report.require(len(early) > OF_NEW / 4, f"only {len(early)} new tasks have met the old workers")
    report.require(not known_at_once, f"{len(known_at_once)} of {len(early)} were known to the old workers")
    report.require(report.reclaimed == 0, f"{report.reclaimed} deaths were counted, and nobody died")
    report.require(report.executed_again == 0, f"{report.executed_again} tasks ran more than once")
    waits = [
        line.at - stage.producer.sent[line.id].at for line in stage.lines() if line.what == "begun" and line.id in back
    ]
    report.more["longest_wait_for_release"] = round(max(waits, default=0.0), 2)
