"""Row 4: workers are replaced, one after the other, while they work: nothing runs twice, nobody waits for a lease."""

from __future__ import annotations

from tests.chaos.producer import Order
from tests.chaos.report import Report
from tests.chaos.stage import Case, Stage

LEASE = 15.0
GRACE = 5.0
MARGIN = 1.0  # seconds for what a worker has to say at its end
LONGEST = 0.5  # seconds that a task takes: less than the grace


def run(case: Case) -> Report:
    """Play the row."""
    tasks, restarts = (150, 2) if case.smoke else (1000, 12)
    with Stage(case) as stage:
        rnd = stage.random
        names = rnd.choices(("on_loop", "in_thread", "in_process"), (5, 4, 1), k=tasks)
        orders = [Order(name, (rnd.uniform(0, LONGEST),)) for name in names]
        stage.fleet.start(2, lease=LEASE, grace=GRACE)
        stage.producer.begin(orders, seconds=1.5 * restarts)
        for _ in range(restarts):
            stage.fleet.replace_worker(wait=True)
        report = stage.finish(lease=LEASE)
        longest = max(stage.fleet.stops)
        report.more["longest_stop"] = round(longest, 2)
        report.require(longest <= GRACE + MARGIN, f"a worker took {longest:.1f} s to stop, its grace is {GRACE:g} s")
        report.require(report.reclaimed == 0, f"{report.reclaimed} tasks waited for a lease")
        report.require(report.executed_again == 0, f"{report.executed_again} tasks ran more than once")
        return report
