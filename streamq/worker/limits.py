"""Which runs have a time limit, and which go on in spite of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streamq.worker.holdings import Holdings, Run

_STUCK_SECONDS = 5.0  # so long after its time limit a run should have seen it


class TimeLimits:
    """Ends runs when their time is over, as far as that can be done.

    Args:
        holdings: the runs.
        overrun: fails a run that goes on, though its time is over.
    """

    def __init__(self, holdings: Holdings, overrun: Callable[[Run], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._holdings = holdings
        self._overrun = overrun
        self._timers: dict[Run, list[asyncio.TimerHandle]] = {}
        self._overdue: set[Run] = set()

    def begin(self, run: Run, interrupt: Callable[[Run], None] | None = None) -> None:
        """Note that the user's code begins; `interrupt` is called when the soft limit is over."""
        assert run.task is not None  # noqa: S101 - it runs
        options = run.task.options
        if run.ended:
            return
        run.deadline = self._loop.time() + (options.timeout or options.hard_timeout or 0)
        timers = self._timers[run] = []
        if interrupt is not None and options.timeout is not None:
            timers.append(self._loop.call_later(options.timeout, interrupt, run))
        if options.hard_timeout is not None:
            timers.append(self._loop.call_later(options.hard_timeout, self._strike, run))

    def end(self, run: Run) -> None:
        """Note that the user's code has ended."""
        for timer in self._timers.pop(run, ()):
            timer.cancel()

    def _strike(self, run: Run) -> None:
        if not run.ended:
            run.ended = True
            self._overdue.add(run)
            self._overrun(run)

    def has_ended(self, run: Run) -> None:
        """Note that a run that was failed before its end has ended after all."""
        self._overdue.discard(run)

    def strike_late(self) -> None:
        """Fail all that should have seen its soft limit by now: nobody should wait for it."""
        for run in self._late():
            self._strike(run)

    def _late(self) -> set[Run]:
        moment = self._loop.time() - _STUCK_SECONDS
        return {run for run in (*self._overdue.copy(), *self._holdings.all()) if 0 < run.deadline < moment}

    @property
    def stuck(self) -> int:
        """How many runs go on although their time is over. Any thread may ask."""
        return len(self._late())
