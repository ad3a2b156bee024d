"""The threads of sync tasks."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import threading
from collections import deque
from collections.abc import Callable

from streamq.errors import TaskTimeout
from streamq.worker.holdings import Run


def _raise_in(ident: int, error: type[BaseException]) -> None:
    """Have `error` raised in a thread at one of its next bytecodes."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(error))


def _let_it_strike() -> None:
    """Run some bytecodes, in a frame of its own: Python 3.13 checks for an exception outside a loop's own ``try``."""
    for _ in range(1000):
        pass


_STRIKES = (TaskTimeout, asyncio.CancelledError)


class ThreadPool:
    """Runs functions in at most `size` threads and reports what they return to the event loop.

    A thread cannot be killed. A time limit raises `TaskTimeout` in it, and a cancellation `asyncio.CancelledError`, as
    in an async task; a call that blocks in C sees that only when it returns.

    Args:
        size: threads at most.
        loop: where `report` is called.
        report: is given the run and what the function returned.
    """

    def __init__(self, size: int, loop: asyncio.AbstractEventLoop, report: Callable[[Run, object], None]) -> None:
        self.size = size
        self._loop = loop
        self._report = report
        self._work: deque[tuple[Run, Callable[[Run], object]] | None] = deque()
        self._ended: list[tuple[Run, object]] = []
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._lock = threading.Lock()
        self._more_work = threading.Condition(self._lock)
        self._inside: dict[Run, int] = {}  # the threads that run the user's code
        self._struck: set[Run] = set()

    def submit(self, run: Run, function: Callable[[Run], object]) -> None:
        """Have `function` called with `run` in a thread; it must not raise anything but what `interrupt` does."""
        with self._more_work:
            self._work.append((run, function))
            if self._idle < len(self._work) and len(self._threads) < self.size:
                name = f"streamq-task-{len(self._threads)}"
                thread = threading.Thread(target=self._serve, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
            self._more_work.notify()

    def _serve(self) -> None:
        while (item := self._next()) is not None:
            run, function = item
            outcome = contextvars.Context().run(self._call, run, function)
            with self._lock:
                self._inside.pop(run, None)  # `leave` may have been struck itself
                self._struck.discard(run)
                self._ended.append((run, outcome))
                wake = len(self._ended) == 1  # else the wake-up that is under way will see this one too
            if wake:
                try:
                    self._loop.call_soon_threadsafe(self._collect)
                except RuntimeError:  # the loop was closed: the grace time is over
                    return
            del item, run, function, outcome

    def _next(self) -> tuple[Run, Callable[[Run], object]] | None:
        with self._more_work:
            while not self._work:
                self._idle += 1
                self._more_work.wait()
                self._idle -= 1
            return self._work.popleft()

    def _call(self, run: Run, function: Callable[[Run], object]) -> object:
        try:
            return function(run)
        except _STRIKES as error:  # it struck between the function's end and `leave`
            return error

    def _collect(self) -> None:
        with self._lock:
            ended, self._ended = self._ended, []
        for run, outcome in ended:
            self._report(run, outcome)

    def enter(self, run: Run) -> None:
        """Note that the calling thread now runs user code that `interrupt` may end."""
        self._inside[run] = threading.get_ident()

    def leave(self, run: Run) -> None:
        """Note that the user code has ended. What has struck just then must not hit what comes next.

        It cannot be taken back: on Python 3.11 PyThreadState_SetAsyncExc with NULL leaves the interpreter looking for
        an exception for ever, and one that is traced hangs. So it is waited for, which takes a few bytecodes.
        """
        try:
            # Without the lock, because nearly always nobody interrupts: each of these is one step for the interpreter.
            if self._inside.pop(run, None) is None or run in self._struck:
                with self._lock:  # until the exception is on its way
                    self._inside.pop(run, None)
                    self._struck.discard(run)
                _let_it_strike()
        except _STRIKES:
            pass

    def interrupt(self, run: Run, error: type[BaseException] = TaskTimeout) -> None:
        """Raise `error` in the thread that runs the user code of `run`, if one still does."""
        with self._lock:
            ident = self._inside.pop(run, None)
            if ident is not None:
                self._struck.add(run)
                _raise_in(ident, error)
                self._inside[run] = ident

    def close(self) -> None:
        """Let the idle threads end. Those that are stuck are daemons and end with the process."""
        with self._more_work:
            self._work.extend([None] * len(self._threads))
            self._more_work.notify_all()
