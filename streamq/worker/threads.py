"""How a sync task is run in a thread."""

from __future__ import annotations

import asyncio
from typing import Any

from streamq.context import context_of, running
from streamq.errors import TaskTimeout
from streamq.lifecycle import Abandoned, Outcome
from streamq.tasks import Task
from streamq.worker.holdings import Run
from streamq.worker.limits import TimeLimits
from streamq.worker.outcomes import failed, succeeded, timed_out
from streamq.worker.pool import ThreadPool


class InThread:
    """Runs the functions of sync tasks. To be made on the event loop.

    Args:
        threads: where it is called.
        limits: where the time of limited runs is taken.
        state: what the app's lifespan yielded.
        max_result: bytes that an encoded result may have.
    """

    def __init__(self, threads: ThreadPool, limits: TimeLimits, state: Any, max_result: int) -> None:
        self._threads = threads
        self._limits = limits
        self._state = state
        self._max_result = max_result
        self._loop = asyncio.get_running_loop()

    def __call__(self, run: Run) -> Outcome:
        """Run a task; called in a thread."""
        task, delivery = run.task, run.delivery
        assert task is not None  # noqa: S101 - the executor saw to it
        running.set((delivery, self._state, run))
        try:
            args, kwargs = task.call_codec.decode(delivery.message.args)
            if task.options.bind:
                args = (context_of(delivery, self._state, run), *args)
            value = self._call(run, task, args, kwargs)
            return succeeded(task, delivery, value, self._max_result)
        except BaseException as error:  # noqa: BLE001 - also SystemExit: a task must not end the worker
            return Abandoned() if run.ended or run.cancelled else failed(task, delivery, error)

    def _call(self, run: Run, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            self._threads.enter(run)
            try:
                if run.cancelled:
                    raise asyncio.CancelledError
                if task.is_limited:
                    self._loop.call_soon_threadsafe(self._limits.begin, run, self._threads.interrupt)
                return task.run(*args, **kwargs)
            finally:
                self._threads.leave(run)
        except TaskTimeout as error:
            if task.is_limited:
                raise timed_out(task.options.timeout or task.options.hard_timeout or 0) from error
            raise
