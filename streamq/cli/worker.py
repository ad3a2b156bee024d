"""``streamq worker``: run tasks."""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from streamq import __version__
from streamq.cli.serving import DEFAULTS, concurrency_option, grace_option, log_options, name_option
from streamq.cli.weights import read_queues, read_weights
from streamq.config import DEFAULT_QUEUE, WorkerSettings
from streamq.worker.supervisor import Supervisor
from streamq.worker.tally import Tally


@click.command("worker")
@click.argument("app", metavar="MODULE:APP")
@click.option(
    "-Q",
    "--queues",
    default=DEFAULT_QUEUE,
    show_default=True,
    help="Queues to serve, joined by commas. Each is read when those before it are empty: busy ones starve what"
    " comes after them. With weights, as in mail:3,files:1, that is how often each of them comes first.",
)
@click.option(
    "--weights",
    metavar="LEVEL:WEIGHT,...",
    help="How often each priority level comes first, such as 9:10,5:3,0:1; a level that is not named has its own number"
    " plus one, and so have all with 'auto'.  [default: larger levels always do, and can starve others]",
)
@concurrency_option("Async tasks at a time, in each process.")
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=DEFAULTS.threads,
    show_default=True,
    help="Sync tasks at a time, in each process.",
)
@click.option(
    "--pool-processes",
    type=click.IntRange(1),
    default=DEFAULTS.pool_processes,
    show_default="the number of cores, at most 4",
    metavar="PROCESSES",
    help='Tasks of pool="process" at a time, in each process.',
)
@click.option("-p", "--processes", type=click.IntRange(1), default=1, show_default=True, help="Child processes.")
@name_option("What logs and events call it.")
@click.option(
    "--lease",
    type=click.FloatRange(0.5),
    default=DEFAULTS.lease,
    show_default=True,
    metavar="SECONDS",
    help="Without a sign of life for so long, its tasks go to other workers.",
)
@grace_option("tasks")
@click.option(
    "--cancel-lost/--no-cancel-lost",
    default=DEFAULTS.cancel_lost,
    show_default=True,
    help="Whether an async task whose lease went to another worker is cancelled.",
)
@click.option(
    "--stuck-after",
    type=click.FloatRange(0.1),
    default=DEFAULTS.stuck_after,
    show_default=True,
    metavar="SECONDS",
    help="A process is replaced when a task cannot be ended for so long after its time limit, or holds up the loop.",
)
@click.option(
    "--max-tasks-per-child",
    type=click.IntRange(1),
    metavar="TASKS",
    help="Replace a process when it has ended about so many.  [default: never]",
)
@click.option(
    "--max-memory-per-child",
    type=click.FloatRange(1),
    metavar="MIB",
    help="Replace a process that has had more in memory.  [default: never]",
)
@click.option(
    "--health-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Serve /live, /ready and /metrics over HTTP; 0: on any free port.  [default: no]",
)
@click.option(
    "--health-host",
    metavar="ADDRESS",
    help="Where to serve them.  [default: all addresses, for probes come from outside of a container]",
)
@log_options
def command(app: str, queues: str, weights: str | None, **options: Any) -> None:
    r"""Run the tasks of MODULE:APP, such as shop.tasks:app, until SIGTERM or Ctrl-C.

    A second signal ends it at once. What runs then, and what had not started, goes back to its queue. SIGQUIT
    (Ctrl-\) does so at the first, and prints the stack of each thread and task before.
    """
    names, queue_weights = read_queues(queues)
    worker = WorkerSettings(
        queues=names, queue_weights=queue_weights, level_weights=read_weights(weights) if weights else (), **options
    )
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", level=worker.log_level)

    tally = Tally()
    health = _serve_health(worker, tally)

    def announce(ready: dict[str, Any]) -> None:
        click.echo(_banner(app, worker, ready, health), err=True)

    def refuse(reason: str) -> None:
        click.echo(f"streamq: {reason}", err=True)

    sys.exit(Supervisor(app, worker, announce, refuse, tally).run())


def _serve_health(worker: WorkerSettings, tally: Tally) -> str | None:
    """Answer probes from now on; returns where, or None if nobody asked for it."""
    if worker.health_port is None:
        return None
    from streamq.worker.health import Health  # noqa: PLC0415 - most workers never need it

    health = Health(tally, worker.health_host, worker.health_port)
    health.start()
    return health.address


def _banner(app: str, worker: WorkerSettings, ready: dict[str, Any], health: str | None) -> str:
    tasks = ready["tasks"]
    shown = ", ".join(tasks[:8]) + (f" and {len(tasks) - 8} more" if len(tasks) > 8 else "")  # noqa: PLR2004
    processes = "1 process" if worker.processes == 1 else f"{worker.processes} processes"
    lines = {
        "app": app,
        "tasks": shown or "none! (are their modules in include=[...]?)",
        "queues": ", ".join(worker.queues) + " (weighted)" * bool(worker.queue_weights),
        "server": f"{ready['url']} ({ready['server']})",
        "runs": f"{processes}, in each {worker.concurrency} async and {worker.threads} sync tasks at a time",
        "times": f"lease {worker.lease:g} s, grace {worker.grace:g} s",
    }
    if health is not None:
        lines["health"] = f"{health}/live, /ready, /metrics"
    return "\n".join(
        [
            f"streamq {__version__} worker {worker.name!r} is ready",
            *(f"  {k:<7} {v}" for k, v in lines.items()),
        ]
    )
