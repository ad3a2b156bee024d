"""``streamq queues``: show the queues and what waits in them; pause, resume, move or purge them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from streamq.cli.cancel import purge
from streamq.cli.options import json_option, opened_app, server_options, to_json
from streamq.cli.spans import age

if TYPE_CHECKING:
    from streamq.queues import QueueInfo

_NUMBERS = ("length", "pending", "delayed", "dead")


@click.group("queues", invoke_without_command=True)
@json_option("Print a JSON array; ages are seconds, rates messages a second.")
@click.option(
    "--rates",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Look twice, so long apart, and show how many messages came and ended meanwhile, a second.",
)
@server_options
@click.pass_context
def command(context: click.Context, url: str, namespace: str, rates: float | None, *, as_json: bool) -> None:
    """Show all queues: length (messages that wait for a worker), pending (messages that workers have and that have not
    ended), delayed (tasks whose time has not come), dead (dead letters), and the age of the oldest message.

    Where there is something to tell of some queue, there is more: held (tasks that wait for their turn), levels
    (messages that wait, by priority), and notes: whether it is paused, and how many messages are on their way to
    another queue because a move was interrupted.
    """  # noqa: D205 - click shows the first sentence and the rest as one
    if context.invoked_subcommand is not None:
        given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        if given:
            raise click.UsageError(f"options of {context.invoked_subcommand!r} stand after it")
        return
    with opened_app(url, namespace) as app:
        found = app.queues.list(over=rates)
    if as_json:
        click.echo(to_json([_as_dict(queue) for queue in found]))
    elif found:
        click.echo(_table(found))
    else:
        click.echo(f"no queues yet under the namespace {namespace!r}", err=True)


command.add_command(purge)


@command.command("pause")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@server_options
def pause(names: tuple[str, ...], url: str, namespace: str) -> None:
    """Have workers fetch no more from queues.

    All workers see it within a second; what they have fetched goes on. It lasts until the queue is resumed.
    """
    with opened_app(url, namespace) as app:
        for name in names:
            click.echo(f"{name}: {'paused' if app.queues.pause(name) else 'was paused already'}")


@command.command("resume")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@server_options
def resume(names: tuple[str, ...], url: str, namespace: str) -> None:
    """Have workers fetch again from queues that are paused."""
    with opened_app(url, namespace) as app:
        for name in names:
            click.echo(f"{name}: {'resumed' if app.queues.resume(name) else 'was not paused'}")


@command.command("move")
@click.argument("source")
@click.argument("target")
@server_options
def move(source: str, target: str, url: str, namespace: str) -> None:
    """Move all messages of SOURCE that no worker has to TARGET.

    Delayed ones go too; what waits for its turn stays. If it is interrupted, nothing is lost: call it again.

    Exit code: 1 if some stay because TARGET knows another task of their id.
    """
    with opened_app(url, namespace) as app:
        tell = None
        if sys.stderr.isatty():
            tell = lambda count: click.echo(f"\r{count} moved", nl=False, err=True)  # noqa: E731 - used in one place
        done = app.queues.move(source, target, on_progress=tell)
        if tell:
            click.echo("\r", nl=False, err=True)
    click.echo(
        f"{done.moved} moved" + f", {done.conflicts} in conflict with tasks of the same id" * bool(done.conflicts)
    )
    sys.exit(1 if done.conflicts else 0)


def _as_dict(queue: QueueInfo) -> dict[str, Any]:
    return {
        "queue": queue.name,
        "length": queue.length,
        "pending": queue.pending,
        "delayed": queue.delayed,
        "held": queue.held,
        "dead": queue.dead,
        "oldest_age": queue.oldest_age,
        "levels": {str(level): length for level, length in queue.levels.items()},
        "returned": queue.returned,
        "moving": queue.moving,
        "paused": queue.paused,
        "enqueued_rate": queue.enqueued_rate,
        "ended_rate": queue.ended_rate,
    }


def _table(queues: list[QueueInfo]) -> str:
    """Align: names to the left, all else to the right. Columns that no queue has something for are left out."""
    rows = [_row(queue) for queue in queues]
    heads = [head for head in rows[0] if head in (*_NUMBERS, "queue", "oldest") or any(row[head] for row in rows)]
    lines = [heads, *([row[head] for head in heads] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines)


def _row(queue: QueueInfo) -> dict[str, str]:
    levels = (
        "" if queue.levels.keys() <= {5} else " ".join(f"{n}:{queue.levels[n]}" for n in sorted(queue.levels)[::-1])
    )
    notes = ["paused"] * queue.paused + [f"{queue.moving} on the move"] * bool(queue.moving)
    return {
        "queue": queue.name,
        **{head: str(getattr(queue, head)) for head in _NUMBERS},
        "oldest": "-" if queue.oldest_age is None else age(queue.oldest_age),
        "enqueued/s": "" if queue.enqueued_rate is None else f"{queue.enqueued_rate:.1f}",
        "ended/s": "" if queue.ended_rate is None else f"{queue.ended_rate:.1f}",
        "held": str(queue.held or ""),
        "levels": levels,
        "notes": ", ".join(notes),
    }
