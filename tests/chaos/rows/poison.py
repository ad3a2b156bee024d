"""Row 9: tasks kill what runs them, or fail each time. They end as dead letters, and all others are done."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter

from tests.chaos import check
from tests.chaos.producer import Order
from tests.chaos.report import Report
from tests.chaos.stage import Case, Stage

LEASE = 15.0  # nothing waits for it
MAX_DEATHS = 3
TASKS, POISON = 500, 20
# What the reason of each kind's dead letters is.
REASONS = {
    "crash": r"its worker died \d+ times: signal SIGSEGV",
    "exit": r"its worker died \d+ times: exit code 7",
    "out of memory": r"its worker died \d+ times: signal SIGKILL",
    "raise": r"gave up after attempt 3",
}
# What is known to be dangerous is given a process of its own.
PLACES = ("poison_in_process", "poison_on_loop", "poison_in_process", "poison_in_thread", "poison_in_process")
PATIENCE = 90.0  # each death costs the start of a process, and a machine may have more to do


def run(case: Case) -> Report:
    """Play the row."""
    with Stage(dataclasses.replace(case, patience=PATIENCE), max_deaths=MAX_DEATHS) as stage:
        rnd = stage.random
        numbers = sorted(rnd.sample(range(1, TASKS + 1), POISON))
        # The producer numbers its tasks in the order that it is given.
        poison, orders = {}, [_harmless(stage) for _ in range(TASKS)]
        for nth, number in enumerate(numbers):
            kind, place = [*REASONS][nth % len(REASONS)], PLACES[nth // len(REASONS)]
            stage.strike(f"poison: {kind}")
            poison[f"t{number}"] = kind
            orders[number - 1] = Order("never") if kind == "raise" else Order(place, (kind,))
        # Few at a time: what kills a process takes along all that runs there, which then is suspect as well.
        stage.fleet.start(2, "-p", "2", "-c", "8", "--threads", "4", lease=LEASE)
        stage.producer.begin(orders, seconds=8.0)
        report = stage.finish(states={"dead": POISON}, lease=LEASE)
        _judge(stage, report, poison)
        stage.failed = not report.ok
        return report


def _harmless(stage: Stage) -> Order:
    return Order(stage.random.choice(("on_loop", "on_loop", "in_thread")), (stage.random.uniform(0, 0.1),))


def _judge(stage: Stage, report: Report, poison: dict[str, str]) -> None:
    """See whether the dead letters are the poison and nothing else, each for its own reason."""
    client, lines = stage.server.client, stage.lines()
    letters = [fields for _, fields in client.xrange(f"{check.QUEUE}:dead")]
    buried = Counter(letter["id"] for letter in letters)
    expected = Counter([*poison])
    report.require(not expected - buried, f"poison that is no dead letter: {expected - buried}")
    report.require(not buried - expected, f"dead letters that should not be: {buried - expected}")
    for letter in letters:
        reason = REASONS.get(poison.get(letter["id"], ""), "it is none")
        report.require(bool(re.fullmatch(reason, letter["reason"])), f"{letter['id']}: {letter['reason']}")
    killing = [line for line in lines if line.what == "begun" and poison.get(line.id, "raise") != "raise"]
    runs = Counter(line.id for line in killing)
    report.require(set(runs) == {one for one, kind in poison.items() if kind != "raise"}, "not all poison was run")
    # One more if a worker dies before it can say that the process of the last run did.
    report.require(max(runs.values()) <= MAX_DEATHS + 1, f"some poison was run again and again: {runs}")
    report.recovered(check.recoveries(lines, [check.Fault("poison", one.at, frozenset([one.pid])) for one in killing]))
    found = check.records(client, stage.producer.acknowledged)
    hit = [int(record.get("deaths", 0)) for task_id, record in found.items() if task_id not in poison]
    report.more |= {"others_hit": sum(map(bool, hit)), "deaths_of_another_at_most": max(hit)}
