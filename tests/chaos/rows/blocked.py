"""Row 7: tasks hold up the event loop. Leases are renewed from a thread, so nothing is run twice for that; others get
what the loop was sent and has not read. But C code that keeps the interpreter stops that thread too: all that its
process holds goes to others, and what it commits is refused.
"""

from __future__ import annotations

import time
from collections import Counter

from tests.chaos import check
from tests.chaos.producer import Order
from tests.chaos.report import Report
from tests.chaos.stage import Case, Stage

LEASE = 1.5
NAMED = 1.8  # seconds after which the log has named who blocks the loop
TAKEN_OVER = LEASE + 1.4 + 1.0  # the longest pause between two sweeps; what runs when it begins must end
EACH, LONG = 20, 3  # tasks that block in one way, and how many of them do so for long


def run(case: Case) -> Report:
    """Play the row, with the death cap that is the default: a false reclaim counts as a death."""
    with Stage(case, max_deaths=3) as stage:
        # Few at a time in one process, so that not all there is waits behind one blocked loop; and more processes than
        # can be kept busy by what blocks for long.
        stage.fleet.start(3, "-p", "2", "-c", "2", "--no-cancel-lost", lease=LEASE)
        workers = list(stage.fleet.workers)
        yielding = [order for two in zip(_orders(stage, "sleep"), _orders(stage, "busy"), strict=True) for order in two]
        keeping = _orders(stage, "regex")
        for orders in (yielding, keeping):
            for order in orders:
                stage.strike(f"blocked by {order.args[0]}")
            stage.producer.begin(orders, seconds=2.0)
            stage.producer.join()
            check.until_ended(stage.server.client, stage.producer.acknowledged, case.patience)
        _until_nothing_runs(stage)
        report = stage.finish(lease=LEASE)
        # The producer numbers its tasks in the order that it is given.
        tasks = {f"t{number}": order.args for number, order in enumerate([*yielding, *keeping], 1)}
        _judge(stage, report, tasks, "".join(worker.log for worker in workers))
        stage.failed = not report.ok
        return report


def _until_nothing_runs(stage: Stage) -> None:
    """Wait for runs that lost their lease: each is to come to its end and be refused, before workers are stopped."""
    deadline = time.monotonic() + stage.case.patience
    while time.monotonic() < deadline:
        went_on = Counter((line.id, line.fence) for line in stage.lines())  # two lines of each that has ended
        if all(count > 1 for count in went_on.values()):
            check.until_rest(stage.server.client, stage.case.patience)
            time.sleep(LEASE)  # a worker that could not run for long first finds its connections gone
            return
        time.sleep(0.1)


def _orders(stage: Stage, how: str) -> list[Order]:
    """Make tasks that block in this way: for how long, and for how long when they are delivered again."""
    rnd = stage.random
    shorts = [rnd.uniform(0.05, 0.3) for _ in range(EACH - LONG)]
    if how == "regex":
        # Only the first of the long ones is as bad each time. They come last: of processes whose interpreter is kept
        # again and again none would be free to take them over.
        times = [*((short, short) for short in shorts), (TAKEN_OVER, TAKEN_OVER), *[(TAKEN_OVER, 0.0)] * (LONG - 1)]
    else:
        # Delivered again, they are as bad: they may have lain unread behind another, and not been run at all.
        long = NAMED + rnd.uniform(0, 0.4)
        others = [*[long] * (LONG - 1), *shorts]
        times = [(one, one) for one in (long, *rnd.sample(others, len(others)))]
    return [Order("blocking", (how, *one)) for one in times]


def _judge(stage: Stage, report: Report, tasks: dict[str, tuple[str, float, float]], logs: str) -> None:
    """See whether what was falsely reclaimed is what it must be, and whether all of it was said."""
    found, lines = check.records(stage.server.client, tasks), stage.lines()
    reclaims: Counter[str] = Counter()
    for task_id, record in found.items():
        reclaims[tasks[task_id][0]] += int(record.get("deaths", 0))
    report.more["false_reclaims"] = dict(reclaims)
    long = {task_id: args for task_id, args in tasks.items() if args[1] > 1}
    for task_id, (how, _, again) in long.items():
        if how != "regex":
            report.require(f"blocked by task tests.chaos.app.blocking {task_id}," in logs, f"no log names {task_id}")
        else:
            deaths = int(found.get(task_id, {}).get("deaths", 0))
            report.require(deaths >= (2 if again else 1), f"{task_id} kept the interpreter, and nobody took it over")
    runs = Counter(line.id for line in lines if line.what == "begun" and tasks[line.id][0] != "regex")
    report.require(max(runs.values()) == 1, f"run twice, though leases could be renewed: {runs - Counter([*runs])}")
    held = [line for line in lines if line.id in long and long[line.id][0] == "regex" and line.what == "begun"]
    report.require("C code kept the interpreter" in logs, "no log says that the interpreter was kept")
    report.recovered(check.recoveries(lines, [check.Fault("held", line.at, frozenset([line.pid])) for line in held]))
    zombies = sum(line.what == "ended" and line.fence < int(found[line.id].get("fence", 0)) for line in lines)
    report.more["zombie_finishes"] = zombies
    report.require(report.fenced == zombies > 0, f"{zombies} finished too late, and {report.fenced} were refused")
