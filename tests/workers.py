"""Worker processes, started as a user starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
ROOT = Path(__file__).parent.parent


def until(what: Callable[[], T], *, seconds: float = 10.0, why: str = "") -> T:
    """Poll `what` until it is true, and return it; fail after a deadline."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        if time.monotonic() > deadline:
            raise AssertionError(why or f"{what} did not become true in {seconds} s")
        time.sleep(0.01)  # between two looks at a condition, not instead of one
    return value


def children_of(pid: int) -> list[int]:
    """Return the process ids of the children of a process."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = (map(int, line.split()) for line in listed.stdout.splitlines())
    return [child for child, parent in pairs if parent == pid]


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and waits for its parent does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(state.stdout.strip()) and not state.stdout.strip().startswith("Z")


def starts(marker: Path) -> list[int]:
    """Return the ids of the processes that tasks have started in, as they wrote them to a file."""
    return [int(line) for line in marker.read_text().split()]


class Worker:
    """One ``streamq worker``."""

    def __init__(self, app: str, url: str, *options: str, cwd: Path = ROOT, ready: bool = True) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by stop()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streamq", "worker", app, *options],
            stdout=self._log,
            stderr=self._log,
            cwd=cwd,
            env={**os.environ, "STREAMQ_URL": url},
        )
        self._children: set[int] = set()
        if ready:
            self.until_logged("is ready")
            self._children.update(self.children)

    @property
    def log(self) -> str:
        """All that it has printed."""
        return os.pread(self._log.fileno(), 10_000_000, 0).decode()

    @property
    def children(self) -> list[int]:
        """The process ids of its children."""
        found = children_of(self.process.pid)
        self._children.update(found)
        return found

    def until_logged(self, text: str, *, seconds: float = 10.0) -> None:
        """Wait until it has printed `text`."""

        def printed() -> bool:
            assert self.process.poll() is None or text in self.log, f"it has ended:\n{self.log}"
            return text in self.log

        until(printed, seconds=seconds, why=f"{text!r} is not in the log")

    def until_logged_by_orphan(self, text: str) -> None:
        """Wait until a child, whose supervisor is gone, has printed `text`."""
        until(lambda: text in self.log, why=f"{text!r} is not in the log")

    def terminate(self, *, seconds: float = 15.0) -> int:
        """Stop it with SIGTERM, and return its exit code."""
        self._children.update(self.children)
        self.process.terminate()
        return self.process.wait(timeout=seconds)

    def kill(self) -> None:
        """Kill supervisor and children with SIGKILL, as the loss of a machine would."""
        children = self.children
        for pid in (self.process.pid, *children):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it if it still runs, and see to it that no child is left, and no mistake in its log."""
        if self.process.poll() is None:
            self.terminate()
        until(lambda: not any(map(is_alive, self._children)), why=f"a child is left:\n{self.log}")
        log = self.log
        self._log.close()
        for mistake in ("never retrieved", "was destroyed", "was never awaited"):
            assert mistake not in log, f"asyncio has found a mistake:\n{log}"
