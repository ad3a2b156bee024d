"""Row 20: flows over two queues, while workers and the server are killed, connections reset, and replies lost.

Each flow has its value, each of its tasks is committed once, and at the end nothing is left to do for any of them.
"""

from __future__ import annotations

import time
from collections import Counter

from tests.chaos import check, instrument
from tests.chaos.producer import Order
from tests.chaos.report import Report
from tests.chaos.stage import Case, Stage
from tests.proxy import Fault

STORM = (Fault.BEFORE, Fault.AFTER)


def run(case: Case) -> Report:
    """Play the row."""
    flows, rounds, lease = (24, 1, 1.0) if case.smoke else (50, 2, 1.5)
    with Stage(case) as stage:
        rnd = stage.random
        kinds = [*stage.app.FLOWS] * flows
        orders = [Order(kind, (rnd.uniform(0, 0.1),)) for kind in kinds[:flows]]
        stage.fleet.start(2 if case.smoke else 3, "-Q", "default,other", lease=lease, grace=2.0)
        stage.proxy.storm(case.seed, 0.03, STORM)
        stage.producer.begin(orders, seconds=2.0 * rounds)
        harms = [stage.fleet.kill_child, stage.fleet.kill_worker, lambda: stage.kill_server(rnd.uniform(0, 0.3))]
        for _ in range(rounds):
            for harm in rnd.sample(harms, len(harms)):
                time.sleep(rnd.uniform(0.3, 0.7))
                harm()
        report = stage.finish(lease=lease)
        _check(stage, report)
        stage.failed = not report.ok
        return report


def _check(stage: Stage, report: Report) -> None:
    """See that each flow has its value, and each of its tasks, and itself, has ended once."""
    values, ids = stage.app.FLOWS, stage.producer.acknowledged
    found = check.records(stage.server.client, ids)
    wrong = [
        (one, found[one].get("result"))
        for one in ids
        if found[one].get("result") != str(values[stage.producer.sent[one].order.task])
    ]
    report.require(not wrong, f"other values: {wrong[:3]}")
    commits = check.counts(stage.server.client, instrument.COMMITS)
    ends = Counter(task_id.partition(".")[0] for task_id in commits)
    expected = dict.fromkeys(ids, stage.app.MEMBERS + 1)
    report.require(ends == expected, f"ends of tasks by flow: {ends - Counter(expected) + (Counter(expected) - ends)}")
    report.more["flows"] = report.tasks
    report.tasks *= stage.app.MEMBERS
