"""The supervisor: starts the children of a worker, and hands back at once what a dead one held.

It imports little, so that it stays small, and talks to each child over a socket: the child says that it is ready, or
why it cannot be; its end shows as the end of the stream, on both sides.
"""

from __future__ import annotations

import json
import logging
import os
import random
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from types import FrameType
from typing import Any

from streamq.config import Settings, WorkerSettings

_log = logging.getLogger("streamq.supervisor")

_POLL_SECONDS = 0.5  # signals and ends of children wake it at once; this is for what might slip through
_KILL_MARGIN_SECONDS = 5.0  # after the grace time; the child needs some of it to hand back and to say goodbye
_LONGEST_PAUSE_SECONDS = 10.0


class _Child:
    """One child process and the line to it."""

    def __init__(self, index: int, app: str, worker: WorkerSettings) -> None:
        self.index = index
        self.consumer = f"{worker.name}-{index}-{os.getpid()}-{secrets.token_hex(3)}"
        self.ready = False
        self.line, theirs = socket.socketpair()
        spec = {"app": app, "worker": asdict(worker), "consumer": self.consumer, "line": theirs.fileno()}
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603 - our own module
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
        self._received += data
        *lines, self._received = self._received.split(b"\n")
        return [json.loads(line) for line in lines], not data


class Supervisor:
    """Runs a worker until it is told to stop.

    Args:
        app: ``module:attribute`` of the app.
        worker: how the worker runs.
        announce: called once, when the first child is ready, with what that child says.
        refuse: called once with the reason why no child can work.
    """

    def __init__(
        self,
        app: str,
        worker: WorkerSettings,
        announce: Callable[[dict[str, Any]], None],
        refuse: Callable[[str], None],
    ) -> None:
        self._app = app
        self._worker = worker
        self._announce = announce
        self._refuse = refuse
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, _Child] = {}
        self._due: dict[int, float] = {0: 0.0}  # the first child alone shows whether the app can be served
        self._settings: Settings | None = None
        self._failures = 0
        self._stop_signals = 0
        self._kill_at = float("inf")
        self._exit_code = 0

    def run(self) -> int:
        """Supervise; returns the exit code: 0, or 2 when the app cannot be served."""
        wakeup, signalled = socket.socketpair()
        wakeup.setblocking(False)  # noqa: FBT003 - the socket's own signature
        signalled.setblocking(False)  # noqa: FBT003
        signal.set_wakeup_fd(signalled.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._selector.register(wakeup, selectors.EVENT_READ)
        with wakeup, signalled:
            while self._children or (self._due and not self._stop_signals):
                self._start_due()
                for key, _ in self._selector.select(self._patience()):
                    if key.data is None:
                        wakeup.recv(4096)
                    else:
                        self._listen(key.data)
                if time.monotonic() >= self._kill_at:
                    self._signal_children(signal.SIGKILL)
            signal.set_wakeup_fd(-1)
        return self._exit_code

    def _patience(self) -> float:
        now = time.monotonic()
        moments = [self._kill_at, now + _POLL_SECONDS, *([] if self._stop_signals else self._due.values())]
        return max(0.0, min(moments) - now)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._stop_signals += 1
        grace = self._worker.grace if self._stop_signals == 1 else 0.0
        self._kill_at = time.monotonic() + grace + _KILL_MARGIN_SECONDS
        self._signal_children(number)

    def _signal_children(self, number: int) -> None:
        for child in self._children.values():
            child.process.send_signal(number)

    def _start_due(self) -> None:
        now = time.monotonic()
        for index, moment in list(self._due.items()):
            if moment <= now and not self._stop_signals:
                del self._due[index]
                child = self._children[index] = _Child(index, self._app, self._worker)
                self._selector.register(child.line, selectors.EVENT_READ, child)

    def _listen(self, child: _Child) -> None:
        said, ended = child.read()
        for message in said:
            if "ready" in message:
                self._on_ready(child, message["ready"])
            elif "fatal" in message:
                self._on_fatal(message["fatal"])
        if ended:
            self._bury(child)

    def _on_ready(self, child: _Child, what: dict[str, Any]) -> None:
        child.ready = True
        if self._settings is None:
            self._settings = Settings(**what["settings"])
            self._announce(what)
            self._due |= dict.fromkeys(range(1, self._worker.processes), 0.0)

    def _on_fatal(self, reason: str) -> None:
        if self._settings is None:
            self._refuse(reason)
            self._exit_code = 2
            self._due.clear()
            self._stop_signals += 1
            self._signal_children(signal.SIGTERM)
        else:  # it has worked before: the module may be in the middle of a deployment
            _log.error("a new child cannot work: %s", reason)

    def _bury(self, child: _Child) -> None:
        """Note the end of a child, hand back what it held, and have another take its place."""
        self._selector.unregister(child.line)
        child.line.close()
        del self._children[child.index]
        code = child.process.wait()
        stopping = self._stop_signals > 0
        if not stopping:
            # One that worked is replaced at once: somebody waits for what it held. One that could not even begin
            # will most likely not begin the next time either.
            self._failures = 0 if child.ready else self._failures + 1
            bound = min(_LONGEST_PAUSE_SECONDS, 0.1 * 2**self._failures)
            pause = random.uniform(0, bound) if self._failures else 0.0  # noqa: S311 - spreads load
            self._due[child.index] = time.monotonic() + pause
            self._start_due()  # before the rescue: it takes some time to start
        if code != 0 or not stopping:
            self._rescue(child, f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")

    def _rescue(self, child: _Child, how: str) -> None:
        if self._settings is None:
            return
        # What is imported here costs memory, which most supervisors never need.
        from streamq.broker.fleet import rescue  # noqa: PLC0415
        from streamq.errors import BrokerError  # noqa: PLC0415

        try:
            given, buried = rescue(self._settings, self._worker.queues, child.consumer, how)
        except BrokerError as error:
            _log.error("%s died (%s); its lease brings back what it held: %s", child.consumer, how, error)
        else:
            _log.error("%s died (%s); handed back the %d tasks it held", child.consumer, how, given)
            if buried:
                _log.error("%d of its tasks had seen too many deaths and are dead letters now", buried)
