"""``streamq result``: show the state and the result of a task."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from streamq.cli.options import (
    in_one_line,
    json_option,
    naming_the_server,
    print_any_text,
    server_options,
    settings_of,
    stop_waiting,
    to_json,
)

if TYPE_CHECKING:
    from streamq.config import Settings
    from streamq.inspector import TaskInfo

_FAILED, _LATE = 1, 3


@click.command("result")
@click.argument("task_id", metavar="ID")
@click.option("--wait", is_flag=True, help="Wait for the task to end.")
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Wait no longer than this.")
@json_option("Print a JSON object.")
@server_options
def command(task_id: str, url: str, namespace: str, timeout: float | None, *, wait: bool, as_json: bool) -> None:
    """Show the state and the result of the task ID.

    Exit code: 0 if it has succeeded or has not ended, 1 if it has failed, is dead, was cancelled, has expired or is not
    known, 3 if it has not ended when the time to wait is over.
    """
    from streamq import inspector  # noqa: PLC0415 - --help must answer quickly
    from streamq.lifecycle import State  # noqa: PLC0415

    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait")
    print_any_text()
    settings = settings_of(url, namespace)
    waited_in_vain = False
    with naming_the_server(settings):
        info = inspector.task(settings, task_id)
        if wait and info.state is not State.UNKNOWN and not info.state.ended:
            waited_in_vain = not _wait(settings, info, timeout)
            info = inspector.task(settings, task_id)
    if info.state is State.UNKNOWN:
        _say(f"there is no task {in_one_line(task_id)}: never enqueued, expired, or forgotten")
        sys.exit(_FAILED)
    click.echo(to_json(_as_dict(info)) if as_json else _text(info))
    if waited_in_vain and not info.state.ended:
        _say(f"the task has not ended after {timeout:g} s; it is {info.state}")
        sys.exit(_LATE)
    sys.exit(_FAILED if info.error else 0)


def _wait(settings: Settings, info: TaskInfo, timeout: float | None) -> bool:
    """Wait for the end of a task; False if it has not come in time."""
    from streamq.app import StreamQ  # noqa: PLC0415 - --help must answer quickly
    from streamq.errors import ResultTimeout, TaskFailed, UnknownTaskId  # noqa: PLC0415

    with StreamQ(settings.url, namespace=settings.namespace) as app:
        try:
            app.result(info.id, queue=info.queue).get(timeout)
        except ResultTimeout:
            return False
        except (TaskFailed, UnknownTaskId):
            pass  # it has ended; how, is shown
        except KeyboardInterrupt:
            stop_waiting(info.id)
    return True


def _say(text: str) -> None:
    click.echo(f"streamq: {text}", err=True)


def _as_dict(info: TaskInfo) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": info.id,
        "state": info.state.value,
        "task": info.task,
        "queue": info.queue,
        "attempt": info.attempt,
        "deaths": info.deaths,
        "worker": info.worker,
        "ended": info.ended and info.ended.isoformat(timespec="milliseconds"),
    }
    if info.progress:
        shown["progress"] = info.progress._asdict()
    if info.failure:
        shown["failure"] = asdict(info.failure)
    if info.error:
        shown["error"] = asdict(info.error)
    elif info.state.ended:
        shown["result"] = info.result
    return shown


def _text(info: TaskInfo) -> str:
    facts = {
        "state": info.state.value,
        "task": info.task or "(its message could not be read)",
        "queue": info.queue,
        "worker": info.worker,
        "attempt": f"{info.attempt}" if info.attempt > 1 else None,
        "progress": info.progress and f"{info.progress.fraction:.0%} {in_one_line(info.progress.text)}".rstrip(),
        "failure": info.failure and not info.error and f"{info.failure.type}: {info.failure.message}",
        "deaths": info.deaths and f"{info.deaths} (workers that died under it)",
        "ended": info.ended and info.ended.astimezone().isoformat(" ", timespec="milliseconds"),
    }
    lines = [f"{name + ':':<8} {value}" for name, value in facts.items() if value]
    if info.error:
        error, trace = f"{info.error.type}: {info.error.message}", info.error.traceback.strip("\n")
        lines += [f"error:   {error}", *(["", trace] if trace not in {"", error} else [])]
    elif info.state.ended:
        result = to_json(info.result, indent=2)
        lines.append(f"result:\n{result}" if "\n" in result else f"result:  {result}")
    return "\n".join(lines)
