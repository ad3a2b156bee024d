"""``streamq cancel``: cancel tasks that have not ended; and ``streamq queues purge``, for all that wait in a queue."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from streamq.cli.options import (
    Age,
    check_queues,
    in_one_line,
    opened_app,
    print_any_text,
    progress,
    server_options,
)
from streamq.config import check_task_id
from streamq.errors import ConfigError

if TYPE_CHECKING:
    from streamq.app import StreamQ


@click.command("cancel")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("-Q", "--queue", multiple=True, help="All that wait in this queue; may be given again.")
@click.option("--task", metavar="NAME", help="All that wait of this task; may hold * and ?.")
@click.option(
    "--older-than", type=Age(), metavar="AGE", help="All enqueued more than so long ago: 90s, 30m, 2h, 1d12h."
)
@click.option("--running", is_flag=True, help="Also those that workers have.")
@click.option("--all", "everything", is_flag=True, help="All there are.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@server_options
def command(
    ids: tuple[str, ...], url: str, namespace: str, *, running: bool, everything: bool, yes: bool, **choice: Any
) -> None:
    """Cancel tasks that have not ended: those with an ID, wherever they are, or all that wait and fit the options.

    They end as cancelled, for good. Before it cancels all that fit it asks, on a terminal.

    Exit code: 1 if the answer is no, or if the task of an ID has ended already or is not known.
    """
    print_any_text()
    chosen: dict[str, Any] = {name: value for name, value in choice.items() if value not in (None, ())}
    if ids and (everything or running or chosen):
        raise click.UsageError("give IDs or options that say which tasks, and not both")
    if not ids and not everything and not chosen:
        raise ConfigError("say which tasks: by ID, --queue, --task, --older-than, or --all")
    with opened_app(url, namespace) as app:
        if ids:
            sys.exit(_cancel_each(app, ids))
        _cancel_all(app, {**chosen, "running": running, "everything": everything}, yes=yes)


@click.command("purge")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@server_options
def purge(names: tuple[str, ...], url: str, namespace: str, *, yes: bool) -> None:
    """Cancel all that waits in queues, also what is delayed. What workers have goes on. On a terminal it asks first.

    Whoever waits for one of these tasks is told that it was cancelled.

    Exit code: 1 if the answer is no.
    """
    with opened_app(url, namespace) as app:
        _cancel_all(app, {"queue": names}, yes=yes)


def _cancel_each(app: StreamQ, ids: tuple[str, ...]) -> int:
    """Cancel tasks by their ids; returns the exit code."""
    count = 0
    for task_id in ids:
        if app.result(check_task_id(task_id)).cancel():
            count += 1
        else:
            _say(f"{in_one_line(task_id)} is not cancelled: it has ended, or there is no such task")
    click.echo(f"{count} cancelled")
    return 0 if count == len(ids) else 1


def _cancel_all(app: StreamQ, chosen: dict[str, Any], *, yes: bool) -> None:
    """Cancel what is chosen, after a question."""
    if "queue" in chosen:
        check_queues(app, chosen["queue"])
    if not yes:
        _confirm(app, chosen)
    with progress("cancelling", lambda: _count(app, chosen)) as tell:
        count = app.cancel_all(**chosen, on_progress=tell)
    click.echo(f"{count} cancelled")


def _count(app: StreamQ, chosen: dict[str, Any]) -> int:
    from streamq.cancellation import Cancellation, choose  # noqa: PLC0415 - --help must answer quickly

    return Cancellation(app.broker, choose(**chosen)).count()


def _confirm(app: StreamQ, chosen: dict[str, Any]) -> None:
    if not sys.stdin.isatty():
        raise ConfigError("this cancels for good: add --yes, for there is no terminal to ask at")
    count = _count(app, chosen)
    click.confirm(f"Cancel {count} task{'s' * (count != 1)} for good?", abort=True, err=True)


def _say(text: str) -> None:
    click.echo(f"streamq: {text}", err=True)
