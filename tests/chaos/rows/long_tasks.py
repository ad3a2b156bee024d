"""Row 2: tasks of up to two leases, whose workers are killed or told to stop, and whose connections are reset."""

from __future__ import annotations

import time

from tests.chaos.producer import Order
from tests.chaos.report import Report
from tests.chaos.stage import Case, Stage
from tests.proxy import Fault

LEASE = 1.5


def run(case: Case) -> Report:
    """Play the row."""
    with Stage(case) as stage:
        rnd = stage.random
        kinds = ("on_loop", "on_loop", "in_thread")
        orders = [Order(rnd.choice(kinds), (rnd.uniform(0.1, 2.0) * LEASE,)) for _ in range(150)]
        stage.fleet.start(2, "-p", "2", lease=LEASE, grace=1.0)  # less than a task may take
        stage.proxy.storm(case.seed, 0.02, (Fault.BEFORE,))
        stage.producer.begin(orders, seconds=12.0)
        harms = (stage.fleet.kill_child, stage.fleet.kill_worker, stage.fleet.replace_worker)
        for harm in rnd.sample(harms, 3) * 3:
            time.sleep(rnd.uniform(0.8, 1.6))
            harm()
        return stage.finish(lease=LEASE)
