"""Sync tasks run in threads, each in a context of its own, and a time limit strikes only the run it is meant for."""

from __future__ import annotations

import asyncio
import contextvars
import random
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from streamq.errors import TaskTimeout
from streamq.worker.holdings import Run
from streamq.worker.pool import ThreadPool
from tests.workers import until

# An exception that is raised in a thread at any bytecode may strike in the tracer of the coverage, whose lock then
# stays taken for ever.
pytestmark = pytest.mark.no_cover

ROUNDS = 200
VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("variable")


class Runs:
    """A pool and what it reports."""

    def __init__(self, size: int) -> None:
        self.ended: dict[Run, object] = {}
        self.pool = ThreadPool(size, asyncio.get_running_loop(), self._report)
        self._progress = asyncio.Event()

    def _report(self, run: Run, outcome: object) -> None:
        self.ended[run] = outcome
        self._progress.set()

    def submit(self, function: Callable[[Run], object]) -> Run:
        run = Run(None, None)
        self.pool.submit(run, function)
        return run

    async def result(self, run: Run) -> object:
        async with asyncio.timeout(10):
            while run not in self.ended:
                self._progress.clear()
                await self._progress.wait()
        return self.ended[run]


@pytest.fixture
def make_pool():
    """Make pools whose threads have to end when they are closed."""
    made: list[Runs] = []

    def make(size: int) -> Runs:
        made.append(Runs(size))
        return made[-1]

    yield make
    for runs in made:
        runs.pool.close()
        for thread in runs.pool._threads:
            thread.join(timeout=5)
            assert not thread.is_alive()


@pytest.fixture
def switch_often(monkeypatch):
    """Have threads take turns at nearly every step, so that races show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


async def test_what_functions_return_is_reported_on_the_loop(make_pool):
    """Each run is reported once, with its own outcome, by the thread of the event loop."""
    runs = make_pool(4)
    here = threading.get_ident()
    submitted = {runs.submit(lambda _, n=n: (n, threading.get_ident())): n for n in range(200)}
    for run, n in submitted.items():
        number, ident = await runs.result(run)
        assert number == n
        assert ident != here
    assert len(runs.ended) == len(submitted)


async def test_as_many_run_at_a_time_as_there_are_threads(make_pool):
    """All threads are used, none is started that is not needed, and idle ones are used again."""
    runs = make_pool(3)
    for _ in range(5):
        await runs.result(runs.submit(lambda _: None))
        until(lambda: runs.pool._idle == 1)
    assert len(runs.pool._threads) == 1
    together = threading.Barrier(3, timeout=5)
    for run in [runs.submit(lambda _: together.wait() >= 0) for _ in range(3)]:
        assert await runs.result(run) is True
    assert len(runs.pool._threads) == 3


async def test_a_run_does_not_see_the_context_of_another(make_pool):
    """Context variables of the submitter and of earlier runs in the thread are not there."""
    runs = make_pool(1)
    VARIABLE.set(1)

    def look_and_set(_: Run) -> int:
        seen = VARIABLE.get(0)
        VARIABLE.set(2)
        return seen

    assert [await runs.result(runs.submit(look_and_set)) for _ in range(3)] == [0, 0, 0]


def _spin(seconds: float) -> None:
    """Run Python code; a function of its own, because Python 3.13.0 leaves jumps back out of a ``try``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass


def spin_until_struck(runs: Runs, began: threading.Event) -> Callable[[Run], object]:
    def function(run: Run) -> object:
        try:
            runs.pool.enter(run)
            try:
                began.set()
                _spin(5)
            finally:
                runs.pool.leave(run)
        except TaskTimeout:
            return "struck"
        return "not struck"

    return function


async def test_an_interrupt_ends_the_run_it_is_meant_for(make_pool):
    """Another run, at the same time in another thread, goes on."""
    runs = make_pool(2)
    began, gate = threading.Event(), threading.Event()
    other = runs.submit(lambda _: gate.wait(5))
    run = runs.submit(spin_until_struck(runs, began))
    began.wait(5)
    runs.pool.interrupt(run)
    assert await runs.result(run) == "struck"
    gate.set()
    assert await runs.result(other) is True


async def test_an_interrupt_after_the_end_strikes_nobody(make_pool):
    """The thread has gone on to the next run, which must not be hit."""
    runs = make_pool(1)

    def limited(run: Run) -> str:
        runs.pool.enter(run)
        runs.pool.leave(run)
        return "done"

    first = runs.submit(limited)
    assert await runs.result(first) == "done"
    began, gate = threading.Event(), threading.Event()
    second = runs.submit(lambda _: began.set() or gate.wait(5))
    began.wait(5)
    runs.pool.interrupt(first)
    gate.set()
    assert await runs.result(second) is True


async def test_an_interrupt_before_the_users_code_strikes_nobody(make_pool):
    """Only user code is struck, never what the pool does around it."""
    runs = make_pool(1)
    began, gate = threading.Event(), threading.Event()

    def early(_: Run) -> bool:
        began.set()
        return gate.wait(5)

    run = runs.submit(early)
    began.wait(5)
    runs.pool.interrupt(run)
    gate.set()
    assert await runs.result(run) is True


async def test_an_interrupt_never_leaks_into_the_next_run(make_pool, switch_often):
    """However close it comes to the end of its run, it strikes there or not at all, and the thread stays usable."""
    runs = make_pool(1)
    dice = random.Random(7)  # noqa: S311 - the same dice each time
    began: list[float] = []
    struck = 0
    longest = 0.0003

    def spin(seconds: float) -> None:
        while not began or time.perf_counter() < began[-1] + seconds:
            pass

    def limited(run: Run, seconds: float) -> str:
        runs.pool.enter(run)
        try:
            began.append(time.perf_counter())
            spin(seconds)
        finally:
            runs.pool.leave(run)
        return "done"

    def unlimited(_: Run) -> str:
        for _ in range(100):
            pass
        return "untouched"

    for _ in range(ROUNDS):
        began.clear()
        run = runs.submit(partial(_guarded, limited, dice.uniform(0, longest)))
        after = runs.submit(unlimited)
        spin(dice.uniform(0, longest))
        runs.pool.interrupt(run)
        outcome = await runs.result(run)
        assert outcome in {"done", "struck"} or isinstance(outcome, TaskTimeout)
        struck += outcome != "done"
        longest *= 1.05 if outcome == "done" else 0.85  # so that the race is close on a busy machine too
        assert await runs.result(after) == "untouched"
    assert len(runs.pool._threads) == 1
    assert 0 < struck < ROUNDS, "the race was not run"


def _guarded(function: Callable[[Run, float], object], seconds: float, run: Run) -> object:
    """Catch the time limit as the executor does."""
    try:
        return function(run, seconds)
    except TaskTimeout:
        return "struck"


async def test_a_pool_can_be_closed_with_a_stuck_thread():
    """It is a daemon: it ends with the process, and reports to nobody."""
    runs = Runs(1)
    began, gate = threading.Event(), threading.Event()
    runs.submit(lambda _: began.set() or gate.wait(10))
    began.wait(5)
    runs.pool.close()
    (thread,) = runs.pool._threads
    assert thread.is_alive()
    assert thread.daemon
    gate.set()
    thread.join(timeout=5)
    assert not thread.is_alive()


def test_a_thread_that_outlives_its_loop_ends_quietly():
    """At the end of the grace time the loop is closed, and the outcome is nobody's any more."""
    gate, began = threading.Event(), threading.Event()

    async def main() -> Runs:
        runs = Runs(1)
        runs.submit(lambda _: began.set() or gate.wait(10))
        began.wait(5)
        return runs

    runs = asyncio.run(main())
    gate.set()
    (thread,) = runs.pool._threads
    thread.join(timeout=5)
    assert not thread.is_alive()
    assert not runs.ended or list(runs.ended.values()) == [True]
