"""The ``streamq`` command. Each subcommand is imported when it is called, so that ``--help`` answers at once."""

from __future__ import annotations

import importlib
import sys

import click

from streamq import __version__
from streamq.errors import StreamqError

_COMMANDS = {
    "agents": "Show which agents are there.",
    "beat": "Not needed: workers fire the schedules. Says how.",
    "call": "Enqueue a task by its name.",
    "cancel": "Cancel tasks that have not ended.",
    "channels": "Show the channels, who listens, and what they keep.",
    "dead": "Show, redrive or purge dead letters.",
    "demo": "Watch real work survive the kill of a worker.",
    "doctor": "Tell whether a server is fit for streamq.",
    "events": "Print what happens, live.",
    "flow": "Show, list, cancel or retry flows.",
    "listen": "Call the handlers of an app when something happens.",
    "publish": "Publish messages on a channel.",
    "queues": "Show the queues and what waits in them.",
    "result": "Show the state and the result of a task.",
    "schedule": "Show, run, pause or remove schedules.",
    "subscribe": "Print what is published on channels, live.",
    "worker": "Run tasks.",
}


class _LazyGroup(click.Group):
    """Finds commands by the name of their module."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"streamq.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="streamq")
def streamq() -> None:
    """Task queue on Redis Streams: a task runs at least once; its outcome is committed at most once."""


def main() -> None:
    """Run the command line; an error of ours is one line and exit code 2."""
    try:
        streamq()
    except StreamqError as error:
        click.echo(f"streamq: {error}", err=True)
        sys.exit(2)
