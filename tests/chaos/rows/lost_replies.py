"""Row 3: replies to enqueues are dropped after the server has carried them out: each call is one task all the same."""

from __future__ import annotations

import asyncio

from tests.chaos.report import Report
from tests.chaos.stage import Case, Stage
from tests.proxy import Fault

LEASE = 1.0


def run(case: Case) -> Report:
    """Play the row."""
    with Stage(case) as stage:
        return play(stage)


def play(stage: Stage) -> Report:
    """Enqueue, losing replies; only then have a worker run what is there."""
    tasks, drops = (200, 40) if stage.case.smoke else (1000, 200)
    # Each that is lost is sent again, so there are more calls than tasks, and each number is reached.
    for nth in stage.random.sample(range(1, tasks + 1), drops):
        stage.proxy.strike("enqueue", Fault.AFTER, nth=nth)
    for _ in range(tasks // 2):
        stage.producer.acknowledged.append(stage.app.on_loop.delay().id)
    asyncio.run(_enqueue_on_loop(stage, tasks - tasks // 2))
    entries = stage.server.client.xlen("sq:{default}:stream:5")
    stage.fleet.start(1, lease=LEASE)
    report = stage.finish(lease=LEASE)
    report.require(entries == tasks, f"{tasks} calls made {entries} messages")
    report.require(report.executed_again == 0, f"{report.executed_again} tasks ran more than once")
    report.require(report.faults["reply dropped"] == drops, "not all replies were dropped")
    return report


async def _enqueue_on_loop(stage: Stage, tasks: int) -> None:
    for _ in range(tasks):
        result = await stage.app.on_loop.adelay()
        stage.producer.acknowledged.append(result.id)
    await stage.app.app.aclose()
