"""Each call to Redis in the life of a task fails, before or after it was carried out, is slow, or loses its caller.

Whatever happens: the task runs, its outcome is committed once, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from streamq import AsyncResult, State, by, cron, results, streams
from streamq._redis.keys import GROUP, Keys
from streamq.broker import blame, calls, chunks, moving, rescue
from streamq.config import Settings
from streamq.errors import BrokerError
from streamq.message import Delivery, Message, read_entry
from streamq.schedule.plan import message_id
from streamq.sending import Steering
from streamq.worker import child, promoter, reaper, scheduler
from streamq.worker.child import Job
from streamq.worker.stop import Stop
from tests.proxy import SCRIPTS, Fault, Proxy, Strike
from tests.serving import job_of, serving, until

LEASE = 0.4  # seconds
RENEWALS = 4  # in a lease
SLOW = 0.06  # seconds that a reply is held back: longer than what is cancelled meanwhile needs to end
MAX_DEATHS = 100  # so many that no fault leads to them
PROBE = "probe"
STOP = "stop"
CANCEL = "cancel"
QUEUE = Keys("sq").queue("default")
STREAMS = (QUEUE.returned, QUEUE.ready)  # of tasks with the priority that most have
RULE = cron("0 0 1 1 *")
OLD = Keys("sq").queue("old")


class Stage:
    """One life of a task: its parts, and what is left of it at the end.

    Args:
        server_url: the server's own URL.
        proxy: the way to it on which the fault happens.
        module: the tasks, whose app goes one of these ways.
        connection: straight to the server.
        patch: sets an attribute until the end of the test.
    """

    def __init__(self, server_url: str, proxy: Proxy, module: Any, connection: Any, patch: Any) -> None:
        self.patch = patch
        self.server_url = server_url
        self.proxy = proxy
        self.module = module
        self.run = connection.run
        self.redis = connection.client.execute_command
        self.strike: Strike | None = None
        self.stops = False
        self.cancels = False
        self.dead = 0
        self.ends_as = State.SUCCEEDED
        self.idle: set[str] = set()  # consumers that may be left, with nothing pending
        self._ids: list[str] = []
        self._probe = connection.client.pubsub()
        self._probe.subscribe(f"sq:done:{PROBE}")

    def plan(self, call: str, fault: str) -> None:
        """Have a fault happen to ``NAME`` or to ``NAME#NTH``."""
        name, _, nth = call.partition("#")
        self.stops, self.cancels = fault == STOP, fault == CANCEL
        kind = Fault.DELAY if fault in (STOP, CANCEL) else Fault(fault)
        self.idle.add("w-1")  # if it cannot hand back or retire, nobody does so for it
        self.strike = self.proxy.strike(name, kind, nth=int(nth or 1), seconds=SLOW)

    @property
    def struck(self) -> bool:
        return self.strike is not None and self.strike.struck

    # ---- parts

    async def enqueue(self, task: str = "once", **options: Any) -> str:
        """Enqueue a task straight, and count its commits."""
        result = await asyncio.to_thread(getattr(self.module, task).using(**options).delay)
        self.expect(result.id)
        return result.id

    def expect(self, task_id: str) -> None:
        """Have the end of a task, which is committed whenever it is, noted by a waiter of our own."""
        self.run(calls.watch(QUEUE, task_id, PROBE))
        self._ids.append(task_id)

    def job(self, url: str, name: str, *, knows_tasks: bool = True, **options: Any) -> Job:
        tasks = self.module.app.tasks if knows_tasks else {}
        settings = Settings(url, max_deaths=MAX_DEATHS)
        return job_of(settings, "tests.apps.lives:app", tasks, name, **{"lease": LEASE, **options})

    @contextlib.asynccontextmanager
    async def worker(self, **options: Any) -> AsyncIterator[None]:
        """Run a worker behind the proxy; one that is to stop when the fault happens has a successor."""
        job = self.job(self.proxy.url, "w-1", **options)
        async with asyncio.timeout(10), serving(job) as stop:
            watching = asyncio.create_task(self._stop_at_strike(stop, **options))
            try:
                yield
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def _stop_at_strike(self, stop: Stop, **options: Any) -> None:
        if self.stops:
            await until(lambda: self.struck)
            stop.asked.set()
            async with self.successor(**options):
                await asyncio.Event().wait()

    @contextlib.asynccontextmanager
    async def successor(self, **options: Any) -> AsyncIterator[None]:
        """Run a worker that no fault reaches."""
        async with asyncio.timeout(10), serving(self.job(self.server_url, "w-2", **options)):
            yield

    def state(self, task_id: str) -> State:
        return self.run(calls.look(QUEUE, task_id)).state

    async def ended(self) -> None:
        """Wait until all tasks have ended, and the fault, if one is planned, has happened."""
        await until(lambda: all(self.state(task_id).ended for task_id in self._ids))

    def consumers(self, stream: str) -> set[str]:
        return {one.name for one in self.run(calls.consumers(stream))}

    # ---- the end

    def commits(self) -> list[str]:
        """Name the tasks whose end was told to our waiter, once for each time."""
        self.redis("PUBLISH", f"sq:done:{PROBE}", "that is all")
        told = []
        while not told or told[-1] != "that is all":
            message = self._probe.get_message(ignore_subscribe_messages=True, timeout=5)
            told += [message["data"].decode()] if message else []
        return told[:-1]

    def check(self) -> None:
        """Check that each task ran, was committed once, and that nothing is left."""
        for task_id in self._ids:
            record = self.run(calls.look(QUEUE, task_id))
            assert record.state is self.ends_as
            if self.ends_as is State.SUCCEEDED:
                assert record.body in [b'"run %d"' % (n + 1) for n in range(self.module.runs[task_id])]
        assert sorted(self.commits()) == sorted(self._ids)
        for stream in STREAMS:
            assert self.redis("XLEN", stream) == 0
            assert self.redis("XPENDING", stream, GROUP)[0] == 0
            assert self.consumers(stream) <= self.idle
        assert self.redis("EXISTS", QUEUE.delayed) == 0
        assert self.redis("XLEN", QUEUE.dead) == self.dead
        assert self.redis("SMEMBERS", "sq:queues") == [b"default"]

    def close(self) -> None:
        self._probe.close()


@pytest.fixture
def quick(monkeypatch):
    """Have those look more often who wait for what may have got lost."""
    monkeypatch.setattr(child, "_BLOCK_SECONDS", 0.2)
    monkeypatch.setattr(reaper, "_SWEEP_SECONDS", (0.03, 0.06))
    monkeypatch.setattr(promoter, "_LONGEST_SECONDS", 0.05)
    monkeypatch.setattr(scheduler, "_LONGEST_SECONDS", 0.05)
    for module in (results, streams):
        monkeypatch.setattr(module, "_LOOK_AGAIN_SECONDS", 0.1)
    return monkeypatch.setattr


@pytest.fixture
def proxy(server_url, connection):
    """Give a proxy of the server, which has all scripts: else the first call of each would be two."""
    for script in SCRIPTS.values():
        connection.client.execute_command("SCRIPT", "LOAD", calls.load(script).text)
    with Proxy(server_url) as proxy:
        yield proxy


@pytest.fixture
def working(quick, server_url, proxy, load_app_at, connection):
    """Give a stage where the worker is behind the proxy."""
    stage = Stage(server_url, proxy, load_app_at("tests.apps.lives", server_url), connection, quick)
    yield stage
    stage.close()


@pytest.fixture
def calling(quick, server_url, proxy, load_app_at, connection):
    """Give a stage where the caller is behind the proxy."""
    stage = Stage(server_url, proxy, load_app_at("tests.apps.lives", proxy.url), connection, quick)
    yield stage
    stage.close()


# ---- lives of workers


async def plain(stage: Stage) -> None:
    """A task is fetched, run and committed."""
    await stage.enqueue()
    async with stage.worker():
        await stage.ended()


async def heard(stage: Stage) -> None:
    """The same, while somebody listens to events."""
    events = stage.module.app.broker.sync.client.pubsub()
    events.subscribe("sq:events:listening")
    events.get_message(timeout=5)
    try:
        await plain(stage)
    finally:
        events.close()


async def delayed(stage: Stage) -> None:
    """A task whose time comes is promoted."""
    await stage.enqueue(countdown=0.001)
    async with stage.worker():
        await stage.ended()


async def unknown(stage: Stage) -> None:
    """A worker that does not know the task puts it back; another one runs it."""
    task_id = await stage.enqueue()
    async with stage.worker(knows_tasks=False):
        await until(lambda: stage.state(task_id) is State.DELAYED)
    stage.redis("ZADD", QUEUE.delayed, "XX", 1, task_id)
    async with stage.successor():
        await stage.ended()


async def abandoned(stage: Stage) -> None:
    """A worker has died with its supervisor; its task is reclaimed."""
    await stage.enqueue()
    take_as(stage, "ghost", idle_ms=60_000)
    async with stage.worker():
        await stage.ended()


def take_as(stage: Stage, consumer: str, idle_ms: int) -> None:
    with contextlib.suppress(BrokerError):
        stage.run(calls.create_group(QUEUE.returned))
    fetched = stage.run(calls.fetch(dict.fromkeys(STREAMS, "default"), consumer, 10, 0))
    for one in fetched:
        stage.redis("XCLAIM", one.stream, GROUP, consumer, 0, one.entry, "IDLE", idle_ms, "JUSTID")
    stage.idle.add(consumer)


async def malformed(stage: Stage) -> None:
    """An entry that is no message is moved to the dead letters, and the task behind it runs."""
    stage.run(calls.create_group(QUEUE.ready))
    stage.redis("XADD", QUEUE.ready, "*", "garbage", "in")
    stage.dead = 1
    await stage.enqueue()
    async with stage.worker():
        await stage.ended()
        await until(lambda: stage.redis("XLEN", QUEUE.dead))


async def retried(stage: Stage) -> None:
    """A task fails, and is put back for another attempt."""
    task_id = await stage.enqueue("second_time")
    async with stage.worker():
        await stage.ended()
    record = stage.run(calls.look(QUEUE, task_id))
    assert record.attempt == 2
    assert b"not yet" in record.failure


async def emitted(stage: Stage) -> None:
    """A task says how far it is, and emits two chunks."""
    task_id = await stage.enqueue("emitting")
    async with stage.worker():
        await stage.ended()
    check_chunks(stage, task_id)


def check_chunks(stage: Stage, task_id: str) -> None:
    """Check that the last run has emitted what it is to, each once."""
    run = stage.module.runs[task_id]
    page = stage.run(chunks.read_chunks(QUEUE, task_id, PROBE, chunks.BEGIN))
    assert [(place.number, value) for place, value in page.chunks] == [(0, b'"%da"' % run), (1, b'"%db"' % run)]


async def deadly(stage: Stage) -> None:
    """A worker has died under a task that is known for that, also in a process of its own: it is a dead letter."""
    too_many = MAX_DEATHS + blame.DEATHS_OF_OTHERS
    task_id = await stage.enqueue()
    add_again(stage, task_id, "deaths", too_many - 1)
    take_as(stage, "ghost", idle_ms=60_000)
    stage.dead = 1
    stage.ends_as = State.DEAD
    async with stage.worker():
        await stage.ended()
    assert stage.run(calls.look(QUEUE, task_id)).deaths == too_many


async def tidied(stage: Stage) -> None:
    """The consumer of a worker that is no more is removed."""
    stage.patch(reaper, "_TIDY_SECONDS", (0, 0))
    stage.patch(reaper, "_FORGOTTEN_LEASES", 0)
    stage.patch(reaper, "_FORGOTTEN_LEAST_SECONDS", 0)
    await stage.enqueue()
    stage.redis("XGROUP", "CREATECONSUMER", QUEUE.ready, GROUP, "ghost")
    async with stage.worker():
        await stage.ended()
        await until(lambda: "ghost" not in stage.consumers(QUEUE.ready))


async def given_up(stage: Stage) -> None:
    """A task that no worker has known for long goes to the dead letters."""
    task_id = await stage.enqueue()
    add_again(stage, task_id, "at", 1)
    stage.dead = 1
    stage.ends_as = State.DEAD
    async with stage.worker(knows_tasks=False):
        await stage.ended()


def add_again(stage: Stage, task_id: str, *more: str | int) -> None:
    """Give the only message that is ready more fields."""
    words = stage.redis("XRANGE", QUEUE.ready, "-", "+")[0][1]
    stage.redis("XTRIM", QUEUE.ready, "MAXLEN", 0)
    entry = stage.redis("XADD", QUEUE.ready, "*", *words, *more)
    stage.redis("HSET", QUEUE.record(task_id), "entry", entry)


async def limited(stage: Stage) -> None:
    """Tasks wait until a rate lets them begin, and until another has ended."""
    for _ in range(3):
        await stage.enqueue("limited")
    async with stage.worker():
        await stage.ended()
    async with stage.successor():
        await until(lambda: not stage.redis("EXISTS", QUEUE.rooms))


async def shared(stage: Stage) -> None:
    """A task waits until those before it, which take turns with it, have been fetched."""
    for _ in range(50):
        await stage.enqueue(fairness_key="a")
    waiting = await stage.enqueue(fairness_key="b")
    assert stage.state(waiting) is State.HELD
    async with stage.worker():
        await stage.ended()
    async with stage.successor():
        await until(lambda: not stage.redis("EXISTS", QUEUE.rooms))


async def long(stage: Stage) -> None:
    """A task runs for longer than its lease, which is renewed."""
    await stage.enqueue("held")
    async with stage.worker():
        await until(lambda: stage.proxy.names.count("renew") > RENEWALS)
        stage.module.go_on()
        await stage.ended()


async def stopped(stage: Stage) -> None:
    """A worker is stopped while one task waits in its memory and another outlives the grace time."""
    await stage.enqueue("held_in_thread")
    await stage.enqueue("held_in_thread")
    async with stage.worker(threads=1, concurrency=2, grace=0.05):
        await until(lambda: stage.module.runs and stage.redis("XPENDING", QUEUE.ready, GROUP)[0] == 2)
    stage.module.go_on_in_thread.set()
    async with stage.successor():
        await stage.ended()


async def cancelled(stage: Stage) -> None:
    """A task that runs is cancelled, of which the worker is not told; it finds out when it renews the lease."""
    task_id = await stage.enqueue("held")
    async with stage.worker():
        await until(lambda: stage.module.runs)
        stage.patch(stage.module.app.broker, "keys", Unheard("sq"))
        await asyncio.to_thread(stage.module.app.result(task_id, queue="default").cancel)
        stage.ends_as = State.CANCELLED
        await until(lambda: "look" in stage.proxy.names)


class Unheard(Keys):
    """Keys of queues to whose signals nobody listens."""

    def _queue(self, name: str) -> Any:
        queue = super()._queue(name)
        queue.signals = "nobody"
        return queue


async def rescued(stage: Stage) -> None:
    """A child has died; its supervisor hands back what it held."""
    await stage.enqueue()
    take_as(stage, "ghost", idle_ms=0)
    with contextlib.suppress(BrokerError):  # if it fails, the lease brings the task back
        await asyncio.to_thread(rescue.rescue, Settings(stage.proxy.url), ["default"], "ghost", "signal SIGKILL")
    async with stage.successor():
        await stage.ended()


async def scheduled(stage: Stage) -> None:
    """The code of a task declares a schedule, which comes due, and is fired."""
    task = stage.module.held
    stage.patch(task, "options", replace(task.options, schedule=(RULE,)))
    upcoming = QUEUE.timetable[0]
    new_year = round(datetime(datetime.now(UTC).year, 1, 1, tzinfo=UTC).timestamp() * 1000)
    task_id = message_id(task.name, new_year)
    async with stage.worker():
        await until(lambda: stage.redis("EXISTS", upcoming))
        stage.redis("ZADD", upcoming, new_year, task.name)
        await until(lambda: stage.module.runs[task_id])
        stage.expect(task_id)
        stage.module.go_on()
        await stage.ended()
        await until(lambda: stage.struck or not stage.strike)  # another may have been faster


async def carried(stage: Stage) -> None:
    """A move was interrupted; a worker of the queue goes on with it, and the task runs on the other."""
    stage.run(calls.enqueue(OLD, [Message("1", stage.module.once.name, "old", b"[]")]))
    entries = stage.run(moving.entries(OLD, OLD.ready, b"0-0", b"+"))
    assert stage.run(moving.depart(OLD, OLD.ready, "default", entries)) == 1
    async with stage.worker(queues=("old", "default")):
        await until(lambda: stage.run(calls.look(OLD, "1")).moved_to == "default")
        await until(lambda: stage.state("1").ended)
    assert stage.module.runs == {"1": 1}
    stage.redis("SREM", "sq:queues", "old")


# ---- lives of callers


class Threads:
    """Callers that block."""

    def __init__(self, stage: Stage) -> None:
        self.app = stage.module.app
        self._once = stage.module.once
        result = self.app.result("1", queue="default")
        self.delay = in_thread(self._once.using(task_id="1").delay)
        self.transact = in_thread(self._transact)
        self.sole = lambda task_id: in_thread(self._once.using(task_id=task_id, unique=by()).delay)()
        self.get = in_thread(result.get)
        self.status = in_thread(result.status)
        self.forget = in_thread(result.forget)
        self.find = in_thread(self.app.result("1").status)
        self.cancel = in_thread(result.cancel)
        self.progress = in_thread(lambda: result.progress(0.7, "so far"))
        self.stream = in_thread(lambda: [chunk.value for chunk in result.stream()])
        self.cancel_all = in_thread(lambda: self.app.cancel_all(task="*once"))
        self.redrive = in_thread(self.app.dead_letters.redrive)
        self.purge = in_thread(self.app.dead_letters.purge)
        on = self.app.schedules
        self.add = in_thread(lambda: on.add("often", self._once.s(), RULE))
        self.schedules = in_thread(on.list)
        self.pause_schedule = in_thread(lambda: on.pause("often"))
        self.resume_schedule = in_thread(lambda: on.resume("often"))
        self.remove = in_thread(lambda: on.remove("often"))
        self.measure = in_thread(self.app.queues.list)
        self.pause_queue = in_thread(lambda: self.app.queues.pause("default"))
        self.resume_queue = in_thread(lambda: self.app.queues.resume("default"))
        self.move = in_thread(lambda: self.app.queues.move("old", "default"))
        self.settle = in_thread(lambda: stage.module.weighed.settle_weight(delivery_of(stage), 3, None))
        self.close = in_thread(self.app.close)

    def _transact(self) -> None:
        with self.app.transaction() as batch:
            for task_id in ("1", "2"):
                batch.enqueue(self._once.using(task_id=task_id).s())


class Loop:
    """Callers on the event loop, which can be cancelled."""

    def __init__(self, stage: Stage) -> None:
        self.app = stage.module.app
        self._once = stage.module.once
        result = self.app.result("1", queue="default")
        self.delay = cancelled_once(stage, self._once.using(task_id="1").adelay)
        self.transact = cancelled_once(stage, self._transact)
        self.sole = lambda one: cancelled_once(stage, self._once.using(task_id=one, unique=by()).adelay)()
        self.get = cancelled_once(stage, result.aget)
        self.status = cancelled_once(stage, result.astatus)
        self.forget = cancelled_once(stage, result.aforget)
        self.find = cancelled_once(stage, self.app.result("1").astatus)
        self.cancel = cancelled_once(stage, result.acancel)
        self.progress = cancelled_once(stage, lambda: result.aprogress(0.7, "so far"))
        self.stream = cancelled_once(stage, lambda: streamed_by(result))
        self.cancel_all = cancelled_once(stage, lambda: self.app.acancel_all(task="*once"))
        self.redrive = cancelled_once(stage, self.app.dead_letters.aredrive)
        self.purge = cancelled_once(stage, self.app.dead_letters.apurge)
        on = self.app.schedules
        self.add = cancelled_once(stage, lambda: on.aadd("often", self._once.s(), RULE))
        self.schedules = cancelled_once(stage, on.alist)
        self.pause_schedule = cancelled_once(stage, lambda: on.apause("often"))
        self.resume_schedule = cancelled_once(stage, lambda: on.aresume("often"))
        self.remove = cancelled_once(stage, lambda: on.aremove("often"))
        self.measure = cancelled_once(stage, self.app.queues.alist)
        self.pause_queue = cancelled_once(stage, lambda: self.app.queues.apause("default"))
        self.resume_queue = cancelled_once(stage, lambda: self.app.queues.aresume("default"))
        self.move = cancelled_once(stage, lambda: self.app.queues.amove("old", "default"))
        self.settle = cancelled_once(stage, lambda: stage.module.weighed.asettle_weight(delivery_of(stage), 3, None))
        self.close = self.app.aclose

    async def _transact(self) -> None:
        async with self.app.transaction() as batch:
            for task_id in ("1", "2"):
                batch.enqueue(self._once.using(task_id=task_id).s())


async def streamed_by(result: AsyncResult[Any]) -> list[Any]:
    return [chunk.value async for chunk in result.stream()]


def in_thread(call: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    return lambda: asyncio.to_thread(call)


def cancelled_once(stage: Stage, call: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    """Cancel the caller, if that is planned, while its call is under way, and make it again."""

    async def caller() -> Any:
        calling = asyncio.create_task(call())
        struck_before = stage.struck
        await until(lambda: calling.done() or (stage.struck and stage.cancels and not struck_before))
        if not calling.done():
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            return await call()
        return calling.result()

    return caller


async def called(stage: Stage, caller: Threads | Loop) -> None:
    """A task is enqueued, looked at, waited for, and forgotten."""
    await caller.delay()
    check_enqueued(stage, "1")
    assert await caller.status() is State.QUEUED
    assert await caller.find() is State.QUEUED
    async with asyncio.timeout(10), asyncio.TaskGroup() as together, stage.successor():
        got = together.create_task(caller.get())
        await stage.ended()
        assert await got == "run 1"
    stage.check()
    assert stage.module.runs == {"1": 1}
    forgot = await caller.forget()
    assert forgot or (stage.strike and stage.strike.name == "forget")  # it was so before the reply got lost
    assert await caller.status() is State.UNKNOWN


async def transacted(stage: Stage, caller: Threads | Loop) -> None:
    """Two tasks are enqueued in one transaction."""
    await caller.transact()
    check_enqueued(stage, "1", "2")
    async with stage.successor():
        await stage.ended()
    stage.check()
    assert stage.module.runs == {"1": 1, "2": 1}


async def unique(stage: Stage, caller: Threads | Loop) -> None:
    """A unique task is enqueued, once more while it waits, and again when it has ended."""
    for first, second in (("1", "2"), ("3", "4")):
        result, duplicate = await caller.sole(first), await caller.sole(second)
        assert result.id == first
        assert not result.duplicate or stage.struck  # what was sent again, under its chosen id, is known
        assert (duplicate.id, duplicate.duplicate) == (first, True)
        check_enqueued(stage, first)
        async with stage.successor():
            await stage.ended()
    stage.check()
    assert stage.module.runs == {"1": 1, "3": 1}


async def streamed(stage: Stage, caller: Threads | Loop) -> None:
    """A caller says how far a task is, and reads what it emits."""
    stage.run(calls.enqueue(QUEUE, [Message("1", stage.module.emitting.name, "default", b"[]")]))
    stage.run(calls.register_queues(Keys("sq"), ["default"]))
    check_enqueued(stage, "1")
    assert await caller.progress()
    assert stage.run(calls.look(QUEUE, "1")).progress == (0.7, "so far")
    async with asyncio.timeout(10), asyncio.TaskGroup() as together, stage.successor():
        read = together.create_task(caller.stream())
        assert await read == ["1a", "1b"]
    stage.check()
    check_chunks(stage, "1")


async def redriven(stage: Stage, caller: Threads | Loop) -> None:
    """A task that died is redriven; what cannot be is deleted."""
    stage.run(calls.register_queues(Keys("sq"), ["default"]))
    stage.run(calls.enqueue(QUEUE, [Message("1", stage.module.once.name, "default", b"[]")]))
    (delivery,) = stage.run(calls.fetch({QUEUE.ready: "default"}, "w-2", 1, 0))
    stage.run(calls.bury(QUEUE, delivery, "why", b"{}", done="sq:done:", worker="w-2", ttl_ms=60_000))
    stage.redis("XADD", QUEUE.dead, "*", "by", "hand")
    await caller.redrive()
    assert stage.redis("XLEN", QUEUE.dead) == 1
    check_enqueued(stage, "1")
    await caller.purge()
    async with stage.successor():
        await stage.ended()
    stage.check()
    assert stage.module.runs == {"1": 1}


async def arranged(stage: Stage, caller: Threads | Loop) -> None:
    """A schedule is added, looked at, paused, resumed and removed."""
    added = await caller.add()
    assert (added.name, added.rule, added.paused) == ("often", RULE, False)
    await caller.pause_schedule()
    [paused] = await caller.schedules()
    assert paused.paused
    await caller.resume_schedule()
    assert await caller.schedules() == (added,)
    await caller.remove()
    assert await caller.schedules() == ()
    assert stage.redis("KEYS", "*") == [b"sq:queues"]


async def called_off(stage: Stage, caller: Threads | Loop) -> None:
    """One task is cancelled; then all that wait: one that is delayed, and one that is queued."""
    await caller.delay()
    check_enqueued(stage, "1")
    assert await caller.cancel()
    for task_id, countdown in (("2", 60), ("3", 0)):
        await stage.enqueue(task_id=task_id, countdown=countdown)
    await caller.cancel_all()
    stage.run(calls.create_group(QUEUE.returned))  # as any worker has it
    stage.ends_as = State.CANCELLED
    stage.check()
    assert not stage.module.runs


async def paused(stage: Stage, caller: Threads | Loop) -> None:
    """The queue is paused, looked at, and resumed; then its task runs."""
    stage.run(calls.enqueue(QUEUE, [Message("1", stage.module.once.name, "default", b"[]")]))
    await caller.pause_queue()
    [info] = await caller.measure()
    assert (info.paused, info.length) == (True, 1)
    await caller.resume_queue()
    assert not stage.redis("EXISTS", QUEUE.paused)
    check_enqueued(stage, "1")
    async with stage.successor():
        await stage.ended()
    stage.check()


async def moved(stage: Stage, caller: Threads | Loop) -> None:
    """Messages of another queue, one of which is delayed, are moved to this one."""
    name = stage.module.once.name
    stage.run(calls.enqueue(OLD, [Message("1", name, "old", b"[]"), Message("2", name, "old", b"[]", 60_000)]))
    done = await caller.move()
    assert (done.moved <= 2 and stage.cancels) or done == (2, 0)
    assert not stage.redis("EXISTS", OLD.delayed, OLD.moving)
    assert stage.redis("XLEN", OLD.ready) == 0
    assert stage.redis("ZCARD", QUEUE.delayed) == 2
    stage.redis("ZADD", QUEUE.delayed, "XX", 1, "2")
    for task_id in ("1", "2"):
        assert stage.run(calls.look(OLD, task_id)).moved_to == "default"
        stage.expect(task_id)
    async with stage.successor():
        await stage.ended()
    stage.check()
    assert stage.module.runs == {"1": 1, "2": 1}


async def settled(stage: Stage, caller: Threads | Loop) -> None:
    """A run says how many units it has used."""
    steering = Steering(limits=((stage.module.weighed.name, "", 1.0),))
    stage.run(calls.enqueue(QUEUE, [Message("1", stage.module.weighed.name, "default", b"[1]", 0, steering.encode())]))
    assert await caller.settle()
    _, rate, _, _ = QUEUE.room(f"limit:{stage.module.weighed.name}")
    assert 1000 < stage.redis("PTTL", rate) <= 2001, "two units more than it began with, once"
    stage.redis("DEL", QUEUE.record("1"))
    stage.redis("XTRIM", QUEUE.ready, "MAXLEN", 0)


def delivery_of(stage: Stage) -> Delivery:
    """Read the only message that is ready."""
    (found,) = stage.redis("XRANGE", QUEUE.ready, "-", "+")
    delivery = read_entry("default", QUEUE.ready, *found)
    assert isinstance(delivery, Delivery)
    return delivery


async def played(stage: Stage, life: Any, caller: type[Threads | Loop]) -> None:
    """Have a caller of some kind play a life."""
    playing = caller(stage)
    try:
        await life(stage, playing)
    finally:
        await playing.close()


def check_enqueued(stage: Stage, *task_ids: str) -> None:
    """Check that tasks are queued, once each, and that their queue is known; their commits will be counted."""
    assert stage.redis("XLEN", QUEUE.ready) == len(task_ids)
    assert stage.redis("SMEMBERS", "sq:queues") == [b"default"]
    for task_id in task_ids:
        stage.expect(task_id)


# ---- which calls there are, and what happens to them

SET_UP = "CLIENT SETNAME"
LIKE_IT = "CLIENT SETINFO"  # sent after it, and twice
FAILING = (Fault.BEFORE, Fault.AFTER, Fault.DELAY)

# How a worker finds out whether the server is fit; whether it is to stop it asks itself only afterwards.
LOOK = ("INFO#2", "CONFIG GET", "forbidden")

WORKING = {
    plain: (
        *(SET_UP, "INFO", *LOOK, "create_group", "create_group#2", "register_queues", "CLIENT ID", "XREADGROUP"),
        *("SUBSCRIBE", "PUBSUB NUMSUB", "finish", "CLIENT UNBLOCK", "retire", "retire#2"),
    ),
    heard: ("announce", "announce#2", "announce#3"),
    delayed: ("due", "promote"),
    unknown: ("park",),
    retried: ("park",),
    emitted: ("emit", "emit#2", "progress"),
    given_up: ("bury",),
    malformed: ("bury",),
    abandoned: ("XAUTOCLAIM", "XAUTOCLAIM#2", "give_back"),
    deadly: ("give_back",),
    tidied: ("XINFO CONSUMERS", "retire"),
    limited: ("admit", "ZRANGE", "turn", "visit"),
    shared: ("visit", "turn"),
    long: ("renew",),
    stopped: ("give_back", "give_back#2"),
    scheduled: ("read_schedules", "define_schedule", "due_schedules", "due_schedules#2", "fire"),
    cancelled: ("look", "give_back"),
    rescued: ("XREADGROUP", "give_back", "retire", "retire#2"),
    carried: ("ZRANGE", "departing", "arrive", "forward", "register_queues#2"),
}
CALLING = {
    called: (SET_UP, "enqueue", "register_queues", "look", "SMEMBERS", "watch", "SUBSCRIBE", "forget", "PING"),
    streamed: ("progress", "read_chunks", "read_chunks#2", "SUBSCRIBE"),
    transacted: ("enqueue_all", "register_queues"),
    arranged: (
        *("SMEMBERS", "read_schedules", "register_queues", "define_schedule", "read_schedules#2", "ZREM", "HKEYS"),
        *("resume_schedule", "remove_schedule"),
    ),
    called_off: ("cancel", "TIME", "SMEMBERS", "ZSCAN", "brief", "cancel#2", "XREVRANGE", "survey", "cancel#3"),
    unique: ("enqueue_all", *(f"enqueue_all#{nth}" for nth in range(2, 8)), "register_queues"),
    settled: ("settle_weight",),
    redriven: ("TIME", "SMEMBERS", "XREVRANGE", "page", "page#2", "redrive", "XDEL"),
    paused: ("pause", "register_queues", "SMEMBERS", "measure", "ZRANGE", "held", "DEL"),
    moved: (
        *("ZRANGE", "ZCARD", "ZRANGE#2", "depart_later", "departing", "arrive", "register_queues", "forward"),
        *("XREVRANGE", "XINFO GROUPS", "page", "depart", "departing#2", "arrive#2", "forward#2"),
    ),
}
# What is made when its worker is stopping already.
AT_STOP = ("CLIENT UNBLOCK", "retire", "retire#2", "announce#3")


def cases(lives: dict[Any, tuple[str, ...]], more: Callable[[Any, str], list[str]]) -> list[Any]:
    """List all calls of some lives with all that can happen to them."""
    return [
        pytest.param(life, call, fault, id=f"{life.__name__}-{call}-{fault}")
        for life, made in lives.items()
        for call in made
        for fault in (*FAILING, *more(life, call))
    ]


def stops(life: Any, call: str) -> list[str]:
    return [] if life in (stopped, rescued) or call in (*LOOK, *AT_STOP) else [STOP]


def names(*lives: dict[Any, tuple[str, ...]]) -> set[str]:
    """Name all calls of some lives."""
    return {call.partition("#")[0] for some in lives for made in some.values() for call in made}


@pytest.mark.parametrize(("life", "call", "fault"), cases(WORKING, stops))
async def test_a_call_of_a_worker(working, life, call, fault):
    """It fails, is slow, or its worker is asked to stop meanwhile."""
    working.plan(call, fault)
    await life(working)
    assert working.struck
    working.check()


@pytest.mark.parametrize(("life", "call", "fault"), cases(CALLING, lambda *_: []))
async def test_a_call_of_a_thread(calling, life, call, fault):
    """It fails or is slow; the caller does not notice."""
    calling.plan(call, fault)
    await played(calling, life, Threads)
    assert calling.struck


@pytest.mark.parametrize(("life", "call", "fault"), cases(CALLING, lambda *_: [CANCEL]))
async def test_a_call_on_a_loop(calling, life, call, fault):
    """It fails or is slow, or is cancelled; then the caller can make it again."""
    calling.plan(call, fault)
    await played(calling, life, Loop)
    assert calling.struck


async def test_a_worker_that_is_cut_off_cannot_commit(working):
    """It can renew no lease, so its task goes to another; its outcome comes first, and is refused."""
    task_id = await working.enqueue("held")
    for nth in range(1, 100):
        working.plan(f"renew#{nth}", Fault.BEFORE)
    async with working.worker(concurrency=1):
        await until(lambda: working.module.runs[task_id] == 1)
        async with working.successor():
            await until(lambda: working.module.runs[task_id] == 2)
            late = working.proxy.strike("finish", Fault.DELAY, seconds=0)
            working.module.go_on(1)
            await until(lambda: late.struck)
            assert working.state(task_id) is State.RUNNING
            working.module.go_on()
            await working.ended()
    assert working.run(calls.look(QUEUE, task_id)).body == b'"run 2"'
    working.check()


@pytest.mark.parametrize("life", WORKING)
async def test_a_worker_makes_no_other_call(working, life):
    """What is not listed above is not tested. Without a fault a worker leaves no consumer either."""
    await life(working)
    working.check()
    assert set(working.proxy.names) <= {*names(WORKING), LIKE_IT}


@pytest.mark.parametrize("caller", [Threads, Loop])
@pytest.mark.parametrize("life", CALLING)
async def test_a_caller_makes_no_other_call(calling, life, caller):
    """What is not listed above is not tested."""
    await played(calling, life, caller)
    assert set(calling.proxy.names) <= {*names(CALLING), LIKE_IT}


def test_each_script_is_struck():
    """A script that no life calls is not tested; those of channels and agents have no part in the life of a task.

    Those of flows have lives of their own.
    """
    others = ("channel_", "presence_", "claim_", "flow_", "finish_flow", "become", "glance")
    of_tasks = {name for name in SCRIPTS.values() if not name.startswith(others)}
    assert of_tasks <= names(CALLING, WORKING)


async def test_a_cancellation_is_never_lost(calling):
    """A caller that is cancelled at whatever step of its way ends: a time limit would not hold otherwise."""
    sender = calling.module.once.using(task_id="1")
    steps = 0
    done = False
    try:
        while not done:
            steps += 1
            task = asyncio.create_task(sender.adelay())
            for _ in range(steps):
                await asyncio.sleep(0)
            done = not task.cancel()
            await asyncio.wait([task])
            assert done or task.cancelled(), f"lost after {steps} steps"
    finally:
        await calling.module.app.aclose()
    assert steps > 3


async def test_a_storm(working):
    """Where one call in twenty fails or is slow, all tasks end, and each is committed once."""
    for _ in range(50):
        await working.enqueue()
    working.idle.add("w-1")
    working.proxy.storm(seed=1, share=0.05, faults=FAILING, seconds=0.05)
    async with working.worker(concurrency=2):
        await working.ended()
    working.check()
    assert any(one.fault for one in working.proxy.passed)
