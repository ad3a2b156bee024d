"""``streamq subscribe``: print what is published on channels, live."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from streamq.cli.options import (
    Age,
    in_one_line,
    json_option,
    opened_channels,
    print_any_text,
    server_options,
    to_json,
)
from streamq.cli.printing import ending_cleanly, say, telling_of_trouble
from streamq.config import display_url, is_pattern

if TYPE_CHECKING:
    from streamq.app import StreamQ
    from streamq.channels.envelope import Envelope
    from streamq.channels.gaps import Gap
    from streamq.channels.listener import Listener

_BUFFER = 10_000  # messages


@click.command("subscribe")
@click.argument("names", metavar="PATTERN...", nargs=-1, required=True)
@click.option("--since", type=Age(), help="Begin with messages of the last 90s, 30m, 2h, 1d; of one durable channel.")
@click.option("--count", type=click.IntRange(1), help="End after so many.")
@json_option("Print one JSON object a line.")
@server_options
def command(
    *, names: tuple[str, ...], since: float | None, count: int | None, url: str, namespace: str, as_json: bool
) -> None:
    """Print what is published on channels, as it is published, until Ctrl-C.

    PATTERN is the name of a channel, or a pattern of names with * and ?. What one lost is told on standard error. If
    the app has an events_url, give that as the server.
    """
    if since is not None and (len(names) > 1 or is_pattern(names[0])):
        raise click.UsageError("--since takes the name of one durable channel")
    from streamq.channels.gaps import Gap  # noqa: PLC0415 - --help must answer quickly

    print_any_text()
    with ending_cleanly(), opened_channels(url, namespace) as app:
        left = count
        with telling_of_trouble(), _listener(app, names, since) as listener:
            say(f"listening to {display_url(url)}, namespace {namespace}")
            for message in listener:
                if isinstance(message, Gap):
                    say(_missing(message))
                    continue
                click.echo(to_json(_as_dict(message)) if as_json else _line(message))  # echo flushes
                left = None if left is None else left - 1
                if left == 0:
                    break


def _listener(app: StreamQ, names: tuple[str, ...], since: float | None) -> Listener[Envelope[Any] | Gap]:
    if since is not None:
        start = datetime.now(UTC) - timedelta(seconds=since)
        return app.channel(names[0], durable=True).listen(since=start, buffer=_BUFFER)
    return app.broadcast.listen_to_all(names, buffer=_BUFFER)


def _as_dict(message: Envelope[Any]) -> dict[str, Any]:
    told = {
        "id": message.id,
        "time": message.time.isoformat(timespec="milliseconds"),
        "sender": message.sender,
        "type": message.type,
        "channel": message.channel,
        "correlation_id": message.correlation_id,
        "reply_to": message.reply_to,
        "entry": message.entry,
    }
    return {**{name: value for name, value in told.items() if value is not None}, "payload": message.payload}


def _line(message: Envelope[Any]) -> str:
    local = message.time.astimezone()
    time = f"{local:%H:%M:%S.%f}"[:-3] if sys.stdout.isatty() else local.isoformat(timespec="milliseconds")
    facts = (message.sender, message.type, message.channel, to_json(message.payload))
    return "  ".join([time, *map(in_one_line, facts)])


def _missing(gap: Gap) -> str:
    where = f" on {gap.channel}" * bool(gap.channel) + f" from {gap.sender}" * bool(gap.sender)
    number = "messages" if gap.missed is None else "1 message" if gap.missed == 1 else f"{gap.missed} messages"
    match gap.reason:
        case "reconnected":
            return "the server is back; messages from the time between are lost"
        case "overflow":
            return f"{number}{where} dropped: they came faster than they are printed"
        case "trimmed":
            return f"{number}{where} missing: they were removed before they were read"
        case _:
            return f"{number}{where} missing"
