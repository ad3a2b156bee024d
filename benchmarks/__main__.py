"""The command line: ``python -m benchmarks``."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import replace

import click
from rich.console import Console

from benchmarks import table
from benchmarks.machine import choose_cores
from benchmarks.peers import celery_python
from benchmarks.rounds import Plan, Rounds
from benchmarks.server import running

_QUICK = Plan(
    rounds=1,
    tasks=6000,
    single=1000,
    round_trips=200,
    few_delayed=1000,
    many_delayed=10_000,
    messages=5000,
    stuck_seconds=0.5,
    chains=4,
    members=1000,
    peer_members=1000,
)
_WHOLE = Plan(
    rounds=3,
    tasks=60_000,
    single=5000,
    round_trips=1000,
    few_delayed=1000,
    many_delayed=1_000_000,
    messages=100_000,
    stuck_seconds=60.0,
    chains=20,
    members=10_000,
    peer_members=1000,
)


@click.command()
@click.option("--rounds", type=click.IntRange(1), help="How often all is measured; 3 if not given.")
@click.option("--tasks", type=click.IntRange(100), help="Tasks in each drain; 60000 if not given.")
@click.option("--quick", is_flag=True, help="One small round, under half a minute: shows that all works, not how fast.")
@click.option("--celery", is_flag=True, help="Measure chains and chords of Celery too; it is installed in .benchmarks.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@click.option("--url", help="A server of your own; keys of a namespace of its own are written and deleted.")
def main(*, rounds: int | None, tasks: int | None, quick: bool, celery: bool, as_json: bool, url: str | None) -> None:
    """Measure streamq against a bare loop on the same server; an embedded one, if none is given."""
    base = _QUICK if quick else _WHOLE
    plan = replace(base, rounds=rounds or base.rounds, tasks=tasks or base.tasks)
    python_of_celery = celery_python() if celery else None
    with running(url, choose_cores()) as server:
        measures = Rounds(plan, server, lambda text: print(text, file=sys.stderr), python_of_celery).run()
    if as_json:
        about = {
            "python": platform.python_version(),
            "server": server.version,
            "pinned": server.cores.pinned,
            "rounds": plan.rounds,
            "tasks": plan.tasks,
        }
        print(json.dumps({**about, "measures": {name: table.summary(one) for name, one in measures.items()}}, indent=2))
    else:
        where = "on two cores" if server.cores.pinned else "not pinned to cores"
        about_text = (
            f"Python {platform.python_version()}, {server.version}, {where};"
            f" medians of {plan.rounds} rounds, {plan.tasks} tasks in each drain"
        )
        table.show(Console(), measures, about_text)


if __name__ == "__main__":
    main()
