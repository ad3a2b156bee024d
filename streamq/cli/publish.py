"""``streamq publish``: publish messages on a channel."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from streamq.cli.options import opened_app, server_options
from streamq.errors import ConfigError

if TYPE_CHECKING:
    from streamq.app import StreamQ
    from streamq.channels.channel import Channel


@click.command("publish")
@click.argument("name", metavar="CHANNEL")
@click.argument("text", metavar="JSON")
@click.option("--type", "kind", metavar="TYPE", help="What it is.  [default: the Python type of the JSON]")
@click.option("--durable", is_flag=True, help="Keep it, as a durable channel does.")
@server_options
def command(name: str, text: str, url: str, namespace: str, kind: str | None, *, durable: bool) -> None:
    """Publish JSON on CHANNEL, and say how many connections have heard it.

    With - in place of JSON each line of standard input is a message. If the app has an events_url, give that as the
    server.
    """
    payloads = _lines() if text == "-" else iter([_read(text, "the message")])
    with opened_app(url, namespace) as app:
        channel = _channel(app, name, durable=durable)
        for payload in payloads:
            published = channel.publish_sync(payload, type=kind)
            click.echo(f"{published.heard} heard it" + f", entry {published.entry}" * (published.entry is not None))


def _channel(app: StreamQ, name: str, *, durable: bool) -> Channel[Any]:
    """Make the channel. What it keeps already is left as it is: the app says for how long."""
    from streamq.broker.census import is_kept  # noqa: PLC0415 - --help must answer quickly

    channel: Channel[Any] = app.channel(name, durable=durable, sender="streamq-publish")
    if durable and app.broadcast.reach.sync.run(is_kept(app.broadcast.keys.channel(name))):
        channel = app.channel(name, durable=True, max_length=None, max_age=None, sender="streamq-publish")
    return channel


def _lines() -> Iterator[Any]:
    for number, line in enumerate(sys.stdin, 1):
        if line.strip():
            yield _read(line, f"line {number}")


def _read(text: str, what: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{what} is not JSON: {error}") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"there is no {constant} in it")
