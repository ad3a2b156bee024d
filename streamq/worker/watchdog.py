"""Watches the event loop from a thread, and tells the supervisor how this process is.

User code that blocks the loop keeps all other tasks of its process waiting. So that it is found, the log says which
task it was and where; if it does not end, the process does, and the supervisor gives to others what it held.

This thread needs the interpreter as all others do. C code that does not let go of it stops this thread too: the
supervisor then hears nothing any more, and ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable

from streamq.worker.metrics import EXIT_BLOCKED, Counters
from streamq.worker.reporter import Reporter
from streamq.worker.stacks import Stacks

_log = logging.getLogger("streamq.worker")

_LOOK_SECONDS = 0.25
_LOOKS_IN_A_REPORT = 4
_LIMIT_SECONDS = 1.0  # a task that holds the loop for so long is at fault


class Watchdog(threading.Thread):
    """The thread that watches and reports.

    To be made on the event loop.

    Args:
        stacks: what shows where the loop is.
        reporter: what this process reports.
        counters: where blocked times are counted.
        say: sends a message to the supervisor.
        longest: seconds after which a process whose loop is blocked ends.
    """

    def __init__(
        self, stacks: Stacks, reporter: Reporter, counters: Counters, say: Callable[..., None], longest: float
    ) -> None:
        super().__init__(name="streamq-watchdog", daemon=True)
        self._stacks = stacks
        self._reporter = reporter
        self._counters = counters
        self._say = say
        self._longest = longest
        self._loop = asyncio.get_running_loop()
        self._stopping = threading.Event()
        self._looked = self._asked = time.monotonic()
        self._answered: float | None = self._asked
        self._warned = False
        self._lag = 0.0

    def run(self) -> None:
        """Watch until `stop` is called."""
        looks = 0
        while not self._stopping.wait(_LOOK_SECONDS):
            self._look()
            if reason := self._reporter.reason_to_go():
                self._say(replace=reason)
            looks += 1
            if looks % _LOOKS_IN_A_REPORT == 0:
                self._report()
        self._report()

    def stop(self) -> None:
        """Send a last report, and end."""
        self._stopping.set()
        if self.is_alive():
            self.join()

    def _report(self) -> None:
        self._say(report=self._reporter.report(lag=self._lag, blocked=self._blocked))
        self._lag = 0.0

    def _look(self) -> None:
        now = time.monotonic()
        held = now - self._looked - _LOOK_SECONDS
        self._looked = now
        if held > _LIMIT_SECONDS:
            self._was_held(held)
        if self._answered is not None:
            lag = self._answered - self._asked
            self._lag = max(self._lag, lag)
            if self._warned:
                self._over(lag)
            self._ask(now)
        elif now - self._asked > self._longest:
            self._end_process(now - self._asked)
        elif now - self._asked > _LIMIT_SECONDS and not self._warned:
            self._warned = True
            who, stack = self._stacks.of_loop()
            _log.warning("the event loop is blocked by %s, which now is at:\n%s", who, stack)

    @property
    def _blocked(self) -> float:
        return self._looked - self._asked if self._warned else 0.0

    def _ask(self, now: float) -> None:
        self._asked, self._answered = now, None
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        self._answered = time.monotonic()

    def _was_held(self, seconds: float) -> None:
        """Note that not even this thread could run. A process that was stopped from outside must not end for that."""
        who, _ = self._stacks.of_loop()
        _log.warning(
            "nothing in this process ran for %.1f s: C code kept the interpreter, or it was stopped; "
            "the event loop now runs %s",
            seconds,
            who,
        )
        self._count(seconds)
        if self._answered is None:
            self._asked += seconds

    def _over(self, seconds: float) -> None:
        _log.warning("the event loop was blocked for %.1f s", seconds)
        self._count(seconds)
        self._warned = False

    def _count(self, seconds: float) -> None:
        self._counters["loop_blocked", ""] += 1
        self._counters["loop_blocked_ms", ""] += round(seconds * 1000)

    def _end_process(self, seconds: float) -> None:
        """End at once: what this process holds cannot go on here, and its supervisor hands it back."""
        _log.critical("the event loop has been blocked for %.1f s: this process ends", seconds)
        self._count(seconds)
        self._report()
        self._stacks.print_tasks()
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        os._exit(EXIT_BLOCKED)
