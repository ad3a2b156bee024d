"""Runs deliveries: async tasks on the event loop, sync tasks in threads, and some in processes of their own.

Those that ask for a process get one, and those under which so many workers have died that the next death is the last,
which must be theirs, and not that of a neighbour.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from streamq.config import Settings, WorkerSettings
from streamq.context import context_of, running
from streamq.errors import PayloadTooLarge
from streamq.lifecycle import Abandoned, Outcome, is_suspect
from streamq.message import VERSION, Delivery
from streamq.sending import part_of
from streamq.tasks import Task, find_task
from streamq.worker.gate import Gate
from streamq.worker.heeding import expiry, heed
from streamq.worker.holdings import Holdings, Run
from streamq.worker.lanes import AHEAD_MOST, Lane, Pace, free_places
from streamq.worker.limits import TimeLimits
from streamq.worker.outcomes import failed, succeeded, timed_out, unroutable, within
from streamq.worker.pool import ThreadPool
from streamq.worker.processes import ProcessPool
from streamq.worker.threads import InThread
from streamq.worker.trial import Trial

P = ParamSpec("P")
T = TypeVar("T")

_UNCOMMITTED_MOST = 1000
_SUSPECTS = 8  # at a time; each has a process of its own, of some 50 MB


class Executor:
    """Takes deliveries in, runs them, and passes each run with its outcome to `settle`.

    Args:
        tasks: what this worker can run, by name.
        state: what the app's lifespan yielded.
        holdings: where runs are noted from their arrival on.
        settle: takes a run and its outcome.
        processes: the pool of processes.
        gate: what limited runs ask whether they may begin; None: there are none.
        open_outbox: gives a run its outbox; None: what runs emit goes nowhere.
        settings: those of the app.
        worker: those of the worker.
        say: sends a message to the supervisor.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task[..., Any]],
        state: Any,
        holdings: Holdings,
        settle: Callable[[Run, Outcome], None],
        *,
        processes: ProcessPool,
        settings: Settings,
        worker: WorkerSettings,
        say: Callable[..., None],
        gate: Gate | None = None,
        open_outbox: Callable[[Run], None] | None = None,
    ) -> None:
        self._tasks = tasks
        self._state = state
        self._holdings = holdings
        self._settle = settle
        self._open_outbox = open_outbox
        self._processes = processes
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPool(worker.threads, self._loop, self._thread_ended)
        self._on_loop = Lane(worker.concurrency, self._start_on_loop)
        self._in_threads = Lane(worker.threads, self._start_in_thread)
        self._in_processes = Lane(worker.pool_processes, self._start_in_process)
        self._suspects = Lane(_SUSPECTS, self._start_in_process)
        self._lanes = (self._on_loop, self._in_threads, self._in_processes, self._suspects)
        self._trial = Trial((self._on_loop, self._in_threads), holdings, say, self._is_over, self._start)
        if gate is not None:
            gate.guard(self._lanes, settle, self._start)
        self._expected = [lane for lane in self._lanes if any(self._lane_of(task) is lane for task in tasks.values())]
        self._expected = self._expected or [self._on_loop]
        self._limits = TimeLimits(holdings, self._overrun)
        self._run_in_thread = InThread(self._threads, self._limits, state, settings.max_result)
        self._pace = Pace()
        self._blank = contextvars.Context()
        self._draining = False

    def _lane_of(self, task: Task[..., Any], deaths: int = 0) -> Lane:
        if is_suspect(deaths, self._settings.max_deaths):
            return self._suspects
        if task.options.pool == "process":
            return self._in_processes
        return self._on_loop if task.is_async else self._in_threads

    def room(self) -> int:
        """Return how many more messages this process should take now."""
        if len(self._holdings) >= self._on_loop.size + AHEAD_MOST + _UNCOMMITTED_MOST:
            return 0
        waiting = sum(lane.queued for lane in self._expected)  # of suspects there are few, and they can wait
        return free_places(self._expected, self._on_loop) + self._pace.ahead() - waiting

    def hold(self, deliveries: Iterable[Delivery]) -> list[Run]:
        """Take deliveries in: from now on their leases are renewed."""
        opener = self._open_outbox
        runs = [Run(delivery, find_task(self._tasks, delivery.message.task), opener) for delivery in deliveries]
        for run in runs:
            self._holdings.add(run)
        return runs

    def begin(self, runs: Iterable[Run]) -> None:
        """Start what is held, in order, as places become free."""
        most = self._settings.max_payload
        for run in runs:
            task, delivery = run.task, run.delivery
            if task is None or delivery.version > VERSION:
                self._settle(run, unroutable(delivery))
            elif (size := len(delivery.message.args)) > most and part_of(delivery.message) is None:
                error = PayloadTooLarge(f"its {size} bytes of arguments are over max_payload {most}")
                self._settle(run, self._in_its_context(run, failed, task, delivery, error))
            elif delivery.message.options and (outcome := self._in_its_context(run, heed, run)) is not None:
                self._settle(run, outcome)
            elif delivery.deaths or task.options.pool:
                self._trial.put(run, self._lane_of(task, delivery.deaths))
            else:
                (self._on_loop if task.is_async else self._in_threads).waiting.append(run)
        self._start()

    def _in_its_context(self, run: Run, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` as if from within a run, so that log lines name the task."""
        context = self._blank.copy()
        context.run(running.set, (run.delivery, self._state, run))
        return context.run(function, *args, **kwargs)

    def _start(self) -> None:
        if self._draining:
            return
        if self._trial.waiting:
            self._trial.start()
        for lane in self._lanes:
            while lane.waiting and lane.running < lane.size:
                run = lane.waiting.popleft()
                if (run.lost or run.expires_ms) and self._is_over(run):
                    continue
                lane.running += 1
                lane.start(run)

    def _is_over(self, run: Run) -> bool:
        """Whether a run must not begin any more, having waited too long; then it is held no longer."""
        if run.lost:
            self._holdings.drop(run)
        elif run.expires_ms and (outcome := self._in_its_context(run, expiry, run)) is not None:
            self._settle(run, outcome)
        else:
            return False
        return True

    def _start_on_loop(self, run: Run) -> None:
        if run.delivery.deaths:
            self._trial.begins(run)
        # A context of its own: this may be called from within another task's.
        run.handle = self._loop.create_task(self._run_on_loop(run), context=self._blank.copy())

    def _start_in_thread(self, run: Run) -> None:
        if run.delivery.deaths:
            self._trial.begins(run)
        self._threads.submit(run, self._run_in_thread)

    def _start_in_process(self, run: Run) -> None:
        run.handle = self._loop.create_task(self._run_in_process(run), context=self._blank.copy())

    def _ended(self, run: Run, outcome: Outcome) -> None:
        self._pace.ended += 1
        if run.delivery.deaths:
            self._trial.ended(run)
        run.handle = None  # its context has the run: left alone, the two would be garbage that only a search finds
        if not run.ended:
            run.ended = True
            self._settle(run, outcome)
        else:
            self._limits.has_ended(run)  # it took too long, and has its outcome
        self._start()
        self._holdings.nudge()

    async def _run_on_loop(self, run: Run) -> None:
        task, delivery = run.task, run.delivery
        assert task is not None  # noqa: S101 - begin() saw to it
        running.set((delivery, self._state, run))
        outcome: Outcome
        try:
            if run.handle is None:
                raise asyncio.CancelledError  # noqa: TRY301 - cut short before its first step
            args, kwargs = task.call_codec.decode(delivery.message.args)
            if task.options.bind:
                args = (context_of(delivery, self._state, run), *args)
            if task.is_limited:
                value = await self._within(run, task.options.timeout, task.run(*args, **kwargs))
            else:
                value = await task.run(*args, **kwargs)
            outcome = succeeded(task, delivery, value, self._settings.max_result)
        except asyncio.CancelledError as error:
            # Cancelled from within is a failure; by us, at the end of the grace time or of the lease, it is none.
            outcome = Abandoned() if run.handle is None else failed(task, delivery, error)
        except BaseException as error:  # noqa: BLE001 - also SystemExit: a task must not end the worker
            outcome = failed(task, delivery, error)
        self._on_loop.running -= 1
        self._ended(run, outcome)

    async def _within(self, run: Run, seconds: float | None, coroutine: Any) -> Any:
        self._limits.begin(run)
        try:
            return await within(seconds, coroutine)
        finally:
            self._limits.end(run)

    async def _run_in_process(self, run: Run) -> None:
        assert run.task is not None  # noqa: S101 - begin() saw to it
        running.set((run.delivery, self._state, run))
        try:
            outcome = await self._processes.run(run) if run.handle is not None else Abandoned()
        except asyncio.CancelledError:
            outcome = Abandoned()
        self._lane_of(run.task, run.delivery.deaths).running -= 1
        self._ended(run, outcome)

    def _thread_ended(self, run: Run, outcome: object) -> None:
        self._in_threads.running -= 1
        self._limits.end(run)
        if isinstance(outcome, BaseException):
            assert run.task is not None  # noqa: S101 - begin() saw to it
            outcome = Abandoned() if run.cancelled else failed(run.task, run.delivery, outcome)
        self._ended(run, outcome)  # type: ignore[arg-type]

    def _overrun(self, run: Run) -> None:
        """Fail a run that goes on, though its time is over. It keeps its place until it has really ended."""
        task = run.task
        assert task is not None  # noqa: S101 - begin() saw to it
        hard, soft = task.options.hard_timeout, task.options.timeout
        self._settle(run, failed(task, run.delivery, timed_out(hard or soft or 0, hard=hard is not None)))
        self.cancel(run)
        self._threads.interrupt(run)

    @property
    def stuck(self) -> int:
        """How many runs go on although their time is over. Any thread may ask."""
        return self._limits.stuck

    # ---- the end

    def drain(self) -> None:
        """Start nothing more. What does not heed its time limit has failed: nobody should wait for that."""
        self._draining = True
        self._limits.strike_late()

    def take_waiting(self) -> list[Run]:
        """Give out what has not started; it will not be run here."""
        waiting = [*self._trial.take_waiting(), *(run for lane in self._lanes for run in lane.waiting)]
        for lane in self._lanes:
            lane.waiting.clear()
        return waiting

    @property
    def busy(self) -> int:
        """How many tasks are running."""
        return sum(lane.running for lane in self._lanes)

    @property
    def capacity(self) -> int:
        """How many tasks can run at a time."""
        return sum(lane.size for lane in self._lanes if lane is not self._suspects)

    @property
    def ended(self) -> int:
        """How many runs have ended in this process."""
        return self._pace.total

    def cancel(self, run: Run) -> None:
        """Cut a run short, without an outcome; one in a thread goes on to its end."""
        handle, run.handle = run.handle, None
        # One that has not made its first step would not even come to say that its place is free.
        if handle is not None and inspect.getcoroutinestate(handle.get_coro()) != inspect.CORO_CREATED:  # type: ignore[arg-type]
            handle.cancel()

    def stop(self, run: Run) -> None:
        """Cut a run short that is not wanted any more; in a thread by an exception."""
        self.cancel(run)
        self._threads.interrupt(run, asyncio.CancelledError)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.close()
