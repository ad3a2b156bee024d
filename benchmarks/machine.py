"""Cores and CPU time. What a platform does not tell is None."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple


class Cores(NamedTuple):
    """One core for the server, and one for the process that is measured; None where there is no choice."""

    server: int | None
    measured: int | None

    @property
    def pinned(self) -> bool:
        """Whether there are two cores to tell apart."""
        return self.server is not None


NO_CORES = Cores(None, None)


def choose_cores() -> Cores:
    """Take the first and the last core we may use: where cores have siblings, these are rarely two."""
    if sys.platform == "linux":
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) > 1:
            return Cores(usable[0], usable[-1])
    return NO_CORES


def pin(pid: int, core: int | None) -> bool:
    """Have a process, with the threads it has, run on one core; False if that cannot be."""
    if sys.platform == "linux" and core is not None:
        try:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {core})
        except PermissionError:  # it is somebody else's
            return False
        return True
    return False


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Have what is started meanwhile run on one core, as this process does."""
    with ExitStack() as stack:
        if sys.platform == "linux" and core is not None:
            stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
            os.sched_setaffinity(0, {core})
        yield


def cpu_seconds(pid: int | None) -> float | None:
    """Return the user and system time that a process has used."""
    if sys.platform == "linux" and pid:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return None


def only_child(pid: int) -> int | None:
    """Return the process that `pid` has started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


class Figure(NamedTuple):
    """One measurement: tasks per second, and CPU time per task in µs."""

    rate: float
    process_us: float | None
    server_us: float | None


class Meter:
    """Measures from its creation to `stop`: time, CPU of a process, and CPU of the server."""

    def __init__(self, process: int | None, server: int | None) -> None:
        self._pids = (process, server)
        self._before = [cpu_seconds(pid) for pid in self._pids]
        self._start = time.perf_counter()

    def stop(self, count: int) -> Figure:
        """Say what each of `count` tasks took since."""
        rate = count / (time.perf_counter() - self._start)
        after = [cpu_seconds(pid) for pid in self._pids]
        process, server = (
            None if begin is None or end is None else (end - begin) / count * 1e6
            for begin, end in zip(self._before, after, strict=True)
        )
        return Figure(rate, process, server)
