"""``streamq worker``: run tasks."""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from streamq import __version__
from streamq.config import DEFAULT_QUEUE, WorkerSettings
from streamq.worker.supervisor import Supervisor

_DEFAULTS = WorkerSettings()


@click.command("worker")
@click.argument("app", metavar="MODULE:APP")
@click.option("-Q", "--queues", default=DEFAULT_QUEUE, show_default=True, help="Queues to serve, joined by commas.")
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(1),
    default=_DEFAULTS.concurrency,
    show_default=True,
    help="Async tasks at a time, in each process.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=_DEFAULTS.threads,
    show_default=True,
    help="Sync tasks at a time, in each process.",
)
@click.option("-p", "--processes", type=click.IntRange(1), default=1, show_default=True, help="Child processes.")
@click.option("-n", "--name", default=_DEFAULTS.name, show_default="the host's", help="What logs and events call it.")
@click.option(
    "--lease",
    type=click.FloatRange(0.5),
    default=_DEFAULTS.lease,
    show_default=True,
    metavar="SECONDS",
    help="Without a sign of life for so long, its tasks go to other workers.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=_DEFAULTS.grace,
    show_default=True,
    metavar="SECONDS",
    help="How long running tasks may go on after SIGTERM.",
)
@click.option(
    "-l",
    "--log-level",
    default=_DEFAULTS.log_level,
    show_default=True,
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], case_sensitive=False),
)
@click.option("--log-format", default=_DEFAULTS.log_format, show_default=True, type=click.Choice(["text", "json"]))
def command(app: str, queues: str, **options: Any) -> None:
    """Run the tasks of MODULE:APP, such as shop.tasks:app, until SIGTERM or Ctrl-C.

    A second signal ends it at once. What runs then, and what had not started, goes back to its queue.
    """
    worker = WorkerSettings(queues=tuple(name.strip() for name in queues.split(",")), **options)
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", level=worker.log_level)

    def announce(ready: dict[str, Any]) -> None:
        click.echo(_banner(app, worker, ready), err=True)

    def refuse(reason: str) -> None:
        click.echo(f"streamq: {reason}", err=True)

    sys.exit(Supervisor(app, worker, announce, refuse).run())


def _banner(app: str, worker: WorkerSettings, ready: dict[str, Any]) -> str:
    tasks = ready["tasks"]
    shown = ", ".join(tasks[:8]) + (f" and {len(tasks) - 8} more" if len(tasks) > 8 else "")  # noqa: PLR2004
    processes = "1 process" if worker.processes == 1 else f"{worker.processes} processes"
    lines = {
        "app": app,
        "tasks": shown or "none! (are their modules in include=[...]?)",
        "queues": ", ".join(worker.queues),
        "server": f"{ready['url']} ({ready['server']})",
        "runs": f"{processes}, in each {worker.concurrency} async and {worker.threads} sync tasks at a time",
        "times": f"lease {worker.lease:g} s, grace {worker.grace:g} s",
    }
    return "\n".join(
        [
            f"streamq {__version__} worker {worker.name!r} is ready",
            *(f"  {k:<7} {v}" for k, v in lines.items()),
        ]
    )
