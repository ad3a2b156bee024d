"""``streamq queues``: show the queues and what waits in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streamq.cli.options import json_option, naming_the_server, server_options, settings_of, to_json

if TYPE_CHECKING:
    from streamq.inspector import QueueInfo

_HEAD = ("queue", "length", "pending", "delayed", "dead", "oldest")


@click.command("queues")
@json_option("Print a JSON array; ages are seconds.")
@server_options
def command(url: str, namespace: str, *, as_json: bool) -> None:
    """Show all queues: length (messages that wait for a worker), pending (messages that workers have and that have not
    ended), delayed (tasks whose time has not come), dead (dead letters), and the age of the oldest message.
    """  # noqa: D205 - click shows the first sentence and the rest as one
    from streamq import inspector  # noqa: PLC0415 - --help must answer quickly

    settings = settings_of(url, namespace)
    with naming_the_server(settings):
        found = inspector.queues(settings)
    if as_json:
        click.echo(to_json([_as_dict(queue) for queue in found]))
    elif found:
        click.echo(_table([_HEAD, *map(_row, found)]))
    else:
        click.echo(f"no queues yet under the namespace {namespace!r}", err=True)


def _as_dict(queue: QueueInfo) -> dict[str, str | int | float | None]:
    return {
        "queue": queue.name,
        "length": queue.length,
        "pending": queue.pending,
        "delayed": queue.delayed,
        "dead": queue.dead,
        "oldest_age": queue.oldest_age,
    }


def _row(queue: QueueInfo) -> tuple[str, ...]:
    numbers = (queue.length, queue.pending, queue.delayed, queue.dead)
    return (queue.name, *map(str, numbers), "-" if queue.oldest_age is None else _age(queue.oldest_age))


def _age(seconds: float) -> str:
    """Write an age in its two largest units."""
    if seconds < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{seconds:.1f} s"
    rest = int(seconds)
    parts: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def _table(rows: list[tuple[str, ...]]) -> str:
    """Align: names to the left, all else to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)
