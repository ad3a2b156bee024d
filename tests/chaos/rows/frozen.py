"""Row 6: processes stand still for 0.5 to 1.5 leases. Those that wake up too late finish what is another's by now."""

from __future__ import annotations

import time

from tests.chaos import check
from tests.chaos.producer import Order
from tests.chaos.report import Report
from tests.chaos.stage import Case, Stage

LEASE = 1.5


def run(case: Case) -> Report:
    """Play the row."""
    with Stage(case) as stage:
        rnd = stage.random
        kinds = ("on_loop", "in_thread")
        orders = [Order(rnd.choice(kinds), (rnd.uniform(0.2, 1.2),)) for _ in range(500)]
        # Those who lost their lease go on, so that each comes to its end, and is refused.
        stage.fleet.start(2, "-p", "2", "--no-cancel-lost", lease=LEASE)
        stage.producer.begin(orders, seconds=15.0)
        for _ in range(15):
            stage.fleet.freeze_child(rnd.uniform(0.5, 1.5) * LEASE)
            time.sleep(rnd.uniform(0.6, 1.2))
        report = stage.finish(lease=LEASE)
        fences = {
            task_id: int(record.get("fence", 0))
            for task_id, record in check.records(stage.server.client, stage.producer.acknowledged).items()
        }
        zombies = sum(line.what == "ended" and line.fence < fences[line.id] for line in stage.lines())
        report.more["zombie_finishes"] = zombies
        report.require(report.fenced == zombies, f"{zombies} finished too late, and {report.fenced} were refused")
        return report
