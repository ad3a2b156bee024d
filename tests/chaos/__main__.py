"""The command line: ``python -m tests.chaos``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict

import click

from tests.chaos.report import Report, table
from tests.chaos.rows import chosen
from tests.chaos.stage import Case
from tests.servers import EMBEDDED, IMAGES

_SMOKE = "1,3,4,15,17,20"
_LONGEST_SECONDS = 300  # of a row


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Repeats a run: all chance comes from it.")
@click.option("--server", type=click.Choice((EMBEDDED, *IMAGES)), default=EMBEDDED, show_default=True)
@click.option("--rows", help="Their numbers, joined by commas.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print no table, only one line of JSON for each row.")
@click.option("--smoke", is_flag=True, help=f"A smaller form of rows {_SMOKE}.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Rows at a time.")
def main(*, seed: int, server: str, rows: str | None, as_json: bool, smoke: bool, jobs: int) -> None:
    """Do harm, and account for every task. The exit code is 1 if something does not hold that must."""
    try:
        names = chosen(rows or (_SMOKE if smoke else None))
    except KeyError as error:
        raise click.BadParameter(f"there is no row {error}", param_hint="--rows") from None
    reports: dict[str, Report] = {}
    with ThreadPoolExecutor(jobs) as pool:
        playing = {pool.submit(_play, Case(name, seed, server, smoke)): name for name in names}
        for one in as_completed(playing):
            report = reports[playing[one]] = one.result()
            click.echo(report.to_json() if as_json else _line(report))
    if not as_json:
        click.echo("\n" + table([reports[name] for name in names]))
    sys.exit(not all(report.ok for report in reports.values()))


def _play(case: Case) -> Report:
    command = [sys.executable, "-m", "tests.chaos.play", json.dumps(asdict(case))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            told, _ = process.communicate(timeout=_LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # it ends what it has started
            told, _ = process.communicate()
    try:
        found = json.loads(told)
    except json.JSONDecodeError as error:
        report = Report(case.row, case.seed, case.server)
        report.require(False, f"it came to no end: {error}")  # noqa: FBT003
        return report
    return Report(**{**found, "faults": Counter(found["faults"])})


def _line(report: Report) -> str:
    how = "ok" if report.ok else f"FAILED: {'; '.join(report.why)}"
    return f"row {report.row}: {report.tasks} tasks, {report.faults.total()} faults, {report.seconds:.1f} s, {how}"


if __name__ == "__main__":
    main()
