"""One child process of a worker, as its supervisor sees it. Imports little."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any

from streamq.config import WorkerSettings

HURRY = b"now\n"  # said to a child that is stopping

_STARTED_MS = time.time_ns() // 1_000_000  # of the worker, and so of the code that it runs

_MARGIN_SECONDS = 5.0  # after the grace time; a child needs some of it to hand back and to say goodbye


class Child:
    """A child process and the line to it.

    Attributes:
        index: its place among the children of the worker; one that replaces another has the same.
        consumer: the name under which it reads.
        ready: it has begun to work.
        leaving: why it is to be replaced, for metrics and in words; None: it is not.
        told: how often it was told to stop.
        kill_at: when it is killed if it has not ended by then.
        heard: when it last said something.
        line: the socket on which it speaks; its end means that the process has ended.
    """

    def __init__(self, index: int, app: str, worker: WorkerSettings) -> None:
        self.index = index
        self.consumer = f"{worker.name}-{index}-{os.getpid()}-{secrets.token_hex(3)}"
        self.ready = False
        self.leaving: tuple[str, str] | None = None
        self.told = 0
        self.kill_at = float("inf")
        self.heard = time.monotonic()
        self._begun: set[tuple[str, bytes]] = set()
        self._young: set[tuple[str, bytes]] = set()
        self.line, theirs = socket.socketpair()
        spec = {
            "app": app,
            "worker": asdict(worker),
            "consumer": self.consumer,
            "line": theirs.fileno(),
            "started_ms": _STARTED_MS,
        }
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "streamq.cli.child", json.dumps(spec)],
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a Ctrl-C at the terminal is for the supervisor, which passes it on
            )
        self._received = b""

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """Read what the child says; also whether the line has ended, and so the child."""
        try:
            data = self.line.recv(65536)
        except ConnectionResetError:
            data = b""
        self.heard = time.monotonic()
        self._received += data
        *lines, self._received = self._received.split(b"\n")
        return [json.loads(line) for line in lines], not data

    def on_trial(self, what: str, stream: str, entry: str) -> None:
        """Note how it goes with one of its runs under which another process has died."""
        place = (stream, entry.encode())
        match what:
            case "begun":
                self._begun.add(place)
                self._young.add(place)
            case "grown":
                self._young.discard(place)
            case "over":
                self._young.discard(place)
                self._begun.discard(place)

    @property
    def accused(self) -> set[tuple[str, bytes]]:
        """Which of these may be the cause of its death, by stream and entry: those that have just begun, if any."""
        return self._young or self._begun

    def stop(self, number: int, grace: float) -> None:
        """Tell it to stop by a signal, the second time at once; it is killed some seconds after the grace time."""
        if self.told:
            with contextlib.suppress(OSError):
                self.line.sendall(HURRY)
        self.told += 1
        self.kill_at = min(self.kill_at, time.monotonic() + grace + _MARGIN_SECONDS)
        self._process.send_signal(number)

    def is_silent(self, seconds: float) -> bool:
        """Whether it should have said something and has not for so long."""
        expected = self.ready and not self.told and self.kill_at == float("inf")
        return expected and time.monotonic() - self.heard > seconds

    def give_up(self) -> None:
        """Have it show where it is, which needs no help of its own, and kill it a moment later."""
        self.leaving = ("silent", "it has said nothing for long")
        self._process.send_signal(signal.SIGQUIT)
        self.kill_at = time.monotonic() + 1.0

    def kill(self) -> None:
        """End it without its consent."""
        self._process.kill()

    def wait(self) -> int:
        """Wait for its end, and return its exit code; negative: the signal that ended it."""
        self.line.close()
        return self._process.wait()
