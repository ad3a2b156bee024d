"""Runs deliveries: async tasks on the event loop, sync tasks in threads. What a run leads to is a value."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from streamq.codec import encode_error, encode_result
from streamq.context import context_of, running
from streamq.errors import ResultTooLarge, StreamqError, TaskTimeout
from streamq.lifecycle import Abandoned, Failed, Outcome, Succeeded, Unroutable
from streamq.message import Delivery
from streamq.tasks import Task
from streamq.worker.holdings import Holdings, Run
from streamq.worker.pool import ThreadPool

_log = logging.getLogger("streamq.task")
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep  # noqa: PTH120 - as frames have it

# What is fetched ahead must start within this many seconds at the pace of late, so that a task does not wait in the
# memory of one worker while another is idle.
_AHEAD_SECONDS = 0.05
_AHEAD_MOST = 300
_UNCOMMITTED_MOST = 1000


class Pace:
    """How many runs end in a second, of late."""

    def __init__(self) -> None:
        self.ended = 0
        self._since = time.monotonic()
        self._rate = 0.0

    def ahead(self) -> int:
        """Return how many messages may wait in memory."""
        elapsed = time.monotonic() - self._since
        if elapsed >= _AHEAD_SECONDS:
            self._rate = self.ended / elapsed
            self.ended = 0
            self._since += elapsed
        return min(_AHEAD_MOST, int(self._rate * _AHEAD_SECONDS))


class Executor:
    """Takes deliveries in, runs them, and passes each run with its outcome to `settle`.

    Args:
        tasks: what this worker can run, by name.
        state: what the app's lifespan yielded.
        holdings: where runs are noted from their arrival on.
        settle: takes a run and its outcome.
        concurrency: async tasks at a time.
        threads: sync tasks at a time.
        max_result: bytes that an encoded result may have.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task[..., Any]],
        state: Any,
        holdings: Holdings,
        settle: Callable[[Run, Outcome], None],
        *,
        concurrency: int,
        threads: int,
        max_result: int,
    ) -> None:
        self._tasks = tasks
        self._state = state
        self._holdings = holdings
        self._settle = settle
        self._concurrency = concurrency
        self._max_result = max_result
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPool(threads, self._loop, self._thread_ended)
        self._async_waiting: deque[Run] = deque()
        self._sync_waiting: deque[Run] = deque()
        self._async_running = 0
        self._sync_running = 0
        self._has_async = any(task.is_async for task in tasks.values())
        self._has_sync = any(not task.is_async for task in tasks.values())
        self._timers: dict[Run, asyncio.TimerHandle] = {}
        self._pace = Pace()
        self._blank = contextvars.Context()
        self._draining = False
        self.ended = 0  # runs, since the start of this process
        self.stuck = 0  # runs past their limit that cannot be ended

    # ---- how much to fetch

    def room(self) -> int:
        """Return how many more messages this process should take now."""
        if len(self._holdings) >= self._concurrency + _AHEAD_MOST + _UNCOMMITTED_MOST:
            return 0
        return self._free() + self._pace.ahead() - len(self._async_waiting) - len(self._sync_waiting)

    def _free(self) -> int:
        free_async = self._concurrency - self._async_running
        free_sync = self._pool.size - self._sync_running
        if not self._has_sync:
            return free_async
        if not self._has_async:
            return free_sync
        if free_sync > 0:
            return min(free_async, free_sync)
        # All threads are taken: go on for the sake of async tasks, but not until memory is full of sync ones.
        return min(free_async, 1 + len(self._sync_waiting)) if len(self._sync_waiting) < self._pool.size else 0

    # ---- what runs

    def hold(self, deliveries: Iterable[Delivery]) -> list[Run]:
        """Take deliveries in: from now on their leases are renewed."""
        runs = [Run(delivery, self._tasks.get(delivery.message.task)) for delivery in deliveries]
        for run in runs:
            self._holdings.add(run)
        return runs

    def begin(self, runs: Iterable[Run]) -> None:
        """Start what is held, in order, as places become free."""
        for run in runs:
            task, delivery = run.task, run.delivery
            if task is None:
                error = StreamqError(f"no task is registered under the name {delivery.message.task!r}")
                self._settle(run, Unroutable(encode_error(error, with_traceback=False)))
            elif task.is_async:
                self._async_waiting.append(run)
            else:
                self._sync_waiting.append(run)
        self._start()

    def _start(self) -> None:
        if self._draining:
            return
        while self._async_waiting and self._async_running < self._concurrency:
            run = self._async_waiting.popleft()
            if run.lost:
                self._holdings.drop(run)
                continue
            self._async_running += 1
            # A context of its own: this may be called from within another task's.
            run.handle = self._loop.create_task(self._run_async(run), context=self._blank.copy())
        while self._sync_waiting and self._sync_running < self._pool.size:
            run = self._sync_waiting.popleft()
            if run.lost:
                self._holdings.drop(run)
                continue
            self._sync_running += 1
            self._pool.submit(run, self._run_sync)

    def _ended(self, run: Run, outcome: Outcome) -> None:
        self._pace.ended += 1
        self.ended += 1
        run.ended = True
        self._settle(run, outcome)
        if self._async_waiting or self._sync_waiting:
            self._start()
        self._holdings.nudge()

    async def _run_async(self, run: Run) -> None:
        task, delivery = run.task, run.delivery
        assert task is not None  # noqa: S101 - accept() saw to it
        running.set((delivery, self._state))
        outcome: Outcome
        try:
            if run.handle is None:
                raise asyncio.CancelledError  # noqa: TRY301 - cut short before its first step
            args, kwargs = task.call_codec.decode(delivery.message.args)
            if task.options.bind:
                args = (context_of(delivery, self._state), *args)
            if task.options.timeout is None:
                value = await task.function(*args, **kwargs)
            else:
                value = await self._within(task.options.timeout, task.function(*args, **kwargs))
            outcome = self._succeeded(value)
        except asyncio.CancelledError as error:
            # Cancelled from within is a failure; by us, at the end of the grace time or of the lease, it is none.
            outcome = Abandoned() if run.handle is None else self._failed(run, error)
        except BaseException as error:  # noqa: BLE001 - also SystemExit: a task must not end the worker
            outcome = self._failed(run, error)
        self._async_running -= 1
        self._ended(run, outcome)

    async def _within(self, seconds: float, coroutine: Any) -> Any:
        try:
            async with asyncio.timeout(seconds) as limit:
                return await coroutine
        except TimeoutError as error:
            if limit.expired():
                raise _timed_out(seconds) from error
            raise

    def _run_sync(self, run: Run) -> Outcome:
        """Run a sync task; called in a thread."""
        task, delivery = run.task, run.delivery
        assert task is not None  # noqa: S101 - accept() saw to it
        running.set((delivery, self._state))
        timeout = task.options.timeout
        try:
            args, kwargs = task.call_codec.decode(delivery.message.args)
            if task.options.bind:
                args = (context_of(delivery, self._state), *args)
            if timeout is None:
                return self._succeeded(task.function(*args, **kwargs))
            return self._succeeded(self._call_within(run, timeout, lambda: task.function(*args, **kwargs)))
        except BaseException as error:  # noqa: BLE001 - also SystemExit: a task must not end the worker
            return self._failed(run, error)

    def _call_within(self, run: Run, seconds: float, call: Callable[[], Any]) -> Any:
        self._pool.limit(run)
        try:
            try:
                self._loop.call_soon_threadsafe(self._set_timer, run, seconds)
                return call()
            finally:
                self._pool.unlimit(run)
        except TaskTimeout as error:
            raise _timed_out(seconds) from error

    def _set_timer(self, run: Run, seconds: float) -> None:
        if not run.ended:
            self._timers[run] = self._loop.call_later(seconds, self._pool.interrupt, run)

    def _thread_ended(self, run: Run, outcome: object) -> None:
        self._sync_running -= 1
        if (timer := self._timers.pop(run, None)) is not None:
            timer.cancel()
        if isinstance(outcome, TaskTimeout):
            outcome = self._failed(run, outcome)
        self._ended(run, outcome)  # type: ignore[arg-type]

    def _succeeded(self, value: Any) -> Succeeded:
        result = encode_result(value)
        if len(result) > self._max_result:
            raise ResultTooLarge(
                f"the result has {len(result)} bytes, over the limit of {self._max_result} (max_result)"
            )
        return Succeeded(result)

    def _failed(self, run: Run, error: BaseException) -> Failed:
        _leave_users_frames(error)
        task = run.task
        expected = task is not None and isinstance(error, task.options.raises)
        name, level = run.delivery.message.task, logging.INFO if expected else logging.ERROR
        _log.log(
            level,
            "%s failed: %s: %s",
            name,
            type(error).__name__,
            error,
            exc_info=None if expected else error,
        )
        return Failed(encode_error(error))

    # ---- the end

    def drain(self) -> None:
        """Start nothing more."""
        self._draining = True

    def take_waiting(self) -> list[Run]:
        """Give out what has not started; it will not be run here."""
        waiting = [*self._async_waiting, *self._sync_waiting]
        self._async_waiting.clear()
        self._sync_waiting.clear()
        return waiting

    @property
    def busy(self) -> int:
        """How many tasks are running."""
        return self._async_running + self._sync_running

    def cancel(self, run: Run) -> None:
        """Cut an async run short, without an outcome; one in a thread goes on to its end."""
        handle, run.handle = run.handle, None
        # One that has not made its first step would not even come to say that its place is free.
        if handle is not None and inspect.getcoroutinestate(handle.get_coro()) != inspect.CORO_CREATED:  # type: ignore[arg-type]
            handle.cancel()

    def close(self) -> None:
        """Let the threads end."""
        self._pool.close()


def _timed_out(seconds: float) -> TaskTimeout:
    return TaskTimeout(f"ran longer than its timeout of {seconds:g} s")


def _leave_users_frames(error: BaseException | None) -> None:
    """Take our own frames off the top of an error's traceback, and of those of its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE):
            trace = trace.tb_next
        error.__traceback__ = trace
        error = error.__cause__ or error.__context__
