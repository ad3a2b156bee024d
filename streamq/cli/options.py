"""What several commands share: their options, and how they print."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from streamq.config import DEFAULT_URL, Settings, display_url
from streamq.errors import BrokerError, ConfigError

if TYPE_CHECKING:
    from streamq.app import StreamQ

F = TypeVar("F", bound=Callable[..., Any])

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Age(click.ParamType[float]):
    """A time span such as ``90``, ``90s``, ``2h`` or ``1d12h``, in seconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, or fail as click wants it."""
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhdw]?)", value)
        if not parts or "".join(number + unit for number, unit in parts) != value:
            self.fail(f"{value!r} is no time span such as 90s, 30m, 2h or 1d12h", param, ctx)
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def server_options(command: F) -> F:
    """Add the options that say where the app's data is; `settings_of` takes their values."""
    url = click.option(
        "--url", default=DEFAULT_URL, show_default=True, envvar="STREAMQ_URL", show_envvar=True, help="The server."
    )
    namespace = click.option(
        "--namespace", default=Settings.namespace, show_default=True, help="First part of every key of the app."
    )
    return url(namespace(command))


def json_option(text: str) -> Callable[[F], F]:
    """Add the option ``--json``, for programs that read what is printed."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def settings_of(url: str, namespace: str) -> Settings:
    """Make the settings of the app whose data is there.

    Raises:
        ConfigError: the namespace cannot be used.
    """
    return Settings(url=url, namespace=namespace)


@contextmanager
def naming_the_server(settings: Settings) -> Iterator[str]:
    """Give the URL as it may be shown, and put it before what the server says when it fails."""
    url = display_url(settings.url)
    try:
        yield url
    except BrokerError as error:
        raise type(error)(f"{url}: {error}") from error


@contextmanager
def opened_app(url: str, namespace: str) -> Iterator[StreamQ]:
    """Give the app whose data is on a server; what the server says when it fails has its URL before it."""
    from streamq.app import StreamQ  # noqa: PLC0415 - --help must answer quickly

    settings = settings_of(url, namespace)
    with naming_the_server(settings), StreamQ(settings.url, namespace=settings.namespace) as app:
        yield app


@contextmanager
def opened_channels(url: str, namespace: str) -> Iterator[StreamQ]:
    """Give the app whose channels are on a server, or on a cluster, on which queues cannot be; as `opened_app`."""
    from streamq.app import StreamQ  # noqa: PLC0415 - --help must answer quickly

    settings = settings_of(url, namespace)
    elsewhere = StreamQ(DEFAULT_URL, namespace=settings.namespace, events_url=settings.url)  # it is not connected
    with naming_the_server(settings), elsewhere as app:
        yield app


def check_queues(app: StreamQ, names: Iterable[str]) -> None:
    """See that there are queues of these names: a misspelt one is empty, and would seem to be done with.

    Raises:
        ConfigError: there is none of one of them.
    """
    known = [queue.name for queue in app.queues.list()]
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no queue {in_one_line(name)}; there are: {', '.join(known) or 'none yet'}")


def print_any_text() -> None:
    """Have characters that the terminal's or the file's encoding lacks printed as escapes, and not end the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Write a value as JSON, in the letters of its language, but with escapes for what commands a terminal."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text)  # json escapes those below 0x20


def in_one_line(text: str) -> str:
    """Escape what would break a line or command a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def stop_waiting(task_id: str) -> NoReturn:
    """End the command after a Ctrl-C, as shells expect it."""
    click.echo(f"\nstreamq: stopped waiting; task {task_id} goes on", err=True)
    sys.exit(130)


@contextmanager
def progress(label: str, count: Callable[[], int]) -> Iterator[Callable[[int], None] | None]:
    """Give a function that moves a bar; None where nobody looks on. `count` finds out how much there is to do."""
    if not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=count(), label=label, file=sys.stderr) as bar:
        yield lambda done: bar.update(done - bar.pos)
