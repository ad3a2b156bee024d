"""What a worker process reports to its supervisor, and when it asks to be replaced."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from typing import Any

from streamq.config import WorkerSettings
from streamq.worker.executor import Executor
from streamq.worker.metrics import Counters, Vitals, peak_memory
from streamq.worker.outage import Outage

_log = logging.getLogger("streamq.worker")


class Reporter:
    """Asked by one thread only.

    Args:
        worker: the bounds of this process.
        executor: what runs them.
        outage: what knows when Redis last answered.
        counters: what is counted.
    """

    def __init__(self, worker: WorkerSettings, executor: Executor, outage: Outage, counters: Counters) -> None:
        self._worker = worker
        self._executor = executor
        self._outage = outage
        self._counters = counters
        self._told: dict[tuple[str, str], int] = {}
        self._stuck_since: float | None = None
        self._asked_to_go = False

    def report(self, *, lag: float, blocked: float) -> dict[str, Any]:
        """Return how this process is, and what was counted since the last report."""
        heard = self._outage.heard
        vitals = Vitals(
            running=self._executor.busy,
            capacity=self._executor.capacity,
            silence=None if heard is None else time.monotonic() - heard,
            lag=lag,
            blocked=blocked,
            stuck=self._executor.stuck,
        )
        self._counters["outages", ""] = self._outage.times
        counted = self._counters.copy()  # one step for the interpreter
        told, self._told = self._told, counted
        news = [[*key, number - told.get(key, 0)] for key, number in counted.items() if number != told.get(key, 0)]
        return {"vitals": asdict(vitals), "counted": news}

    def reason_to_go(self) -> tuple[str, str] | None:
        """Return once why this process should be replaced: for metrics, and in words."""
        self._watch_stuck()
        if self._asked_to_go:
            return None
        reason = self._reason()
        self._asked_to_go = reason is not None
        return reason

    def _watch_stuck(self) -> None:
        stuck = self._executor.stuck
        if stuck and self._stuck_since is None:
            self._stuck_since = time.monotonic()
            _log.error(
                "%d tasks go on in spite of their time limit; if so for %g s, this process is replaced",
                stuck,
                self._worker.stuck_after,
            )
        elif not stuck and self._stuck_since is not None:
            _log.info("the tasks that had gone on in spite of their time limit have ended")
            self._stuck_since = None

    def _reason(self) -> tuple[str, str] | None:
        worker, ended = self._worker, self._executor.ended
        if worker.max_tasks_per_child is not None and ended >= worker.max_tasks_per_child:
            return "max_tasks", f"it has ended {ended} tasks (--max-tasks-per-child {worker.max_tasks_per_child})"
        # One that has done nothing yet would be followed by another that is as large.
        if worker.max_memory_per_child is not None and ended and (peak := peak_memory()) > worker.max_memory_per_child:
            return "max_memory", f"it had {peak:.0f} MiB (--max-memory-per-child {worker.max_memory_per_child:g})"
        if self._stuck_since is not None and time.monotonic() - self._stuck_since > worker.stuck_after:
            return "stuck", f"tasks go on in spite of their time limit (--stuck-after {worker.stuck_after:g})"
        return None
