"""The processes that the demos start: workers as anybody starts them, and agents."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from streamq.errors import StreamqError

LEASE_SECONDS = 2.0
THREADS = 8

_APP = "streamq.cli.demo.tasks:app"
_READY_SECONDS = 30.0
_STOP_SECONDS = 10.0  # longer than a supervisor waits before it kills its children
_LAST_LINES = 20


class Process:
    """One process, of which the standard error is read.

    Args:
        name: what it calls itself.
        words: what follows ``python -m``.
        url: where the server is.
        folder: where it runs; not the user's, of which modules could get in the way of what it imports.
    """

    def __init__(self, name: str, words: Sequence[str], url: str, folder: Path) -> None:
        self.name = name
        self.killed = False
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=folder,
            # Files that are parsed may deserve a SyntaxWarning; that is not what the demo is about.
            env={**os.environ, "STREAMQ_URL": url, "PYTHONWARNINGS": "ignore"},
        )
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._ready_or_ended = threading.Event()
        self._reader = threading.Thread(target=self._read, name=f"demo-{name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - it is a pipe
        with self._process.stderr as lines:
            for line in lines:
                text = line.decode(errors="replace").rstrip()
                self._last_lines.append(text)
                if text.endswith("is ready"):
                    self._ready_or_ended.set()
        self._ready_or_ended.set()

    @property
    def pid(self) -> int:
        """Its pid; of a worker that of the supervisor."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait for the line that says so.

        Raises:
            StreamqError: it ended before, or takes too long.
        """
        if not self._ready_or_ended.wait(_READY_SECONDS):
            raise StreamqError(f"{self.name} is not ready after {_READY_SECONDS:g} s")
        self.check()

    def check(self) -> None:
        """See that it lives.

        Raises:
            StreamqError: it has ended, without having been killed by the demo.
        """
        if not self.killed and self._process.poll() is not None:
            self._reader.join(1.0)
            said = "\n".join(self._last_lines) or "without a word"
            raise StreamqError(f"{self.name} (pid {self.pid}) ended with exit code {self._process.returncode}: {said}")

    def kill(self) -> None:
        """Kill it; not the child of a worker, whose pid is the child's secret."""
        self.killed = True
        self._process.kill()
        self._process.wait()

    def ask_to_stop(self) -> None:
        """Send SIGTERM, if it still runs."""
        self._process.terminate()

    def wait_until_stopped(self) -> None:
        """Wait for its end, and end it by force if that takes too long."""
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its child ends when it sees that
            self._process.wait()
        self._reader.join(_STOP_SECONDS)


class Worker(Process):
    """One ``streamq worker``."""

    def __init__(self, name: str, url: str, folder: Path) -> None:
        options = {"--name": name, "--threads": THREADS, "--lease": LEASE_SECONDS, "--grace": 1, "--log-level": "ERROR"}
        words = [str(word) for option in options.items() for word in option]
        super().__init__(name, ["streamq", "worker", _APP, *words], url, folder)


class Reader(Process):
    """One agent of the demo of agents."""

    def __init__(self, name: str, url: str, folder: Path) -> None:
        super().__init__(name, ["streamq.cli.demo.reader", name], url, folder)
