"""What a delivery leads to in a worker, and how many run at a time; everything but the server is real."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import threading
import time
from dataclasses import replace

import pytest

from streamq import Context, StreamQ, current
from streamq.config import WorkerSettings
from streamq.lifecycle import Abandoned, Failed, Succeeded, Unroutable
from streamq.message import Delivery, Message
from streamq.worker.executor import Executor
from streamq.worker.holdings import Holdings, Run
from streamq.worker.lanes import Pace
from streamq.worker.processes import PoolSettings, ProcessPool

# The exception of a time limit, raised in a thread at any bytecode, may strike in the tracer of the coverage, whose
# lock then stays taken for ever.
pytestmark = pytest.mark.no_cover

VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


class Bench:
    """An executor, and what it settles."""

    def __init__(self, app: StreamQ, *, concurrency: int = 100, threads: int = 2, max_result: int = 1000) -> None:
        self.holdings = Holdings()
        self.outcomes: dict[str, object] = {}
        self.executor = Executor(
            app.tasks,
            "state",
            self.holdings,
            self._settle,
            processes=ProcessPool(PoolSettings({})),
            settings=replace(app.settings, max_result=max_result),
            worker=WorkerSettings(concurrency=concurrency, threads=threads),
        )
        self._count = 0

    def _settle(self, run: Run, outcome: object) -> None:
        assert run.delivery.message.id not in self.outcomes
        self.outcomes[run.delivery.message.id] = outcome
        self.holdings.drop(run)

    def accept(self, task: str, *args: object, count: int = 1) -> list[str]:
        """Deliver calls of a task; return their ids."""
        deliveries = []
        for _ in range(count):
            self._count += 1
            message = Message(str(self._count), f"{__name__}.{task}", "q", json.dumps(args).encode())
            deliveries.append(Delivery(message, "s", b"1-%d" % self._count, 0, 1_700_000_000_000))
        self.executor.begin(self.executor.hold(deliveries))
        return [delivery.message.id for delivery in deliveries]

    def run(self, task_id: str) -> Run:
        return next(run for run in self.holdings.all() if run.delivery.message.id == task_id)

    async def cut(self, *task_ids: str) -> None:
        """Cut runs short once they have begun."""
        await asyncio.sleep(0)
        for task_id in task_ids:
            self.executor.cancel(self.run(task_id))

    async def settled(self) -> dict[str, object]:
        """Wait until nothing is held."""
        async with asyncio.timeout(10):
            while len(self.holdings):
                await self.holdings.progress()
        return self.outcomes

    async def outcome(self, task: str, *args: object) -> object:
        (task_id,) = self.accept(task, *args)
        return (await self.settled())[task_id]


@pytest.fixture
def make_bench(app):
    """Make executors, whose threads end with the test."""
    made: list[Bench] = []

    def make(**options: int) -> Bench:
        made.append(Bench(app, **options))
        return made[-1]

    yield make
    for bench in made:
        bench.executor.close()


@pytest.fixture(autouse=True)
def tasks(app):  # noqa: C901 - many small functions
    """Define tasks of all kinds."""

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    @app.task
    def square(x: int) -> int:
        return x * x

    @app.task(bind=True)
    async def bound(context: Context, x: int) -> bool:
        return context == current() and context.state == "state" and x == 1

    @app.task(bind=True)
    def bound_sync(context: Context) -> bool:
        return context == current() and context.deliveries == 1

    @app.task
    async def fail() -> None:
        raise ValueError("no tea")

    @app.task
    def leave() -> None:
        raise SystemExit(3)

    @app.task
    async def cancel_itself() -> None:
        asyncio.current_task().cancel()
        await asyncio.get_running_loop().create_future()

    @app.task(raises=(KeyError,))
    async def expected() -> None:
        raise KeyError("tea")

    @app.task
    async def unencodable() -> object:
        return object()

    @app.task
    async def large(size: int) -> str:
        return "x" * size

    @app.task
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    @app.task(timeout=0.01)
    async def wait_limited() -> None:
        await asyncio.get_running_loop().create_future()

    @app.task
    async def time_out() -> None:
        raise TimeoutError("my own")

    @app.task(timeout=0.01)
    def spin() -> None:
        while True:
            pass

    @app.task(timeout=3600)
    def quick() -> None:
        pass

    @app.task(timeout=0.000001)
    def spin_briefly() -> None:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            pass

    @app.task
    async def keep(value: int) -> int:
        before = VARIABLE.get()
        VARIABLE.set(value)
        return before


@pytest.mark.parametrize(
    ("task", "args", "result"),
    [
        ("add", (2, 3), b"5"),
        ("square", (7,), b"49"),
        ("bound", (1,), b"true"),
        ("bound_sync", (), b"true"),
        ("large", (998,), b'"%b"' % (b"x" * 998)),
    ],
)
async def test_a_run_that_returns_has_succeeded(make_bench, task, args, result):
    assert await make_bench().outcome(task, *args) == Succeeded(result)


@pytest.mark.parametrize(
    ("task", "args", "kind", "message"),
    [
        ("fail", (), "ValueError", "no tea"),
        ("leave", (), "SystemExit", "3"),
        ("cancel_itself", (), "asyncio.exceptions.CancelledError", ""),
        ("expected", (), "KeyError", "'tea'"),
        ("add", ("a", 1), "streamq.errors.ArgumentError", "argument 'x'"),
        ("square", (), "streamq.errors.ArgumentError", "argument 'x'"),
        ("unencodable", (), "streamq.errors.ResultEncodeError", "object"),
        ("large", (999,), "streamq.errors.ResultTooLarge", "1001 bytes, over the limit of 1000"),
        ("wait_limited", (), "streamq.errors.TaskTimeout", "0.01 s"),
        ("spin", (), "streamq.errors.TaskTimeout", "0.01 s"),
        ("time_out", (), "TimeoutError", "my own"),
    ],
)
async def test_a_run_that_raises_has_failed(make_bench, caplog, task, args, kind, message):
    """Whatever it raises is stored, and logged once; the worker goes on."""
    bench = make_bench()
    outcome = await bench.outcome(task, *args)
    assert isinstance(outcome, Failed)
    error = json.loads(outcome.error)
    assert error["type"] == kind
    assert message in error["message"]
    (line,) = [record for record in caplog.records if record.levelno >= logging.ERROR] or [None]
    assert (line is None) == (task == "expected"), "what is in raises= is no error of the worker's"
    assert await bench.outcome("add", 1, 1) == Succeeded(b"2")


async def test_a_task_that_is_not_known_cannot_be_routed(make_bench):
    outcome = await make_bench().outcome("nowhere")
    assert isinstance(outcome, Unroutable)
    assert "test_executor.nowhere" in json.loads(outcome.error)["message"]


async def test_a_traceback_begins_with_the_users_code(make_bench):
    """Frames of the worker's own tell a user nothing."""
    outcome = await make_bench().outcome("fail")
    text = json.loads(outcome.error)["traceback"]
    assert 'raise ValueError("no tea")' in text
    assert "worker/executor.py" not in text


async def test_no_more_run_than_may(make_bench):
    """The rest waits in order, and can be taken back while it does."""
    bench = make_bench(concurrency=3)
    ids = bench.accept("wait", count=5)
    assert bench.executor.busy == 3
    waiting = bench.executor.take_waiting()
    assert [run.delivery.message.id for run in waiting] == ids[3:]
    for run in waiting:
        bench.holdings.drop(run)
    await bench.cut(*ids[:3])
    assert await bench.settled() == dict.fromkeys(ids[:3], Abandoned())
    assert bench.executor.busy == 0


async def test_room_is_what_can_start_at_once(make_bench):
    """With both kinds of tasks at hand it is not known which will come, so there has to be room for either."""
    bench = make_bench(concurrency=10, threads=2)
    assert bench.executor.room() == 2
    ids = bench.accept("wait", count=10)
    assert bench.executor.room() <= 0
    await bench.cut(*ids)
    await bench.settled()
    bench.executor._pace = Pace()
    assert bench.executor.room() == 2


async def test_a_run_that_is_cut_short_has_no_outcome(make_bench):
    """It was not the task's fault: it is abandoned, and runs again elsewhere."""
    bench = make_bench()
    (task_id,) = bench.accept("wait")
    await bench.cut(task_id)
    assert await bench.settled() == {task_id: Abandoned()}


async def test_a_run_that_is_cut_short_before_its_first_step_has_no_outcome(make_bench):
    """Its place is free again."""
    bench = make_bench(concurrency=1)
    (task_id,) = bench.accept("wait")
    run = bench.run(task_id)
    handle = run.handle
    bench.executor.cancel(run)
    await asyncio.wait([handle], timeout=5)
    assert bench.outcomes == {task_id: Abandoned()}
    assert bench.executor.busy == 0


async def test_a_delivery_that_was_lost_while_it_waited_is_not_run(make_bench):
    """It belongs to another worker by now: running it would be work for nothing, and twice the side effects."""
    bench = make_bench(concurrency=1)
    first, second = bench.accept("wait", count=2)
    lost = bench.run(second)
    lost.lost = True
    bench.executor.cancel(lost)
    await bench.cut(first)
    while first not in bench.outcomes:
        await bench.holdings.progress()
    started = lost.handle is not None
    await bench.cut(*(run.delivery.message.id for run in bench.holdings.all()))
    await bench.settled()
    assert not started


async def test_nothing_starts_while_draining(make_bench):
    """What comes in late can be given back."""
    bench = make_bench()
    bench.executor.drain()
    bench.accept("add", 1, 2)
    bench.accept("square", 2)
    assert bench.executor.busy == 0
    assert len(bench.executor.take_waiting()) == 2


async def test_runs_do_not_share_a_context(make_bench):
    """What one task sets in a context variable the next does not see, whoever starts it."""
    bench = make_bench(concurrency=1)
    VARIABLE.set(5)
    for value in (1, 2, 3):
        bench.accept("keep", value)
    assert set((await bench.settled()).values()) == {Succeeded(b"0")}


async def test_many_runs_of_both_kinds(make_bench):
    """Each has its own outcome, and all threads are used."""
    bench = make_bench(concurrency=10, threads=4)
    for n in range(100):
        bench.accept("add", n, n)
        bench.accept("square", n)
    outcomes = await bench.settled()
    expected = [b"%d" % value for n in range(100) for value in (2 * n, n * n)]
    assert [outcomes[str(n + 1)] for n in range(200)] == [Succeeded(value) for value in expected]
    assert bench.executor.busy == 0
    assert sum(t.name.startswith("streamq-task") for t in threading.enumerate()) <= 4


async def test_a_time_limit_holds_however_short_it_is(make_bench):
    """One that strikes before the user's code has begun must not be forgotten: the run could go on for ever."""
    bench = make_bench()
    bench.accept("spin_briefly", count=10)
    outcomes = await bench.settled()
    assert [type(outcome) for outcome in outcomes.values()] == [Failed] * 10


async def test_a_time_limit_is_forgotten_with_its_run(make_bench):
    """Else each run, with its arguments, stays in memory for as long as its limit is."""
    bench = make_bench()
    bench.accept("quick", count=20)
    await bench.settled()
    await asyncio.sleep(0)
    timers = [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]
    assert not [timer for timer in timers if timer._args and isinstance(timer._args[0], Run)]
