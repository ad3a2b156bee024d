"""Row 8: processes of pools are killed in the middle of a task: exactly that task is run again, and no other."""

from __future__ import annotations

import time
from collections import Counter

from tests.chaos import check
from tests.chaos.producer import Order
from tests.chaos.report import Report
from tests.chaos.stage import Case, Stage
from tests.workers import until

LEASE = 15.0  # nothing waits for it
KILLS = 20
TASKS = 400


def run(case: Case) -> Report:
    """Play the row."""
    with Stage(case) as stage:
        rnd = stage.random
        # Those beside, in the same worker, must not notice.
        names = rnd.sample(("in_process", "on_loop", "in_thread"), k=TASKS, counts=(320, 40, 40))
        orders = [Order(name, (rnd.uniform(0.05, 0.2),)) for name in names]
        stage.fleet.start(2, "--pool-processes", "3", lease=LEASE)
        stage.producer.begin(orders, seconds=8.0)
        victims = Counter(_kill(stage) for _ in range(KILLS))
        report = stage.finish(lease=LEASE)
        runs = Counter(line.id for line in stage.lines() if line.what == "begun")
        again = Counter({task_id: count - 1 for task_id, count in runs.items() if count > 1})
        deaths = {
            task_id: int(record["deaths"])
            for task_id, record in check.records(stage.server.client, runs).items()
            if "deaths" in record
        }
        report.more["killed_twice"] = sum(count > 1 for count in victims.values())
        report.require(again == victims, f"killed: {victims - again}; not killed, and run again: {again - victims}")
        report.require(deaths == victims, f"{deaths} deaths are counted, and there were {dict(victims)}")
        stage.failed = not report.ok
        return report


def _kill(stage: Stage) -> str:
    """Kill a process of a pool that is in the middle of a task; returns which."""
    victim = ""

    def is_running(pid: int) -> bool:
        nonlocal victim
        its = [line for line in stage.lines() if line.pid == pid]
        victim = its[-1].id if its and its[-1].what == "begun" else ""
        return bool(victim)

    time.sleep(stage.random.uniform(0.1, 0.4))
    until(lambda: stage.fleet.kill_pool_process(when=is_running), why="no process of a pool runs a task")
    return victim
