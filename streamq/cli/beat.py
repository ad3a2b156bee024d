"""``streamq beat``: says what there is in place of Celery's."""

from __future__ import annotations

import sys

import click

_INSTEAD = """\
streamq: there is no beat process, and none is needed: workers fire the schedules, each instant once, however many
workers there are and whichever of them die.

  In code:      @app.task(schedule=cron("*/5 9-17 * * mon-fri", tz="Europe/Berlin"))
                @app.task(schedule=every(seconds=30))
  At run time:  app.schedules.add("NAME", task.s(ARGUMENTS), every(hours=1))
  To run them:  streamq worker MODULE:APP
  To see them:  streamq schedule list"""


@click.command(
    "beat",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("ignored", nargs=-1, type=click.UNPROCESSED)
def command(ignored: tuple[str, ...]) -> None:  # noqa: ARG001 - whatever Celery's beat takes
    """Say what to do instead of starting a beat process. Exit code: 2."""
    click.echo(_INSTEAD, err=True)
    sys.exit(2)
