"""Row 11: the server's memory is full. Producers are told so, nothing of what they send is there, and all work goes on.

While it is full a process that runs tasks is killed as well, or a whole worker: those that take its place must be able
to serve, or memory would never get free.
"""

from __future__ import annotations

import time

from tests.chaos import check
from tests.chaos.producer import Order
from tests.chaos.report import Report
from tests.chaos.stage import Case, Stage
from tests.workers import until

LEASE = 1.5
TASKS = 1000
DRAIN_SECONDS = 10.0  # in which all that was enqueued must have ended while memory is full


def run(case: Case) -> Report:
    """Play the row."""
    with Stage(case) as stage:
        rnd = stage.random
        kinds = rnd.choices(("on_loop", "in_thread", "third_time"), (6, 3, 1), k=TASKS)
        orders = [Order(kind, (rnd.uniform(0, 0.4),)) for kind in kinds]
        harms = rnd.sample((None, stage.fleet.kill_child, stage.fleet.kill_worker), 3)
        stage.fleet.start(2, lease=LEASE)
        problems: list[str] = []
        drained = []
        for number, harm in enumerate(harms):
            stage.producer.begin(orders[number :: len(harms)], seconds=2.0)
            time.sleep(rnd.uniform(0.6, 1.2))
            _fill(stage)
            if harm:
                harm()
            drained.append(_drain(stage, problems))
            stage.server.client.config_set("maxmemory", 0)
            stage.producer.join()
        report = stage.finish(lease=LEASE)
        report.more = {"refused": len(stage.producer.errors), "ended_while_full": drained}
        for problem in problems:
            report.require(False, problem)  # noqa: FBT003
        errors = set(stage.producer.errors)
        report.require(errors == {"BrokerOutOfMemory"}, f"producers had {errors or 'no errors'}")
        report.require(all(drained), "nothing was under way when memory became full")
        stage.failed = not report.ok
        return report


def _fill(stage: Stage) -> None:
    """Lower the bound of memory below what is used."""
    told = len(stage.producer.errors)
    stage.server.client.config_set("maxmemory", 1)
    stage.strike("maxmemory lowered")
    until(lambda: len(stage.producer.errors) >= told + 4, why="no producer was told that memory is full")


def _drain(stage: Stage, problems: list[str]) -> int:
    """Wait until all that was acknowledged has ended; returns how many tasks that took."""
    client = stage.server.client
    acknowledged = list(stage.producer.acknowledged)
    busy = sum("ended" not in record for record in check.records(client, acknowledged).values())
    if stuck := check.until_ended(client, acknowledged, DRAIN_SECONDS):
        problems.append(f"while memory was full, {len(stuck)} of {busy} tasks did not end")
    refused = {f"t{number + 1}" for number in range(TASKS)} - set(stage.producer.acknowledged)
    if there := check.records(client, refused):
        problems.append(f"{len(there)} calls were refused, and are there")
    return busy
