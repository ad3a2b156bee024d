"""Row 12: programs that enqueue are killed, at any time and in the midst of a call. Their successors go on.

A program, `main`, takes down each id when ``delay()`` has returned. Its successor goes on after the last that it finds,
so what was not taken down is sent again, though it may be in Redis. Each has a proxy of its own, which holds up a call
or its reply until the program has been killed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tests.chaos.ledger import Line
from tests.chaos.report import Report
from tests.chaos.stage import Case, Stage
from tests.proxy import Fault, Proxy
from tests.workers import ROOT, until

LEASE = 1.5
TASKS = (334, 333, 333)
KILLS = (4, 3, 3)
AT_ANY_TIME = "producer killed"
CALL_LOST = "producer killed, its call lost"
REPLY_LOST = "producer killed, its call carried out"
KINDS = (AT_ANY_TIME, CALL_LOST, REPLY_LOST)
_PAUSE_SECONDS = 0.005


class Kill(NamedTuple):
    """A program is killed at its n-th call, or, at any time, so many seconds after it."""

    kind: str
    nth: int
    seconds: float


def run(case: Case) -> Report:
    """Play the row."""
    with Stage(case) as stage:
        stage.fleet.start(2, lease=LEASE)
        programs = [
            _Program(stage, f"p{number}", tasks, _plan(stage.random, tasks, kills))
            for number, (tasks, kills) in enumerate(zip(TASKS, KILLS, strict=True))
        ]
        for program in programs:
            program.start()
        for program in programs:
            program.join()
        for program in programs:
            stage.producer.acknowledged += program.noted()
        report = stage.finish(lease=LEASE)
        _account(report, stage.producer.acknowledged, stage.lines(), [program.failure for program in programs])
        stage.failed = not report.ok
        return report


def _plan(rnd: random.Random, tasks: int, count: int) -> list[Kill]:
    """Have each kind come at least once, and all in the first two thirds: so there is something left to kill."""
    kinds = rnd.sample([*KINDS, *rnd.choices(KINDS, k=count - len(KINDS))], count)
    moments = [0, *sorted(rnd.sample(range(1, tasks * 2 // 3), count))]
    return [
        Kill(kind, moment - before, rnd.uniform(0, 2 * _PAUSE_SECONDS))
        for kind, (before, moment) in zip(kinds, pairwise(moments), strict=True)
    ]


def _account(report: Report, acknowledged: list[str], lines: list[Line], failures: list[str]) -> None:
    ran = [line.id for line in lines if line.what == "begun"]
    unknown = set(ran) - set(acknowledged)
    report.require(not any(failures), "; ".join(filter(None, failures)))
    report.require(len(set(acknowledged)) == sum(TASKS), f"{len(set(acknowledged))} acknowledged, not {sum(TASKS)}")
    report.require(not unknown, f"{len(unknown)} ran, and were not acknowledged: {sorted(unknown)[:3]}")
    report.require(len(ran) == len(set(ran)), f"{len(ran) - len(set(ran))} runs too many")
    report.require(sum(report.faults.values()) == sum(KILLS), "not all were killed")


class _Program(threading.Thread):
    """One program and its successors: a thread that starts and kills them as planned."""

    def __init__(self, stage: Stage, name: str, tasks: int, kills: Sequence[Kill]) -> None:
        super().__init__(name=name, daemon=True)
        self.failure = ""
        self._stage = stage
        self._tasks = tasks
        self._kills = kills
        self._notes = stage.folder / name

    def noted(self) -> list[str]:
        """Read the ids that it has taken down."""
        return self._notes.read_text().splitlines() if self._notes.exists() else []

    def run(self) -> None:
        try:
            with Proxy(self._stage.server.url) as proxy:
                self._play(proxy)
        except Exception as error:  # noqa: BLE001 - the row reports it
            self.failure = f"{self.name}: {error}"

    def _play(self, proxy: Proxy) -> None:
        for kill in self._kills:
            fault = Fault.HOLE if kill.kind == CALL_LOST else Fault.DELAY
            strike = proxy.strike("enqueue", fault, nth=kill.nth, seconds=None)
            process = self._begin(proxy)
            until(lambda it=strike: it.struck, seconds=60, why=f"it does not come to call {kill.nth}")
            if kill.kind == AT_ANY_TIME:
                strike.release()
                time.sleep(kill.seconds)
            process.kill()
            if (code := process.wait()) != -signal.SIGKILL:
                raise RuntimeError(f"it had ended by itself, with exit code {code}")
            self._stage.strike(kill.kind, [process.pid])
        if (code := self._begin(proxy).wait(timeout=60)) != 0:
            raise RuntimeError(f"it ended with exit code {code}")

    def _begin(self, proxy: Proxy) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", __name__, self.name, str(self._tasks), str(self._notes)]
        return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "STREAMQ_URL": proxy.url})


def main(name: str, tasks: str, notes: str) -> None:
    """Enqueue so many tasks, but for those that are noted already."""
    from tests.chaos import app  # noqa: PLC0415 - it reads the environment

    path = Path(notes)
    done = len(path.read_text().splitlines()) if path.exists() else 0
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for number in range(done, int(tasks)):
        result = app.on_loop.using(task_id=f"{name}-{number}").delay()
        os.write(file, f"{result.id}\n".encode())
        time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
