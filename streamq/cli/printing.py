"""What the commands share that print what they hear, until somebody ends them."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from streamq.cli.options import in_one_line


def say(text: str) -> None:
    """Tell something on standard error, in one line."""
    click.echo(in_one_line(f"streamq: {text}"), err=True)


@contextmanager
def ending_cleanly() -> Iterator[None]:
    """Have Ctrl-C, SIGTERM, and a pipe that nobody reads from any more, end the command in order."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both ways to end it are one
    try:
        yield
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Nobody reads any more. Python would complain when it flushes what is left at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Teller(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


@contextmanager
def telling_of_trouble() -> Iterator[None]:
    """Tell on standard error what listeners log: that the server is away, or that something could not be read."""
    logger = logging.getLogger("streamq.channels")
    teller = _Teller()
    logger.addHandler(teller)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(teller)
