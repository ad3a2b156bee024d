"""Row 17: what keeps a promise is taken out, and the campaign must notice, each time by the sign that belongs to it.

What is taken out is in `instrument.MUTANTS`; workers and producer know it from the environment.
"""

from __future__ import annotations

import dataclasses
import time

from tests.chaos.producer import Order
from tests.chaos.report import Report
from tests.chaos.rows import lost_replies
from tests.chaos.stage import Case, Stage
from tests.proxy import Fault

LEASE = 0.5
PATIENCE = 4.0  # seconds after which what has not ended is lost: many leases
SIGNS = {
    "fence": "stale",
    "once": "committed_again",
    "renew_pel": "lost",
    "ack_first": "lost",
    "redis_retries": "executed_again",
}


def run(case: Case) -> Report:
    """Play the row: it holds if the campaign goes red, and by the right sign."""
    name = case.row.partition(" ")[2]
    with Stage(dataclasses.replace(case, patience=PATIENCE)) as stage:
        report = _PLAYS[name](stage)
        sign = SIGNS[name]
        seen = getattr(report, sign)
        report.more = {"red": report.why}
        report.ok, report.why = True, []
        report.require(seen > 0, f"{name} is taken out, and {sign} is 0")
        stage.failed = not report.ok
        return report


def _zombies(stage: Stage) -> Report:
    """Have processes stand still until others have taken over what they run, and wake up while those run it."""
    taken_over = LEASE + 1.4 + 0.3  # the longest pause between two sweeps, and some time to run
    stage.fleet.start(2, "--no-cancel-lost", lease=LEASE)
    stage.producer.begin([Order("on_loop", (2.0,)) for _ in range(120)], seconds=4.0)
    for _ in range(2):
        time.sleep(0.5)
        stage.fleet.freeze_child(taken_over)
        time.sleep(taken_over)
    return stage.finish(lease=LEASE)


def _lost_deliveries(stage: Stage) -> Report:
    """Have deliveries get lost on their way from the server to workers that live on."""
    stage.fleet.start(1, lease=LEASE)
    for nth in range(2, 40, 3):
        stage.proxy.strike("XREADGROUP", Fault.AFTER, nth=nth)
    stage.producer.begin([Order("on_loop") for _ in range(200)], seconds=2.0)
    return stage.finish(lease=LEASE)


def _kills(stage: Stage) -> Report:
    """Kill processes while they run tasks."""
    stage.fleet.start(2, lease=LEASE)
    stage.producer.begin([Order("on_loop", (0.3,)) for _ in range(200)], seconds=2.0)
    for _ in range(2):
        time.sleep(0.7)
        stage.fleet.kill_child()
    return stage.finish(lease=LEASE)


_PLAYS = {
    "fence": _zombies,
    "once": _zombies,
    "renew_pel": _lost_deliveries,
    "ack_first": _kills,
    "redis_retries": lost_replies.play,
}
