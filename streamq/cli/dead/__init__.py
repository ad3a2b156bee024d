"""``streamq dead``: show, redrive or purge dead letters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from streamq.cli.dead.text import Table, as_dict, as_text, as_whole_dict
from streamq.cli.options import (
    Age,
    check_queues,
    in_one_line,
    json_option,
    opened_app,
    print_any_text,
    progress,
    server_options,
    to_json,
)
from streamq.errors import ConfigError

if TYPE_CHECKING:
    from streamq.dead import DeadLetters, Redriven

F = TypeVar("F", bound=Callable[..., Any])

_ROWS = 100  # that are aligned and printed at a time


def _choice_options(command: F) -> F:
    """Add the arguments and options that say which letters are meant; `_opened` takes their values."""
    for add in (
        click.option("--limit", type=click.IntRange(1), help="Only the first so many, oldest first, queue by queue."),
        click.option(
            "--newer-than",
            type=Age(),
            metavar="AGE",
            help="Only what died less than so long ago: 90s, 30m, 2h, 1d12h.",
        ),
        click.option(
            "--older-than",
            type=Age(),
            metavar="AGE",
            help="Only what died more than so long ago: 90s, 30m, 2h, 1d12h.",
        ),
        click.option("--reason", metavar="TEXT", help="Only those with this text in their reason; may hold * and ?."),
        click.option("--task", metavar="NAME", help="Only those of this task; may hold * and ?."),
        click.option("-Q", "--queue", multiple=True, help="Only those of this queue; may be given again."),
        click.argument("ids", metavar="[ID]...", nargs=-1),
    ):
        command = add(command)
    return command


def _filters(*, ids: tuple[str, ...], queue: tuple[str, ...], **others: Any) -> dict[str, Any]:
    """Keep of the values of `_choice_options` those that were given."""
    given = {"ids": ids or None, "queue": queue or None, **others}
    return {name: value for name, value in given.items() if value is not None}


@contextmanager
def _opened(url: str, namespace: str, filters: dict[str, Any]) -> Iterator[DeadLetters]:
    """Give the chosen letters.

    Raises:
        ConfigError: a filter cannot be used, or there is no queue of that name.
    """
    with opened_app(url, namespace) as app:
        chosen = app.dead_letters.where(**filters)
        if "queue" in filters:
            check_queues(app, filters["queue"])
        yield chosen


def _refuse_everything(filters: dict[str, Any], *, everything: bool) -> None:
    """Have whoever means all letters say so.

    Raises:
        ConfigError: nothing says which letters are meant.
    """
    if not everything and not filters.keys() - {"limit"}:
        raise ConfigError("say which letters: by ID, --queue, --task, --reason, --older-than, --newer-than, or --all")


@click.group("dead")
def command() -> None:
    """Show, redrive or purge dead letters: messages that could not be run, with the reason.

    They are malformed, of an unknown task, rejected by their task, or workers died under them; they are kept until
    they are redriven or purged. ID is that of a task or of a letter.
    """


@command.command("list")
@_choice_options
@json_option("Print one JSON object a line.")
@server_options
def list_letters(url: str, namespace: str, *, as_json: bool, **choice: Any) -> None:
    """List dead letters, oldest first, queue by queue. Arguments are not shown."""
    print_any_text()
    filters = _filters(**choice)
    count, table = 0, Table()
    with _opened(url, namespace, filters) as chosen:
        for count, letter in enumerate(chosen, start=1):
            if as_json:
                click.echo(to_json(as_dict(letter)))
                continue
            table.add(letter)
            if count % _ROWS == 0:
                click.echo(table.page())
    if not count and not as_json:
        _say("no dead letters" + " that fit" * bool(filters))
    elif not as_json and count % _ROWS:
        click.echo(table.page())


@command.command("show")
@click.argument("one_id", metavar="ID")
@json_option("Print a JSON object; if the task has several letters, one a line.")
@server_options
def show(one_id: str, url: str, namespace: str, *, as_json: bool) -> None:
    """Show all that a dead letter holds.

    ID is that of a letter or of a task; arguments, error and traceback are shown.

    Exit code: 1 if there is none.
    """
    print_any_text()
    found = False
    with _opened(url, namespace, {"ids": one_id}) as chosen:
        for letter in chosen:
            if found and not as_json:
                click.echo()
            click.echo(to_json(as_whole_dict(letter)) if as_json else as_text(letter))
            found = True
    if not found:
        _say(f"there is no dead letter {in_one_line(one_id)}")
        sys.exit(1)


@command.command("redrive")
@_choice_options
@click.option("--all", "everything", is_flag=True, help="All there are.")
@click.option("--reset", is_flag=True, help="Count attempts and deaths anew.")
@click.option("--new-ids", is_flag=True, help="Make new tasks of them; also of those whose id is in conflict.")
@server_options
def redrive(url: str, namespace: str, *, everything: bool, reset: bool, new_ids: bool, **choice: Any) -> None:
    """Put dead letters back on their queues.

    They run again under the same id, as soon as a worker is free.
    What is no message cannot be run and stays; so does a letter whose id was enqueued again meanwhile.

    Exit code: 1 if some were in conflict, or if none has one of the IDs.
    """
    print_any_text()
    filters = _filters(**choice)
    _refuse_everything(filters, everything=everything)
    with (
        _opened(url, namespace, filters) as chosen,
        progress("redriving", lambda: sum(1 for _ in chosen)) as tell,
    ):
        done = chosen.redrive(reset=reset, new_ids=new_ids, on_progress=tell)
    click.echo(_summary(done))
    sys.exit(1 if done.conflicts or (not done.total and "ids" in filters) else 0)


@command.command("purge")
@_choice_options
@click.option("--all", "everything", is_flag=True, help="All there are.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@server_options
def purge(url: str, namespace: str, *, everything: bool, yes: bool, **choice: Any) -> None:
    """Delete dead letters for good. On a terminal it asks first.

    Exit code: 1 if the answer is no, or if none has one of the IDs.
    """
    print_any_text()
    filters = _filters(**choice)
    _refuse_everything(filters, everything=everything)
    if not yes and not sys.stdin.isatty():
        raise ConfigError("purge deletes for good: add --yes, for there is no terminal to ask at")
    with _opened(url, namespace, filters) as chosen:
        meant = chosen if yes else _confirmed(chosen)
        with progress("purging", lambda: sum(1 for _ in meant)) as tell:
            count = meant.purge(on_progress=tell)
    click.echo(f"{count} purged")
    sys.exit(1 if not count and "ids" in filters else 0)


def _confirmed(chosen: DeadLetters) -> DeadLetters:
    """Ask whether to delete; returns those that were counted, without any that died since."""
    count, newest = 0, None
    for letter in chosen:
        count, newest = count + 1, max(letter.time, newest or letter.time)
    if newest is None:
        return chosen
    click.confirm(f"Delete {count} dead letter{'s' * (count != 1)} for good?", abort=True, err=True)
    return chosen.where(older_than=newest)


def _summary(done: Redriven) -> str:
    parts = [f"{done.redriven} redriven"]
    if done.conflicts:
        parts.append(f"{done.conflicts} in conflict with tasks of the same id (--new-ids makes new tasks of them)")
    if done.unreadable:
        parts.append(f"{done.unreadable} unreadable")
    if done.gone:
        parts.append(f"{done.gone} gone meanwhile")
    return ", ".join(parts)


def _say(text: str) -> None:
    click.echo(f"streamq: {text}", err=True)
