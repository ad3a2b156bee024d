"""Where a row is played: its server, proxy, workers and producer, and the account at the end."""

from __future__ import annotations

import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Self

from tests import proxy as proxies
from tests.chaos import check, instrument, ledger, server
from tests.chaos.fleet import Fleet
from tests.chaos.producer import Producer
from tests.chaos.report import Report
from tests.chaos.server import Server
from tests.proxy import Fault, Proxy

NETWORK = {
    Fault.BEFORE: "connection reset",
    Fault.AFTER: "reply dropped",
    Fault.DELAY: "reply delayed",
    Fault.HOLE: "black hole",
}


@dataclass(frozen=True)
class Case:
    """What is to be played.

    Attributes:
        row: its name in `rows.ROWS`.
        seed: of all chance.
        server: ``embedded`` or an image.
        smoke: a smaller form, of some seconds.
        patience: seconds after the last fault in which all tasks must have ended.
    """

    row: str
    seed: int
    server: str
    smoke: bool = False
    patience: float = 30.0


class Stage:
    """The parts of a row, for ``with``.

    Args:
        case: what is played.
        max_deaths: of the app; by default so many that chance does not lead to a dead letter.
        start: starts the server.
        options: of the server's configuration; by default it keeps what it has acknowledged through a kill.

    Attributes:
        random: the source of all chance.
        server: the campaign's own way to the server.
        proxy: the way that workers and producer take.
        folder: for all that the row writes.
        fleet: the workers; none runs yet.
        producer: enqueues.
        app: the module of the tasks.
        faults: how many there were, by kind.
        failed: logs and ledger are kept.
    """

    def __init__(
        self, case: Case, *, max_deaths: int = 100, start: Callable[..., Server] = server.start, **options: str
    ) -> None:
        self.case = case
        self.random = random.Random(f"{case.row} {case.seed}")  # noqa: S311 - it must be repeatable
        self.faults: Counter[str] = Counter()
        self._hits: list[check.Fault] = []
        self._began = time.monotonic()
        self.folder = Path(tempfile.mkdtemp(prefix=f"streamq-chaos-{case.row.replace(' ', '-')}-", dir="/tmp"))
        self.failed = True
        self.server = start(case.server, self.folder, **options)
        self.proxy = Proxy(self.server.url)
        self._max_deaths = max_deaths

    def __enter__(self) -> Self:
        self.proxy.__enter__()
        self._ledger = self.folder / "ledger"
        url = self.server.way or self.proxy.url
        os.environ |= {
            "STREAMQ_URL": url,
            ledger.PATH: str(self._ledger),
            "CHAOS_MAX_DEATHS": str(self._max_deaths),
        }
        from tests.chaos import app  # noqa: PLC0415 - it reads the environment

        proxies.SCRIPTS |= instrument.names()
        self.app = app
        self.producer = Producer(app)
        self.fleet = Fleet(url, str(self._ledger), self.random, self.strike)
        return self

    def __exit__(self, *_: object) -> None:
        self.fleet.close()
        self.producer.close()
        self.proxy.__exit__()
        self.server.close()
        if self.failed:
            self.fleet.keep_logs(self.folder)
            print(f"row {self.case.row}: logs and ledger are in {self.folder}", file=sys.stderr)  # noqa: T201
        else:
            shutil.rmtree(self.folder)

    def strike(self, kind: str, pids: Iterable[int] = ()) -> None:
        """Note a fault, and the processes whose runs it ended or held up."""
        self.faults[kind] += 1
        self._hits.append(check.Fault(kind, time.time(), frozenset(pids)))

    def kill_server(self, away: float = 0.0) -> tuple[float, float]:
        """Kill the server with SIGKILL, and start it again after so many seconds; returns when it died and was back."""
        self.server.kill()
        died = time.time()
        self.strike("server killed")
        time.sleep(away)
        self.server.begin()
        self.server.until_answers()
        return died, time.time()

    def lines(self) -> list[ledger.Line]:
        """Read the ledger."""
        return ledger.read(self._ledger)

    def finish(self, *, states: dict[str, int] | None = None, lease: float = 2.0) -> Report:
        """Wait until all is done and at rest, stop everything, look, and make the report.

        Args:
            states: how many tasks are to end in other states than ``succeeded``.
            lease: of the workers, in seconds.
        """
        client, case = self.server.client, self.case
        self.producer.join()
        self.fleet.thaw()
        self.proxy.storm(0, 0.0)
        ids = self.producer.acknowledged
        lost = check.until_ended(client, ids, case.patience)
        if not lost:
            check.until_rest(client, 3 * lease + 5)
        self.fleet.stop()
        self.producer.close()
        return self._account(lost, states or {})

    def _account(self, lost: set[str], states: dict[str, int]) -> Report:
        client, case, ids = self.server.client, self.case, self.producer.acknowledged
        lines, found = self.lines(), check.records(client, ids)
        runs = Counter((line.id, line.attempt) for line in lines if line.what == "begun")
        commits = check.counts(client, instrument.COMMITS)
        ended = Counter(found[task_id]["state"] for task_id in ids if task_id not in lost)
        for passed in self.proxy.passed:
            if passed.fault:
                self.faults[NETWORK[passed.fault]] += 1
        report = Report(case.row, case.seed, case.server, versions(self.server.version), self.faults)
        report.tasks, report.lost = len(ids), len(lost)
        report.executed_again = len({task_id for (task_id, _), count in runs.items() if count > 1})
        report.committed_again = sum(count > 1 for count in commits.values())
        report.stale = len(check.stale(found))
        report.fenced = sum(check.counts(client, instrument.REFUSED).values())
        report.reclaimed = sum(int(record.get("deaths", 0)) for record in found.values())
        report.recovered(check.recoveries(lines, self._hits))
        report.left = check.left(client, lost, consumers=self.fleet.ended, letters=states.get("dead", 0))
        report.left += check.connections(client)
        uncommitted = [one for one in ids if one not in lost and one not in commits and found[one]["state"] != "dead"]
        expected = {"succeeded": len(ids) - sum(states.values()) - len(lost), **states}
        report.require(not lost, f"lost {len(lost)}, such as {sorted(lost)[:3]}")
        report.require(not report.committed_again, f"committed twice: {report.committed_again}")
        report.require(not report.stale, f"results of runs that had lost their lease: {report.stale}")
        report.require(not uncommitted, f"ended without a commit: {uncommitted[:3]}")
        report.require({k: v for k, v in expected.items() if v} == dict(ended), f"states {dict(ended)}")
        report.require(not report.left, f"left: {'; '.join(report.left[:5])}")
        report.require(not self.fleet.problems, "; ".join(self.fleet.problems))
        report.seconds = round(time.monotonic() - self._began, 1)
        self.failed = not report.ok
        return report


def versions(server_version: str) -> dict[str, str]:
    kind, _, number = server_version.partition(" ")
    return {
        "streamq": version("streamq"),
        "python": platform.python_version(),
        "redis-py": version("redis"),
        kind: number,
    }
