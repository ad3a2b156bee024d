"""The options of commands that serve until they are told to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from streamq.config import WorkerSettings

F = TypeVar("F", bound=Callable[..., Any])

DEFAULTS = WorkerSettings()


def concurrency_option(text: str) -> Callable[[F], F]:
    """Add the option that says how much runs at a time."""
    return click.option(
        "-c", "--concurrency", type=click.IntRange(1), default=DEFAULTS.concurrency, show_default=True, help=text
    )


def name_option(text: str) -> Callable[[F], F]:
    """Add the option that names the process."""
    return click.option("-n", "--name", default=DEFAULTS.name, show_default="the host's", help=text)


def grace_option(what: str) -> Callable[[F], F]:
    """Add the option that says how long `what` may go on at the end."""
    return click.option(
        "--grace",
        type=click.FloatRange(0),
        default=DEFAULTS.grace,
        show_default=True,
        metavar="SECONDS",
        help=f"How long running {what} may go on after SIGTERM.",
    )


def log_options(command: F) -> F:
    """Add the options of the log."""
    level = click.option(
        "-l",
        "--log-level",
        default=DEFAULTS.log_level,
        show_default=True,
        type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], case_sensitive=False),
    )
    form = click.option(
        "--log-format", default=DEFAULTS.log_format, show_default=True, type=click.Choice(["text", "json"])
    )
    return level(form(command))
