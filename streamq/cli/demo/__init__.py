"""``streamq demo``: see it work. Without a word more: real tasks, and a worker killed on the way."""

from __future__ import annotations

import click

from streamq.cli.demo.agents import command as agents
from streamq.cli.demo.files import command as files


class _Demos(click.Group):
    """Takes what is not the name of a demo as an argument of the first one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return files.name, files, args

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        asks = args and args[0] in ctx.help_option_names
        return super().parse_args(ctx, args if args or asks else [str(files.name)])


@click.group("demo", cls=_Demos)
def command() -> None:
    """See it work: `streamq demo [FOLDER]`, or `streamq demo agents [FOLDER]`.

    A server is started for it, and at the end nothing that was started is left.
    """


command.add_command(files)
command.add_command(agents)
