"""``streamq agents``: show which agents are there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from streamq.cli.options import in_one_line, json_option, opened_channels, print_any_text, server_options, to_json
from streamq.cli.printing import ending_cleanly

if TYPE_CHECKING:
    from streamq.agent.presence import AgentInfo
    from streamq.app import StreamQ

_TITLES = ("NAME", "INSTANCE", "CAPABILITIES", "HOST", "PID", "SINCE", "LAST SEEN")


@click.command("agents")
@click.option("--watch", is_flag=True, help="Then print who joins and who leaves, until Ctrl-C.")
@json_option("Print one JSON object a line.")
@server_options
def command(*, watch: bool, url: str, namespace: str, as_json: bool) -> None:
    """Show which agents are there.

    SINCE is by the clock of the agent, LAST SEEN by that of Redis. One that was killed is there for four more seconds.
    """
    print_any_text()
    with ending_cleanly(), opened_channels(url, namespace) as app:
        _show(app, as_json=as_json)
        if watch:
            asyncio.run(_watch(app, as_json=as_json))


def _show(app: StreamQ, *, as_json: bool) -> None:
    from streamq.agent.presence import agents_sync  # noqa: PLC0415 - --help must answer quickly

    found = agents_sync(app)
    if as_json:
        for info in found:
            click.echo(to_json(_plain(info)))
        return
    rows = [_TITLES, *(_row(info) for info in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


async def _watch(app: StreamQ, *, as_json: bool) -> None:
    from streamq.agent.presence import presence  # noqa: PLC0415 - --help must answer quickly

    try:
        async with presence(app) as watch:
            async for change in watch:
                kind = type(change).__name__.lower()
                line = to_json({"change": kind, **_plain(change.info)}) if as_json else _line(kind, change.info)
                click.echo(line)  # which flushes
    finally:
        await app.aclose()


def _plain(info: AgentInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "instance": info.instance,
        "capabilities": list(info.capabilities),
        "host": info.host,
        "pid": info.pid,
        "since": info.since.isoformat(),
        "last_seen": info.last_seen.isoformat(),
    }


def _row(info: AgentInfo) -> tuple[str, ...]:
    since, seen = (f"{moment.astimezone():%Y-%m-%d %H:%M:%S}" for moment in (info.since, info.last_seen))
    what = ",".join(info.capabilities) or "-"
    cells = (info.name, info.instance, what, info.host, str(info.pid), since, seen)
    return tuple(map(in_one_line, cells))


def _line(kind: str, info: AgentInfo) -> str:
    return in_one_line(f"{kind:6}  {info.name}  {info.instance}  {info.host}  {info.pid}")
