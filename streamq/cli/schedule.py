"""``streamq schedule``: show, run, pause or remove schedules."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from streamq.cli.options import (
    in_one_line,
    json_option,
    naming_the_server,
    opened_app,
    print_any_text,
    server_options,
    to_json,
)

if TYPE_CHECKING:
    from datetime import datetime

    from streamq.timetable import Schedule, Schedules

F = TypeVar("F", bound=Callable[..., Any])

_HEAD = ("name", "rule", "next", "", "last fired", "queue", "task")


def _where_options(command: F) -> F:
    """Add what says where the schedules are: an app, or a server; `_opened` takes their values."""
    return server_options(click.argument("app", metavar="[MODULE:APP]", required=False)(command))


@contextmanager
def _opened(app: str | None, url: str, namespace: str) -> Iterator[Schedules]:
    """Give the schedules of an app, or, if none is named, of those whose data is on a server.

    Raises:
        ConfigError: there is no such app.
    """
    from streamq.cli.loading import load_app  # noqa: PLC0415 - --help must answer quickly

    if app is None:
        with opened_app(url, namespace) as opened:
            yield opened.schedules
        return
    opened = load_app(app)
    with naming_the_server(opened.settings), opened:
        yield opened.schedules


@click.group("schedule")
def command() -> None:
    """Show, run, pause or remove schedules: what is enqueued by itself, and when.

    They are found by MODULE:APP, such as shop.tasks:app, or without it by --url and --namespace.
    """


@command.command("list")
@json_option("Print a JSON array; times are ISO 8601, with their offset from UTC.")
@_where_options
def list_schedules(app: str | None, url: str, namespace: str, *, as_json: bool) -> None:
    """List schedules: when each is due next, and was fired last.

    Times are those of the time zone of the rule.
    """
    print_any_text()
    with _opened(app, url, namespace) as schedules:
        found = schedules.list()
    if as_json:
        click.echo(to_json([_as_dict(one) for one in found]))
    elif found:
        click.echo(_table([_HEAD, *map(_row, found)]))
    else:
        _say("no schedules yet: workers note those of @app.task(schedule=...) when they start")


@command.command("run")
@click.argument("name")
@_where_options
def run(name: str, app: str | None, url: str, namespace: str) -> None:
    """Enqueue the call of a schedule now, and print the id of its task.

    When it is due next is not changed by that.
    """
    with _opened(app, url, namespace) as schedules:
        click.echo(schedules.run_now(name).id)


@command.command("pause")
@click.argument("name")
@_where_options
def pause(name: str, app: str | None, url: str, namespace: str) -> None:
    """Have a schedule not be fired until it is resumed."""
    with _opened(app, url, namespace) as schedules:
        done = schedules.pause(name)
    _say(f"{in_one_line(name)} is paused" if done else f"{in_one_line(name)} was paused already")


@command.command("resume")
@click.argument("name")
@_where_options
def resume(name: str, app: str | None, url: str, namespace: str) -> None:
    """Have a paused schedule be fired again.

    What was due meanwhile is not made up for.
    """
    with _opened(app, url, namespace) as schedules:
        done = schedules.resume(name)
        found = schedules.get(name)
    due = f", and due next {_clock(found.next_at)}, {_words(found.next_at)}" if found and found.next_at else ""
    _say(f"{in_one_line(name)} is {'resumed' if done else 'not paused'}{due}")


@command.command("remove")
@click.argument("name")
@_where_options
def remove(name: str, app: str | None, url: str, namespace: str) -> None:
    """Remove a schedule for good. What it has enqueued stays.

    One that running workers declare in their code is removed there.

    Exit code: 1 if there is none of this name.
    """
    with _opened(app, url, namespace) as schedules:
        done = schedules.remove(name)
    _say(f"{in_one_line(name)} is removed" if done else f"there is no schedule {in_one_line(name)}")
    sys.exit(0 if done else 1)


def _as_dict(one: Schedule) -> dict[str, str | bool | None]:
    return {
        "name": one.name,
        "queue": one.queue,
        "task": one.task,
        "rule": None if one.rule is None else str(one.rule),
        "missed": one.missed,
        "next": one.next_at.isoformat() if one.next_at else None,
        "last_fired": one.last_at.isoformat() if one.last_at else None,
        "paused": one.paused,
        "declared": one.declared,
    }


def _row(one: Schedule) -> tuple[str, ...]:
    rule = "?" if one.rule is None else str(one.rule)
    when = ("paused", "") if one.next_at is None else (_clock(one.next_at), _words(one.next_at))
    last = "-" if one.last_at is None else _clock(one.last_at)
    return tuple(map(in_one_line, (one.name, rule, *when, last, one.queue, one.task)))


def _clock(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S %Z}"


def _words(time: datetime) -> str:
    """Say in words how far away a moment is, in its largest unit."""
    from datetime import UTC, datetime  # noqa: PLC0415 - --help must answer quickly

    seconds = (time - datetime.now(UTC)).total_seconds()
    if seconds < 0:
        return "overdue"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"in {seconds / size:.0f} {unit}"
    return f"in {seconds:.0f} s"


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _say(text: str) -> None:
    click.echo(f"streamq: {text}", err=True)
