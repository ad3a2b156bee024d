"""``streamq call``: enqueue a task by its name."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from streamq.cli.loading import load_app
from streamq.cli.options import in_one_line, print_any_text, stop_waiting, to_json
from streamq.config import LEVELS
from streamq.errors import ConfigError, ResultTimeout, StreamqError, TaskFailed

if TYPE_CHECKING:
    from streamq.app import StreamQ
    from streamq.results import AsyncResult
    from streamq.tasks import Task

_FAILED, _LATE = 1, 3
_MOST_NAMES = 8


@click.command("call")
@click.argument("app", metavar="MODULE:APP")
@click.argument("task", metavar="TASK")
@click.argument("arguments", metavar="[ARGUMENTS]", default="[]")
@click.option("--wait", is_flag=True, help="Wait for the task to end, and print its result as JSON.")
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Wait no longer than this.")
@click.option("-Q", "--queue", help="Another queue than the task's own.")
@click.option(
    "--priority",
    type=click.IntRange(LEVELS[0], LEVELS[-1]),
    help="Another priority than the task's own; in its queue, larger ones come first.",
)
@click.option("--countdown", type=click.FloatRange(0), metavar="SECONDS", help="Run it not before this time is over.")
@click.option("--id", "task_id", help="An id of your own; while there is a record of it, calling again does nothing.")
def command(app: str, task: str, arguments: str, timeout: float | None, *, wait: bool, **options: Any) -> None:
    """Enqueue TASK of MODULE:APP and print its id, with --wait to standard error.

    ARGUMENTS are JSON: an array such as '[2, 3]' holds positional arguments, an object such as '{"x": 2}' keywords.

    Exit code: 0 if it is enqueued, or has succeeded; 1 if it has failed, 2 if it cannot be enqueued, 3 if it has not
    ended when the time to wait is over.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait")
    print_any_text()
    args, kwargs = _read_arguments(arguments)
    with load_app(app) as loaded:
        found = _find_task(loaded, app, task)
        try:
            result = found.apply_async(args, kwargs, **options)
        except TypeError as error:
            raise ConfigError(str(error)) from error
        click.echo(result.id, err=wait)
        if wait:
            sys.exit(_wait(loaded, result, timeout))


def _read_arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Make positional arguments and keywords of JSON.

    Raises:
        ConfigError: it is not JSON, or neither an array nor an object.
    """
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if "\n" in text else f"column {error.colno}"
        raise ConfigError(f"ARGUMENTS are not JSON: {error.msg} at {where} of {in_one_line(text)}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"ARGUMENTS cannot be read: {error}") from error
    if isinstance(given, list):
        return tuple(given), {}
    if isinstance(given, dict):
        return (), given
    raise ConfigError(
        f"ARGUMENTS must be a JSON array or object, such as '[{in_one_line(text)}]', not {in_one_line(text)}"
    )


def _find_task(app: StreamQ, target: str, name: str) -> Task[..., Any]:
    """Find a task by its name.

    Raises:
        ConfigError: there is none; the message lists names that are near.
    """
    try:
        tasks: Mapping[str, Task[..., Any]] = app.tasks
    except StreamqError:
        raise
    except Exception as error:
        raise ConfigError(f"cannot import what {target} includes: {type(error).__name__}: {error}") from error
    if name in tasks:
        return tasks[name]
    near = _near(name, tasks)
    if near:
        hint = f"near: {', '.join(near)}"
    elif tasks:
        more = len(tasks) - _MOST_NAMES
        hint = f"it has {', '.join(sorted(tasks)[:_MOST_NAMES])}" + (f" and {more} more" if more > 0 else "")
    else:
        hint = "it has none at all (are their modules in include=[...]?)"
    raise ConfigError(f"{target} has no task {in_one_line(name)!r}; {hint}")


def _near(name: str, known: Iterable[str]) -> list[str]:
    """Return names that may be meant: first those in another module, then those spelled alike."""
    last = name.rpartition(".")[2]
    by_last = {one.rpartition(".")[2]: one for one in known}
    near = [one for one in known if one.rpartition(".")[2] == last]
    near += difflib.get_close_matches(name, known, cutoff=0.85)  # names of one module are never far from each other
    near += [by_last[one] for one in difflib.get_close_matches(last, by_last)]
    return list(dict.fromkeys(near))[:_MOST_NAMES]


def _wait(app: StreamQ, called: AsyncResult[Any], timeout: float | None) -> int:
    """Wait for the end of a task and print its result; returns the exit code."""
    # Without the task's own types: the result is to be printed as it is stored, and an error to come as a TaskFailed.
    result = app.result(called.id, queue=called.queue)
    try:
        value = result.get(timeout)
    except TaskFailed as error:
        click.echo(f"streamq: {error}".rstrip("\n"), err=True)
        return _FAILED
    except ResultTimeout:
        click.echo(f"streamq: the task has not ended after {timeout:g} s; it is {result.status()}", err=True)
        return _LATE
    except KeyboardInterrupt:
        stop_waiting(called.id)
    click.echo(to_json(value))
    return 0
