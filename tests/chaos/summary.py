"""Joins what several runs of the campaign have found, as it stands in the README.

    python -m tests.chaos --seed 1 --server redis:7.0 --json > redis-1.json
    python -m tests.chaos.summary *.json

Writes two tables in Markdown: of each row the sums over all runs, then of each
server; and what the negative controls have shown. The exit code is 1 if something did not hold.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from tests.chaos.report import Report
from tests.chaos.rows import controls

STORIES = {
    "1": "workers and server killed, processes frozen, connections cut",
    "2": "tasks of up to two leases; workers killed, connections cut",
    "3": "replies to enqueues lost",
    "4": "workers replaced, one after the other",
    "5 always": "server killed, its log synced each time",
    "5 everysec": "server killed, its log synced each second",
    "6": "processes frozen for about a lease",
    "7": "the event loop blocked, the interpreter kept",
    "8": "processes of pools killed",
    "9": "tasks that kill what runs them",
    "10": "data, streams and groups destroyed",
    "11": "the server's memory full",
    "12": "programs that enqueue killed",
    "13": "delays, retries and schedules, under kills and restarts",
    "14": "new tasks, and workers that lack them",
    "15": "channels: subscriptions and server killed, calls cut, one listener too slow",
    "16": "Sentinel failovers, by a kill and by a cut; half of the calls durable",
    "18": "limits of rate and number, workers killed",
    "19": "ordering keys, workers killed",
    "20": "flows over two queues; workers and server killed, connections cut",
}
TAKEN_OUT = {
    "fence": "the fence",
    "once": "the fence, and that a task which has ended stays as it is",
    "renew_pel": "leases only of what is held",
    "ack_first": "acknowledging only what has ended",
    "redis_retries": "ids that make a repeated enqueue one task",
}
_SIGNS = {
    "stale": "outdated results",
    "committed_again": "tasks committed twice",
    "lost": "tasks lost",
    "executed_again": "calls run twice",
}
_COLUMNS = ("", "what happens", "faults", "tasks", "lost", "committed twice", "fenced", "recovery p50, max")


def _read(paths: Iterable[Path]) -> list[Report]:
    found = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return [Report(**{**one, "faults": Counter(one["faults"])}) for one in found]


def _cells(name: str, story: str, reports: Sequence[Report]) -> tuple[str, ...]:
    p50 = [one.recovery_p50 for one in reports if one.recovery_p50 is not None]
    most = [one.recovery_max for one in reports if one.recovery_max is not None]
    destroyed = sum(one.more.get("losses_injected", 0) for one in reports)
    undurable = sum(one.more.get("lost_without_durability", 0) for one in reports)
    lost = [str(sum(one.lost for one in reports) - destroyed)]
    lost += [f"{destroyed:,} destroyed"] if destroyed else []
    lost += [f"{undurable:,} not durable"] if undurable else []
    return (
        name,
        story,
        f"{sum(one.faults.total() for one in reports):,}",
        f"{sum(one.tasks for one in reports):,}",
        ", ".join(lost),
        str(sum(one.committed_again for one in reports)),
        f"{sum(one.fenced for one in reports):,}",
        f"{statistics.median(p50):.1f} s, {max(most):.1f} s" if p50 else "",
    )


def _by_server(reports: Iterable[Report]) -> dict[str, list[Report]]:
    servers: defaultdict[str, list[Report]] = defaultdict(list)
    for one in reports:
        # A failover is played by servers of its own, whatever server was asked for.
        kind = next((kind for kind in ("redis", "valkey") if kind in one.versions), "")
        servers[f"{kind.title()} {one.versions[kind]}" if kind else one.server].append(one)
    return servers


def _markdown(rows: Iterable[Sequence[str]]) -> str:
    header, *others = rows
    lines = [header, ["---"] * len(header), *others]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def rows_table(reports: Sequence[Report]) -> str:
    """Write the table of the rows: sums over all runs."""
    cells: list[Sequence[str]] = [_COLUMNS]
    for name, story in STORIES.items():
        if some := [one for one in reports if one.row == name]:
            cells.append(_cells(name, story, some))
    for server, some in _by_server(one for one in reports if one.row in STORIES).items():
        seeds = ", ".join(map(str, sorted({one.seed for one in some})))
        cells.append(_cells("all", f"**{server}, seeds {seeds}**", some))
    return _markdown(cells)


def controls_table(reports: Sequence[Report]) -> str:
    """Write the table of the negative controls: what was taken out, and what the campaign found then."""
    cells: list[Sequence[str]] = [("taken out", "what the campaign then finds", "runs", "red")]
    for name, what in TAKEN_OUT.items():
        some = [one for one in reports if one.row == f"17 {name}"]
        sign = controls.SIGNS[name]
        counts = [getattr(one, sign) for one in some]
        if some:
            found = f"{min(counts)} to {max(counts)} {_SIGNS[sign]} in each run"
            cells.append((what, found, str(len(some)), str(sum(one.ok for one in some))))
    return _markdown(cells)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def main(*, files: tuple[Path, ...]) -> None:
    """Join what was written by ``python -m tests.chaos --json``."""
    reports = _read(files)
    click.echo(f"{rows_table(reports)}\n\n{controls_table(reports)}")
    for one in reports:
        if not one.ok:
            click.echo(f"row {one.row}, seed {one.seed}, {one.server}: {'; '.join(one.why)}", err=True)
    sys.exit(not all(one.ok for one in reports))


if __name__ == "__main__":
    main()
