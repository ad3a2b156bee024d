"""``streamq publish``: publish messages on a channel."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from streamq.cli.options import opened_channels, server_options
from streamq.errors import ConfigError

if TYPE_CHECKING:
    from streamq.app import StreamQ
    from streamq.channels.channel import Channel

_SENDER = "streamq-publish"
_MARGIN_MS = 60_000


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
    with opened_channels(url, namespace) as app:
        channel = _channel(app, name, durable=durable)
        for payload in payloads:
            published = channel.publish_sync(payload, type=kind)
            click.echo(f"{published.heard} heard it" + f", entry {published.entry}" * (published.entry is not None))


def _channel(app: StreamQ, name: str, *, durable: bool) -> Channel[Any]:
    """Make the channel, such that what it keeps already stays: the app says for how long, and is not here."""
    from streamq.broker import reads  # noqa: PLC0415 - --help must answer quickly
    from streamq.broker.census import time_left  # noqa: PLC0415
    from streamq.broker.channels import end_of  # noqa: PLC0415

    channel: Channel[Any] = app.channel(name, durable=durable, sender=_SENDER)
    if not durable:
        return channel
    run, keys = app.broadcast.reach.sync.run, app.broadcast.keys.channel(name)
    left_ms = run(time_left(keys))
    if left_ms is None:
        return app.channel(name, durable=True, max_length=None, max_age=None, sender=_SENDER)
    oldest = run(end_of(keys, newest=False))
    if oldest is None:
        return channel
    age_ms = max(left_ms, run(reads.now()) - int(oldest.entry.partition("-")[0])) + _MARGIN_MS
    return app.channel(name, durable=True, max_length=None, max_age=age_ms / 1000, sender=_SENDER)


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
