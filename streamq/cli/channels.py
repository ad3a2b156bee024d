"""``streamq channels``: show the channels, who listens, and what they keep."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from streamq.cli.options import in_one_line, json_option, opened_app, print_any_text, server_options, to_json

if TYPE_CHECKING:
    from streamq.channels.census import ChannelInfo

_TEXTS = ("channel", "kind", "groups")


@click.command("channels")
@json_option("Print a JSON array.")
@server_options
def command(url: str, namespace: str, *, as_json: bool) -> None:
    """Show the channels that somebody listens to, and those that keep messages.

    Of each: how many connections listen to it by its name (those that do by a pattern are not known), whether it is
    plain or durable, how many messages are kept, and of each group of consumers how many it has got and not handled
    (pending), and how many it has not got yet (lag). If the app has an events_url, give that as the server; it cannot
    be a Redis Cluster, whose nodes each know their own listeners only.
    """
    from streamq.broker.walking import complete  # noqa: PLC0415 - --help must answer quickly
    from streamq.channels.census import census  # noqa: PLC0415

    print_any_text()
    with opened_app(url, namespace) as app:
        found = complete(app.broadcast.reach.sync, census(app.broadcast.keys))
    if as_json:
        click.echo(to_json([_as_dict(channel) for channel in found]))
    elif found:
        click.echo(_table(found))
    else:
        click.echo(f"no channels under the namespace {namespace!r}", err=True)


def _as_dict(channel: ChannelInfo) -> dict[str, Any]:
    return {
        "channel": channel.name,
        "kind": _kind(channel),
        "subscribers": channel.subscribers,
        "length": channel.length,
        "groups": [asdict(group) for group in channel.groups],
    }


def _kind(channel: ChannelInfo) -> str:
    return "durable" if channel.is_durable else "plain"


def _table(channels: list[ChannelInfo]) -> str:
    rows = [
        {
            "channel": in_one_line(channel.name),
            "kind": _kind(channel),
            "subscribers": str(channel.subscribers),
            "length": str(channel.length) if channel.is_durable else "-",
            "groups": ", ".join(f"{one.name}: {one.pending} pending, lag {one.lag}" for one in channel.groups),
        }
        for channel in channels
    ]
    rows.insert(0, {head: head for head in rows[0]})
    widths = {head: max(len(row[head]) for row in rows) for head in rows[0]}
    return "\n".join(
        "  ".join(
            text.ljust(widths[head]) if head in _TEXTS else text.rjust(widths[head]) for head, text in row.items()
        ).rstrip()
        for row in rows
    )
