"""``streamq events``: print what happens, live."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from streamq.cli.options import (
    in_one_line,
    json_option,
    naming_the_server,
    print_any_text,
    server_options,
    settings_of,
    to_json,
)

if TYPE_CHECKING:
    from streamq.config import Settings
    from streamq.events import Event, Wanted

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
@click.option("--count", type=click.IntRange(1), help="End after so many.")
@json_option("Print one JSON object a line.")
@server_options
def command(
    *,
    types: tuple[str, ...],
    tasks: tuple[str, ...],
    queues: tuple[str, ...],
    count: int | None,
    url: str,
    namespace: str,
    as_json: bool,
) -> None:
    """Print what happens to tasks and workers, as it happens, until Ctrl-C.

    Tasks are queued, delayed, held (they wait for their turn), started, retried (an attempt failed, and there will be
    another), succeeded, failed, reclaimed (from a worker that died), dead (moved to the dead letters), cancelled, or
    expired (not begun in time). Workers are online, send a heartbeat, are offline. TYPE and NAME may hold * and ?.

    Events of all databases of the server are printed: Pub/Sub knows no database numbers.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both ways to end it are one
    try:
        from streamq.events import Wanted  # noqa: PLC0415 - --help must answer quickly

        print_any_text()
        wanted = Wanted(types, tasks, queues)
        columns = _Columns()
        for event in islice(_follow(settings_of(url, namespace), wanted), count):
            click.echo(to_json(event.to_dict()) if as_json else columns.line(event))  # echo flushes
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Nobody reads any more. Python would complain when it flushes what is left at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _follow(settings: Settings, wanted: Wanted) -> Iterator[Event]:
    """Give the events, and say on standard error what stands in their way."""
    from streamq.events import Connected, Lost, Unreadable, listen  # noqa: PLC0415 - --help must answer quickly

    with naming_the_server(settings) as server:
        for heard in listen(settings, wanted):
            match heard:
                case Connected(again=False):
                    _say(f"listening to {server}, namespace {settings.namespace}")
                case Connected():
                    _say("the server is back; events from the time between are lost")
                case Lost(error):
                    _say(f"lost the connection: {error}; trying again")
                case Unreadable(channel, reason):
                    _say(in_one_line(f"skipped a message on {channel} that is no event: {reason}"))
                case event:
                    yield event


def _say(text: str) -> None:
    click.echo(f"streamq: {text}", err=True)


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
