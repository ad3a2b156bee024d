"""``streamq events``: print what happens, live."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from streamq.cli.options import (
    Age,
    in_one_line,
    json_option,
    opened_app,
    print_any_text,
    server_options,
    to_json,
)
from streamq.cli.printing import ending_cleanly, say, telling_of_trouble
from streamq.config import display_url

if TYPE_CHECKING:
    from streamq.channels.gaps import Gap
    from streamq.events import Event

_COLOURS: Mapping[str, Mapping[str, Any]] = {
    "task.started": {"fg": "cyan"},
    "task.succeeded": {"fg": "green"},
    "task.failed": {"fg": "red"},
    "task.dead": {"fg": "red", "bold": True},
    "task.cancelled": {"fg": "yellow"},
    "task.expired": {"fg": "yellow"},
    "task.reclaimed": {"fg": "yellow"},
    "task.retried": {"fg": "yellow"},
    "worker.online": {"fg": "magenta"},
    "worker.offline": {"fg": "magenta"},
    "worker.heartbeat": {"dim": True},
}


@click.command("events")
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="TYPE",
    help="Only these, such as task.failed, failed, or worker; may be given again.",
)
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only those of this task; may be given again.")
@click.option("--queue", "queues", multiple=True, metavar="NAME", help="Only those of this queue; may be given again.")
@click.option("--since", type=Age(), help="Begin with those of the last 90s, 30m, 2h, 1d, if the app keeps its events.")
@click.option("--count", type=click.IntRange(1), help="End after so many.")
@json_option("Print one JSON object a line.")
@server_options
def command(
    *,
    types: tuple[str, ...],
    tasks: tuple[str, ...],
    queues: tuple[str, ...],
    since: float | None,
    count: int | None,
    url: str,
    namespace: str,
    as_json: bool,
) -> None:
    """Print what happens to tasks and workers, as it happens, until Ctrl-C.

    Tasks are queued, delayed, held (they wait for their turn), started, retried (an attempt failed, and there will be
    another), succeeded, failed, reclaimed (from a worker that died), dead (moved to the dead letters), cancelled, or
    expired (not begun in time), or make progress. Workers are online, send a heartbeat, are offline. TYPE and NAME may
    hold * and ?.

    Events of all databases of the server are printed: Pub/Sub knows no database numbers.
    """
    from streamq.channels.gaps import Gap  # noqa: PLC0415 - --help must answer quickly

    print_any_text()
    with ending_cleanly(), opened_app(url, namespace) as app:
        columns = _Columns()
        left = count
        listener = app.events.listen(types=types, tasks=tasks, queues=queues, since=since)
        with telling_of_trouble(), listener:
            say(f"listening to {display_url(url)}, namespace {namespace}")
            for event in listener:
                if isinstance(event, Gap):
                    say(_missing(event))
                    continue
                click.echo(to_json(event.to_dict()) if as_json else columns.line(event))  # echo flushes
                left = None if left is None else left - 1
                if left == 0:
                    break


def _missing(gap: Gap) -> str:
    if gap.reason == "reconnected":
        return "the server is back; events from the time between are lost"
    return f"{gap.missed} events were dropped: they came faster than they are printed"


class _Columns:
    """Aligns lines that come one by one: a column is as wide as the widest so far."""

    def __init__(self) -> None:
        self._widths = [0, len("worker.heartbeat"), 12, 36, 7]
        self._is_terminal = sys.stdout.isatty()

    def line(self, event: Event) -> str:
        """Make the line of one event."""
        is_task = event.type.startswith("task.")
        subject = event.task if is_task else event.worker
        missing = "-" if is_task else ""
        facts = (self._time(event.time), event.type, subject, event.id, event.queue)
        texts = [in_one_line(fact or missing) for fact in facts]
        self._widths = [max(width, len(text)) for width, text in zip(self._widths, texts, strict=True)]
        cells = [text.ljust(width) for text, width in zip(texts, self._widths, strict=True)]
        if event.type in _COLOURS:
            cells[1] = click.style(cells[1], **_COLOURS[event.type])
        details = dict(event.details)
        if is_task and event.worker:
            details = {"worker": event.worker, **details}
        told = (f"{in_one_line(name)}={self._value(value)}" for name, value in details.items())
        return "  ".join([*cells, *told]).rstrip()

    def _time(self, time: datetime) -> str:
        """Write a time: on a terminal one knows the date."""
        local = time.astimezone()
        return f"{local:%H:%M:%S.%f}"[:-3] if self._is_terminal else local.isoformat(timespec="milliseconds")

    def _value(self, value: Any) -> str:
        if isinstance(value, datetime):
            return self._time(value)
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return in_one_line(",".join(value))
        if isinstance(value, str) and " " not in value:
            return in_one_line(value)
        return in_one_line(to_json(value))
