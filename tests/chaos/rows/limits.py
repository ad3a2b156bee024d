"""Row 18: limits of the fleet, while its workers are killed and replaced and its connections are reset.

The rate is never exceeded over any span of time by more than the burst, there are never more runs at a time than there
are places, and a crash frees the places that it left.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.chaos.ledger import Line
from tests.chaos.producer import Order
from tests.chaos.report import Report
from tests.chaos.stage import Case, Stage
from tests.proxy import Fault

LEASE = 1.5
SPANS = (0.5, 1.0, 2.0, 5.0)
LATE = 0.5  # seconds at most between being let in and the first line of the body, on a machine that is busy


def run(case: Case) -> Report:
    """Play the row."""
    tasks, rounds = (150, 1) if case.smoke else (600, 3)
    with Stage(case) as stage:
        rnd = stage.random
        orders = [Order(rnd.choice(("paced", "narrow")), (rnd.uniform(0.0, 0.1),)) for _ in range(tasks)]
        stage.fleet.start(3, "-p", "2", lease=LEASE, grace=2.0)
        stage.proxy.storm(case.seed, 0.01, (Fault.BEFORE, Fault.AFTER))
        stage.producer.begin(orders, seconds=3.0 * rounds)
        harms = (stage.fleet.kill_child, stage.fleet.kill_child, stage.fleet.kill_worker, stage.fleet.replace_worker)
        for harm in rnd.sample(harms, len(harms)) * rounds:
            time.sleep(rnd.uniform(0.5, 1.0))
            harm()
        report = stage.finish(lease=LEASE)
        kinds = {task_id: sent.order.task for task_id, sent in stage.producer.sent.items()}
        lines = stage.lines()
        _check_rate(report, [line.at for line in lines if line.what == "begun" and kinds[line.id] == "paced"], stage)
        most = _most_at_a_time([line for line in lines if kinds[line.id] == "narrow"])
        report.require(most <= stage.app.PLACES, f"{most} ran at a time, and there are {stage.app.PLACES} places")
        report.more["most_at_a_time"] = most
        return report


def _check_rate(report: Report, starts: Sequence[float], stage: Stage) -> None:
    times, app = sorted(starts), stage.app
    for span in SPANS:
        most, first = 0, 0
        for last, at in enumerate(times):
            while times[first] <= at - span:
                first += 1
            most = max(most, last - first + 1)
        allowed = app.RATE * (span + LATE) + app.BURST
        report.require(most <= allowed, f"{most} starts in {span} s, and {allowed} are allowed")
        report.more[f"starts_in_{span:g}_s"] = most


def _most_at_a_time(lines: Sequence[Line]) -> int:
    """Count the most runs that went on together, of those that came to an end: when others were killed is unknown."""
    ends = {(line.id, line.fence): line.at for line in lines if line.what == "ended"}
    changes = []
    for line in lines:
        if line.what == "begun" and (line.id, line.fence) in ends:
            changes += [(line.at, 1), (ends[line.id, line.fence], -1)]
    running = most = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most
