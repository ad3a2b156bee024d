"""Row 5: the server is killed while work goes on, with an append-only file that is synced each time or each second.

What is killed is the process, not the machine: what the server has written is in the kernel's hands by then, whether it
is synced or not. A power cut, which loses up to two seconds with ``everysec``, is no part of this row.
"""

from __future__ import annotations

import time

from tests.chaos import check
from tests.chaos.producer import Order
from tests.chaos.report import Report
from tests.chaos.stage import Case, Stage

LEASE = 1.5
LONGEST_SWEEP = 1.4  # seconds between two looks for abandoned tasks, at most
LONGEST_PAUSE = 1.0  # seconds between two attempts to reach the server, at most
KILLS = 5


def run(case: Case) -> Report:
    """Play the row; its name says how the server syncs."""
    with Stage(case, appendfsync=case.row.partition(" ")[2]) as stage:
        rnd = stage.random
        kinds = rnd.choices(("on_loop", "in_thread", "third_time"), (6, 3, 1), k=1500)
        stage.fleet.start(2, lease=LEASE)
        stage.producer.begin([Order(kind, (rnd.uniform(0, 0.1),)) for kind in kinds], seconds=8.0)
        outages = []
        for _ in range(KILLS):
            time.sleep(rnd.uniform(0.4, 1.0))
            outages.append(stage.kill_server(rnd.uniform(0, 0.5)))
        report = stage.finish(lease=LEASE)
        _measure(stage, report, outages)
        errors = set(stage.producer.errors)
        report.require(errors <= {"BrokerUnavailable"}, f"producers had {errors}")
        stage.failed = not report.ok
        return report


def _measure(stage: Stage, report: Report, outages: list[tuple[float, float]]) -> None:
    """Take down how long it took from each kill until both runs begin and outcomes are committed again."""
    found = check.records(stage.server.client, stage.producer.acknowledged).values()
    committed = sorted(int(record["ended"]) / 1000 for record in found if "ended" in record)
    begun = sorted(line.at for line in stage.lines() if line.what == "begun")
    down, up = [], []
    for died, back in outages:
        working = [
            next((at for at in times if at > since), None) for times, since in ((committed, died), (begun, back))
        ]
        if None in working:
            report.require(False, "nothing was done after a kill")  # noqa: FBT003
            return
        down.append(max(working) - died)
        up.append(max(working) - back)
    report.recovered(down)
    report.more |= {
        "server_away": [round(back - died, 2) for died, back in outages],
        "idle_after_return": round(max(up), 2),
    }
    bound = LEASE + LONGEST_SWEEP + LONGEST_PAUSE
    report.require(max(up) <= bound, f"workers did nothing for {max(up):.1f} s after the server's return")
