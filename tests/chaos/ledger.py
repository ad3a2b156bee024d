"""Counts runs of tasks outside of what is tested: one line in a file before the body begins, one when it has ended.

A line is written with one call to a file opened for appending, so processes do not disturb each other, and what is
written stays when the process is killed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from streamq import current

PATH = "CHAOS_LEDGER"  # environment variable: the file
_files: dict[int, int] = {}


class Line(NamedTuple):
    """One line: the run of a task with a `fence` has begun, or its body has come to its end, in process `pid`."""

    what: str
    id: str
    fence: int
    attempt: int
    pid: int
    at: float


def _write(what: str, task_id: str, fence: int, attempt: int) -> None:
    pid = os.getpid()
    if pid not in _files:
        _files[pid] = os.open(os.environ[PATH], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(_files[pid], f"{what} {task_id} {fence} {attempt} {pid} {time.time():.6f}\n".encode())


@contextmanager
def counted() -> Iterator[int]:
    """Count the run that goes on; gives its fence, which each task returns: the record must be of the last run."""
    context = current()
    _write("begun", context.id, context.fence, context.attempt)
    yield context.fence
    _write("ended", context.id, context.fence, context.attempt)


def read(path: Path) -> list[Line]:
    """Read all lines."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        what, task_id, fence, attempt, pid, at = line.split()
        found.append(Line(what, task_id, int(fence), int(attempt), int(pid), float(at)))
    return found
