"""What a delivery leads to in a worker, and how many run at a time; everything but the server is real."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from streamq import Context, StreamQ, current
from streamq.config import WorkerSettings
from streamq.errors import TaskTimeout
from streamq.lifecycle import Abandoned, Died, Failed, Succeeded, Unroutable
from streamq.message import Delivery, Message
from streamq.worker import trial
from streamq.worker.executor import Executor
from streamq.worker.holdings import Holdings, Run
from streamq.worker.lanes import Pace
from streamq.worker.processes import PoolSettings, ProcessPool

# The exception of a time limit, raised in a thread at any bytecode, may strike in the tracer of the coverage, whose
# lock then stays taken for ever.
pytestmark = pytest.mark.no_cover

RELEASE = threading.Event()
VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


class Bench:
    """An executor, and what it settles."""

    def __init__(
        self,
        app: StreamQ,
        *,
        max_result: int = 1000,
        max_payload: int = 10_000,
        max_deaths: int = 3,
        processes: ProcessPool | None = None,
        **worker: int,
    ) -> None:
        self.holdings = Holdings()
        self.outcomes: dict[str, object] = {}
        self.said: list[dict[str, object]] = []
        self.executor = Executor(
            app.tasks,
            "state",
            self.holdings,
            self._settle,
            processes=processes or ProcessPool(PoolSettings({})),
            settings=replace(app.settings, max_result=max_result, max_payload=max_payload, max_deaths=max_deaths),
            worker=WorkerSettings(**{"threads": 2, "pool_processes": 2, **worker}),
            say=lambda **message: self.said.append(message),
        )
        self._count = 0

    def _settle(self, run: Run, outcome: object) -> None:
        assert run.delivery.message.id not in self.outcomes
        self.outcomes[run.delivery.message.id] = outcome
        self.holdings.drop(run)

    def delivery(self, task: str, *args: object) -> Delivery:
        self._count += 1
        message = Message(str(self._count), f"{__name__}.{task}", "q", json.dumps(args).encode())
        return Delivery(message, "s", b"1-%d" % self._count, 0, 1_700_000_000_000)

    def accept(self, task: str, *args: object, count: int = 1) -> list[str]:
        """Deliver calls of a task; return their ids."""
        deliveries = [self.delivery(task, *args) for _ in range(count)]
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


async def eventually(what: Callable[[], object]) -> None:
    """Poll `what` until it is true, while the loop goes on."""
    async with asyncio.timeout(5):
        while not what():  # noqa: ASYNC110 - what is looked at makes no sound
            await asyncio.sleep(0)


@pytest.fixture
def make_bench(app):
    """Make executors, whose threads end with the test."""
    made: list[Bench] = []

    def make(**options: object) -> Bench:
        made.append(Bench(app, **options))
        return made[-1]

    yield make
    for bench in made:
        bench.executor.close()


@pytest.fixture(autouse=True)
def _release():
    """End what goes on after its time."""
    RELEASE.clear()
    yield
    RELEASE.set()


@pytest.fixture(autouse=True)
def limited_tasks(app):  # noqa: C901 - many small functions
    """Define tasks that take longer than they may."""

    @app.task(hard_timeout=0.05)
    async def ignore_limit() -> None:
        while not RELEASE.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    @app.task(hard_timeout=0.05)
    def ignore_limit_in_thread() -> None:
        while not RELEASE.is_set():
            with contextlib.suppress(TaskTimeout):
                RELEASE.wait(0.01)

    @app.task(timeout=0.01)
    def handle_limit_for_ever() -> None:
        while not RELEASE.is_set():
            with contextlib.suppress(TaskTimeout):
                RELEASE.wait(0.01)

    @app.task(hard_timeout=0.01)
    async def wait_hard() -> None:
        await asyncio.get_running_loop().create_future()

    @app.task(hard_timeout=0.01)
    def spin_hard() -> None:
        while True:
            pass

    @app.task(timeout=0.01, hard_timeout=0.03)
    async def handle_limit() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)
        await asyncio.sleep(30)

    @app.task(hard_timeout=0.01)
    async def end_at_limit() -> None:
        await asyncio.sleep(0.01)

    @app.task(hard_timeout=0.01)
    def end_at_limit_in_thread() -> None:
        time.sleep(0.0098)

    @app.task(bind=True)
    async def until_lost(context: Context) -> bool:
        while not context.lease_lost:  # noqa: ASYNC110 - as users do
            await asyncio.sleep(0)
        return context.lease_lost

    @app.task(bind=True)
    def until_lost_in_thread(context: Context) -> bool:
        while not context.lease_lost:
            time.sleep(0.001)
        return context.lease_lost

    @app.task(pool="process")
    def in_process() -> None:
        pass


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


# ---- hard limits


async def test_a_hard_limit_on_the_loop_fails_at_once_what_goes_on(make_bench):
    """The outcome comes at the limit; the place is free when the run has really ended, and nothing is settled twice."""
    bench = make_bench(concurrency=1)
    (task_id,) = bench.accept("ignore_limit")
    outcome = (await bench.settled())[task_id]
    assert isinstance(outcome, Failed)
    assert "ran longer than its hard_timeout of 0.05 s" in json.loads(outcome.error)["message"]
    assert bench.executor.busy == 1
    assert bench.executor.stuck == 0
    (waiting,) = bench.accept("add", 1, 1)
    assert waiting not in bench.outcomes, "there is no place for it yet"
    RELEASE.set()
    assert (await bench.settled())[waiting] == Succeeded(b"2")
    assert bench.executor.busy == 0


async def test_a_hard_limit_in_a_thread_fails_at_once_what_goes_on(make_bench):
    bench = make_bench(threads=1)
    (task_id,) = bench.accept("ignore_limit_in_thread")
    outcome = (await bench.settled())[task_id]
    assert isinstance(outcome, Failed)
    assert "ran longer than its hard_timeout of 0.05 s" in json.loads(outcome.error)["message"]
    assert bench.executor.busy == 1
    (waiting,) = bench.accept("square", 2)
    assert waiting not in bench.outcomes
    RELEASE.set()
    assert (await bench.settled())[waiting] == Succeeded(b"4")
    assert bench.executor.busy == 0


async def test_a_hard_limit_ends_what_can_be_ended(make_bench, caplog):
    """Its place is free soon after, and the log says once what came of it."""
    bench = make_bench(concurrency=1, threads=1)
    ids = bench.accept("wait_hard") + bench.accept("spin_hard")
    outcomes = await bench.settled()
    assert [json.loads(outcomes[one].error)["type"] for one in ids] == ["streamq.errors.TaskTimeout"] * 2
    await eventually(lambda: not bench.executor.busy)
    assert len(caplog.records) == 2
    bench.accept("add", 1, 1)
    bench.accept("square", 1)
    await bench.settled()
    assert not bench.executor._limits._overdue
    assert not bench.executor._limits._timers


async def test_a_limit_that_is_handled_is_followed_by_the_hard_one(make_bench):
    bench = make_bench(concurrency=1)
    outcome = await bench.outcome("handle_limit")
    assert "hard_timeout" in json.loads(outcome.error)["message"]


async def test_hard_limits_and_ends_that_meet(make_bench):
    """Whichever is first, there is one outcome each (the bench sees to it), and all places are free in the end."""
    bench = make_bench(concurrency=5, threads=5)
    ids = [one for _ in range(10) for one in bench.accept("end_at_limit") + bench.accept("end_at_limit_in_thread")]
    outcomes = await bench.settled()
    assert set(outcomes) == set(ids)
    await eventually(lambda: not bench.executor.busy)
    assert not bench.executor._limits._overdue
    assert not bench.executor._limits._timers


async def test_what_does_not_end_after_its_time_is_stuck(make_bench, monkeypatch):
    """With or without an outcome: it is told, so that its process can be replaced."""
    monkeypatch.setattr("streamq.worker.limits._STUCK_SECONDS", 0)
    bench = make_bench()
    bench.accept("ignore_limit_in_thread")
    await bench.settled()
    assert bench.executor.stuck == 1
    (soft,) = bench.accept("handle_limit_for_ever")
    await eventually(lambda: bench.executor.stuck == 2)
    assert soft not in bench.outcomes
    RELEASE.set()
    await bench.settled()
    await eventually(lambda: not bench.executor.stuck)


# ---- leases


async def test_a_run_can_see_that_its_lease_is_lost(make_bench):
    """On the loop and in a thread, if it is left to go on."""
    bench = make_bench()
    ids = bench.accept("until_lost") + bench.accept("until_lost_in_thread")
    await asyncio.sleep(0)
    for task_id in ids:
        bench.run(task_id).lost = True
    assert await bench.settled() == dict.fromkeys(ids, Succeeded(b"true"))


async def test_a_lost_run_that_is_cancelled_is_abandoned(make_bench):
    """One in a thread goes on, and sees it; its outcome will be refused."""
    bench = make_bench()
    first, second = bench.accept("wait") + bench.accept("until_lost_in_thread")
    await asyncio.sleep(0)
    for run in bench.holdings.all():
        run.lost = True
        bench.executor.cancel(run)
    assert await bench.settled() == {first: Abandoned(), second: Succeeded(b"true")}


# ---- what is not even begun


async def test_oversize_arguments_fail_without_being_read(make_bench):
    """Somebody has written the message by hand, or the limit was lowered."""
    bench = make_bench(max_payload=100)
    outcome = await bench.outcome("keep", "x" * 100)
    assert isinstance(outcome, Failed)
    assert json.loads(outcome.error)["type"] == "streamq.errors.PayloadTooLarge"
    assert bench.executor.busy == 0


async def test_a_message_of_a_newer_version_cannot_be_routed(make_bench):
    """Its parts may mean something else, even if the task is known."""
    bench = make_bench()
    (run,) = bench.executor.hold([bench.delivery("add", 1, 1)._replace(version=2)])
    bench.executor.begin([run])
    outcome = bench.outcomes[run.delivery.message.id]
    assert isinstance(outcome, Unroutable)
    assert outcome.reason == "newer message version"
    assert "version 2, this worker knows 1" in json.loads(outcome.error)["message"]


# ---- processes and suspects


class Processes:
    """Stands for the pool of processes: notes who runs there, until it is told how they end."""

    def __init__(self) -> None:
        self.runs: dict[str, asyncio.Future[object]] = {}

    async def run(self, run: Run) -> object:
        return await self.runs.setdefault(run.delivery.message.id, asyncio.get_running_loop().create_future())

    async def begun(self, count: int) -> list[str]:
        await eventually(lambda: len(self.runs) >= count)
        return list(self.runs)


def with_deaths(bench: Bench, task: str, deaths: int, *args: object) -> str:
    delivery = bench.delivery(task, *args)._replace(deaths=deaths)
    bench.executor.begin(bench.executor.hold([delivery]))
    return delivery.message.id


@pytest.mark.parametrize(
    ("max_deaths", "deaths", "alone"),
    [(3, 0, False), (3, 1, False), (3, 2, True), (3, 5, True), (2, 0, False), (2, 1, True), (1, 0, False)],
)
async def test_before_the_last_death_a_task_runs_alone(make_bench, max_deaths, deaths, alone):
    """In a process of its own, so that the last death is its own; whatever kind of task it is."""
    processes = Processes()
    bench = make_bench(processes=processes, max_deaths=max_deaths)
    ids = [with_deaths(bench, "add", deaths, 1, 2), with_deaths(bench, "square", deaths, 3)]
    if alone:
        assert await processes.begun(2) == ids
        for future in processes.runs.values():
            future.set_result(Succeeded(b"0"))
    outcomes = await bench.settled()
    assert list(outcomes.values()) == ([Succeeded(b"0")] * 2 if alone else [Succeeded(b"3"), Succeeded(b"9")])
    assert bench.executor.busy == 0


def told(bench: Bench, what: str) -> list[str]:
    """Name the deliveries of which the supervisor was told this."""
    return [message["trial"][2] for message in bench.said if message["trial"][0] == what]


async def test_what_comes_back_after_a_death_begins_a_few_at_a_time(make_bench):
    """Or the next death would hit all of it; the supervisor knows what has begun. What is new does not wait."""
    bench = make_bench()
    ids = [with_deaths(bench, "wait", 1) for _ in range(9)]
    assert bench.executor.busy == len(told(bench, "begun")) == 6, "a sixteenth of 100 and 2"
    assert told(bench, "begun") == [f"1-{task_id}" for task_id in ids[:6]]
    (new,) = bench.accept("wait")
    assert bench.executor.busy == 7
    await bench.cut(ids[0], new)
    await eventually(lambda: told(bench, "begun")[6:] == [f"1-{ids[6]}"])
    assert told(bench, "over") == [f"1-{ids[0]}"]
    assert [run.delivery.message.id for run in bench.executor.take_waiting()] == ids[7:]
    for task_id in ids[7:]:
        bench.holdings.drop(bench.run(task_id))
    await bench.cut(*ids[1:7])
    await bench.settled()
    assert bench.executor.busy == 0
    assert len(told(bench, "over")) == 7


async def test_what_goes_on_for_a_while_after_a_death_lets_others_begin(make_bench, monkeypatch):
    """As many long tasks as before run again after some seconds; no more than there are places."""
    monkeypatch.setattr(trial, "_YOUNG_SECONDS", 0.01)
    bench = make_bench(concurrency=10)
    ids = [with_deaths(bench, "wait", 1) for _ in range(12)]
    assert bench.executor.busy == 2
    await eventually(lambda: len(told(bench, "grown")) == 10)
    assert bench.executor.busy == 10
    assert bench.executor.room() <= 0
    await bench.cut(*ids[:2])
    await eventually(lambda: bench.executor.busy == 10 and len(told(bench, "begun")) == 12)
    await bench.cut(*ids[2:])
    await bench.settled()
    assert set(told(bench, "over")) == {f"1-{task_id}" for task_id in ids}


async def test_a_full_kind_does_not_hold_up_another_after_a_death(make_bench):
    """Nor does what has been lost meanwhile."""
    bench = make_bench(threads=1)
    (blocking,) = bench.accept("until_lost_in_thread")
    in_thread = [with_deaths(bench, "square", 1, 2) for _ in range(6)]
    lost = bench.run(in_thread[0])
    lost.lost = True
    bench.executor.cancel(lost)
    on_loop = with_deaths(bench, "add", 1, 1, 1)
    await eventually(lambda: on_loop in bench.outcomes)
    assert bench.executor.busy == 1
    bench.run(blocking).lost = True
    assert await bench.settled() == {
        blocking: Succeeded(b"true"),
        on_loop: Succeeded(b"2"),
        **dict.fromkeys(in_thread[1:], Succeeded(b"4")),
    }


async def test_suspects_have_places_of_their_own(make_bench):
    """They take none from others and there are only some at a time; a full house of them does not stop the fetching."""
    processes = Processes()
    bench = make_bench(processes=processes, concurrency=2)
    ids = [with_deaths(bench, "add", 2, 1, 1) for _ in range(10)]
    assert await processes.begun(8) == ids[:8]
    assert bench.executor.room() == 2
    (other,) = bench.accept("add", 1, 1)
    await eventually(lambda: other in bench.outcomes)
    processes.runs[ids[0]].set_result(Died("signal SIGKILL"))
    await processes.begun(9)
    assert bench.outcomes[ids[0]] == Died("signal SIGKILL")
    for future in processes.runs.values():
        if not future.done():
            future.set_result(Succeeded(b"0"))
    await processes.begun(10)
    processes.runs[ids[9]].set_result(Succeeded(b"0"))
    await bench.settled()
    assert bench.executor.busy == 0


async def test_no_more_processes_than_there_may_be(make_bench):
    """What waits for one can be taken back, and what runs in one cut short, also before its first step."""
    processes = Processes()
    bench = make_bench(processes=processes, pool_processes=2)
    ids = bench.accept("in_process", count=4)
    assert await processes.begun(2) == ids[:2]
    assert [run.delivery.message.id for run in bench.executor.take_waiting()] == ids[2:]
    for task_id in ids[2:]:
        bench.holdings.drop(bench.run(task_id))
    await bench.cut(*ids[:2])
    assert await bench.settled() == dict.fromkeys(ids[:2], Abandoned())
    (late,) = bench.accept("in_process")
    bench.executor.cancel(bench.run(late))
    assert (await bench.settled())[late] == Abandoned()
    assert list(processes.runs) == ids[:2]
    assert bench.executor.busy == 0
