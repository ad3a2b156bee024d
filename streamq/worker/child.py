"""One worker process: joins the services, and knows in which order they start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from streamq import doctor
from streamq._redis.failures import Backoff
from streamq.broker.fleet import Fleet
from streamq.broker.renewals import Renewals
from streamq.config import Settings, WorkerSettings
from streamq.errors import BrokerError, BrokerUnavailable
from streamq.tasks import Task
from streamq.worker import clock
from streamq.worker.carrier import Carrier
from streamq.worker.committer import Committer
from streamq.worker.emitter import Emitter
from streamq.worker.executor import Executor
from streamq.worker.fetcher import Fetcher
from streamq.worker.gate import Gate
from streamq.worker.heartbeat import Heartbeat
from streamq.worker.holdings import Holdings, Run
from streamq.worker.lease import Lease
from streamq.worker.listener import Listener
from streamq.worker.loader import Loader
from streamq.worker.losses import Losses
from streamq.worker.metrics import Counters
from streamq.worker.outage import Outage
from streamq.worker.processes import PoolSettings, ProcessPool
from streamq.worker.promoter import Promoter
from streamq.worker.reaper import Reaper
from streamq.worker.reporter import Reporter
from streamq.worker.scheduler import Scheduler
from streamq.worker.stacks import Stacks
from streamq.worker.stop import Stop
from streamq.worker.watchdog import Watchdog

_log = logging.getLogger("streamq.worker")

_BLOCK_SECONDS = 1.0  # how long a read waits, and so how long it can hold up a stop
_LAST_WORDS_SECONDS = 2.0  # for what is nice to have at the end, should Redis not answer


@dataclass(frozen=True)
class Job:
    """What a child has to serve.

    Attributes:
        settings: those of the app.
        worker: those of the worker.
        consumer: the name under which this process reads.
        app: ``module:attribute`` of the app, for the processes of the pool.
        tasks: what it can run, by name.
        lifespan: the app's, entered while the process serves.
        say: sends a message to the supervisor, from any thread.
        started_ms: when the worker was started, by the clock of this host, ms.
    """

    settings: Settings
    worker: WorkerSettings
    consumer: str
    app: str
    tasks: Mapping[str, Task[..., Any]]
    lifespan: AbstractAsyncContextManager[Any] | None
    say: Callable[..., None]
    started_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)


async def serve(job: Job, stop: Stop, ready: Callable[[str], None]) -> None:
    """Serve until asked to stop; `ready` is called with the server's version when work begins.

    Raises:
        BrokerRefused: the server wants another password, is none, or is not fit to keep tasks.
    """
    outage = Outage()
    async with AsyncExitStack() as stack:
        fleet = Fleet(job.settings, job.worker, job.consumer, _BLOCK_SECONDS)
        stack.push_async_callback(fleet.close)
        server = await _reach(job, fleet, outage, stop)
        if server is None:
            return
        state = await stack.enter_async_context(job.lifespan) if job.lifespan else None
        child = _Child(job, fleet, outage, state)
        stop.before_quitting = child.show_stacks
        child.start()
        ready(server)
        await child.until(stop)
        await child.end(stop)


async def _reach(job: Job, fleet: Fleet, outage: Outage, stop: Stop) -> str | None:
    """Wait for the server, see that it is fit, and make the streams; None if asked to stop meanwhile."""
    backoff = Backoff()
    while not stop.asked.is_set():
        try:
            server = await fleet.server()
            clock.set_offset(fleet.ahead_ms)
            findings = await doctor.admit(job.settings, job.worker.queues)
            await fleet.prepare()
        except BrokerUnavailable as error:
            outage.noticed(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.next()):
                    await stop.asked.wait()
        else:
            outage.over()
            for finding in findings:
                if finding.level is doctor.Level.WARNING:
                    job.say(warning=f"the server: {finding}")
                else:
                    _log.debug("the server: %s", finding)
            return server
    return None


class _Child:
    """The services of one process."""

    def __init__(self, job: Job, fleet: Fleet, outage: Outage, state: Any) -> None:
        self._job = job
        self._fleet = fleet
        self._loop = asyncio.get_running_loop()
        worker = job.worker
        self._counters = Counters()
        self._holdings = Holdings()
        self._promoter = Promoter(fleet, worker.queues, outage)
        self._carrier = Carrier(fleet, outage)
        self._committer = Committer(
            fleet,
            self._holdings,
            outage,
            self._promoter,
            self._carrier,
            counters=self._counters,
            unknown_ttl=job.settings.unknown_task_ttl,
        )
        queue_limits = job.settings.queue_limits
        self._gate = Gate(
            fleet, self._holdings, outage, self._promoter, counters=self._counters, queue_limits=queue_limits
        )
        has_limits = bool(queue_limits) or any(task.options.turns.limits for task in job.tasks.values())
        self._processes = ProcessPool(PoolSettings.of(worker, job.app, job.consumer))
        self._emitter = Emitter(fleet, outage, self._lost, settings=job.settings)
        self._executor = Executor(
            job.tasks,
            state,
            self._holdings,
            self._committer.put,
            processes=self._processes,
            settings=job.settings,
            worker=worker,
            say=job.say,
            gate=self._gate if has_limits else None,
            open_outbox=self._emitter.open,
        )
        self._losses = Losses(
            fleet,
            self._holdings,
            self._executor,
            self._processes,
            counters=self._counters,
            cancel_lost=worker.cancel_lost,
        )
        self._loader = Loader(fleet, self._holdings, outage, self._executor.begin, self._committer.put)
        self._fetcher = Fetcher(
            fleet,
            self._executor,
            self._holdings,
            outage,
            gate=self._gate,
            loader=self._loader,
            losses=self._losses,
            counters=self._counters,
            lease_seconds=worker.lease,
        )
        self._guard(outage)

    def _guard(self, outage: Outage) -> None:
        """Make the services that no task passes through."""
        job, fleet, worker = self._job, self._fleet, self._job.worker
        renewals = Renewals(job.settings, job.consumer, read_timeout=worker.lease / 4)
        self._lease = Lease(renewals, self._holdings, worker.lease, self._lost_in_thread)
        self._reaper = Reaper(
            fleet, self._holdings, self._lease, outage, counters=self._counters, lease_seconds=worker.lease
        )
        self._scheduler = Scheduler(
            fleet, worker.queues, job.tasks.values(), job.started_ms + clock.offset_ms(), outage=outage
        )
        self._heartbeat = Heartbeat(fleet, self._executor, outage)
        self._listener = Listener(job.settings, worker.queues, self._promoter, self._losses.cancelled)
        self._stacks = Stacks(self._holdings)
        reporter = Reporter(worker, self._executor, outage, self._counters)
        self._watchdog = Watchdog(self._stacks, reporter, self._counters, job.say, worker.stuck_after)

    def start(self) -> None:
        self._lease.start()
        self._watchdog.start()
        self._committing = asyncio.create_task(self._committer.run(), name="committer")
        self._emitting = asyncio.create_task(self._emitter.run(), name="emitter")
        self._fetching = asyncio.create_task(self._fetcher.run(), name="fetcher")
        self._listening = asyncio.create_task(self._listener.run(), name="listener")
        self._gating = asyncio.create_task(self._gate.run(), name="gate")
        self._carrying = asyncio.create_task(self._carrier.run(), name="carrier")
        self._helpers = [
            asyncio.create_task(self._reaper.run(), name="reaper"),
            asyncio.create_task(self._promoter.run(), name="promoter"),
            asyncio.create_task(self._loader.run(), name="loader"),
            asyncio.create_task(self._scheduler.run(), name="scheduler"),
            asyncio.create_task(self._heartbeat.run(), name="heartbeat"),
        ]

    async def until(self, stop: Stop) -> None:
        """Wait for the wish to stop; a service that ends by an error of ours ends the process, and says why."""
        asked = asyncio.create_task(stop.asked.wait())
        services = [self._committing, self._emitting, self._fetching, self._listening, self._gating, self._carrying]
        services += self._helpers
        await asyncio.wait([asked, *services], return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        for service in services:
            if service.done() and (error := service.exception()):
                _log.critical("the %s stopped", service.get_name(), exc_info=error)
                raise error

    def show_stacks(self) -> None:
        """Show where everything is, here and in the processes of the pool; from a signal handler."""
        self._stacks.print_tasks()
        self._processes.show_stacks()

    def _lost(self, stream: str, entry: bytes) -> None:
        self._losses.lost(stream, entry)

    def _lost_in_thread(self, stream: str, entry: bytes) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._losses.lost, stream, entry)

    async def end(self, stop: Stop) -> None:
        """Stop in order: nothing more is read, what has not started goes back, what runs may end, the rest goes back.

        Leases are renewed until all that is over.
        """
        _log.info("stopping: %d running, up to %g s to end", self._executor.busy, self._job.worker.grace)
        self._executor.drain()
        await self._fetcher.stop()
        for helper in self._helpers:
            helper.cancel()
        await self._give_back([*self._loader.drain(), *self._executor.take_waiting(), *self._gate.drain()])
        await self._fetching  # at most the BLOCK of one read
        await self._give_back([*self._loader.drain(), *self._executor.take_waiting()])
        await self._let_run(stop)
        self._listening.cancel()
        cut = self._holdings.all()
        for run in cut:
            self._executor.cancel(run)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._emitter.settled()
                await self._committer.settled()
        await self._give_back(self._holdings.all())
        self._gating.cancel()
        self._emitting.cancel()
        self._emitter.close()
        self._committer.close()
        with contextlib.suppress(TimeoutError, BrokerError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._committing
                await self._carrier.settled()
                await self._gate.tell()
                await self._heartbeat.say("offline")
                await self._fleet.retire()
        self._carrying.cancel()
        cancelled = [self._listening, self._carrying, *self._helpers]
        await asyncio.wait(cancelled, timeout=_LAST_WORDS_SECONDS)
        await self._losses.close()
        self._executor.close()
        await self._processes.close()
        await asyncio.to_thread(self._lease.stop)
        await asyncio.to_thread(self._watchdog.stop)
        _log.info("stopped")

    async def _let_run(self, stop: Stop) -> None:
        deadline = self._loop.time() + self._job.worker.grace
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                at_once: asyncio.Future[bool] = asyncio.create_task(stop.at_once.wait())
                try:
                    while len(self._holdings) and not stop.at_once.is_set():
                        progress = self._holdings.progress()
                        either: list[asyncio.Future[Any]] = [progress, at_once]
                        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                        progress.cancel()
                finally:
                    at_once.cancel()

    async def _give_back(self, runs: list[Run]) -> None:
        if not runs:
            return
        try:
            given, _ = await self._fleet.give_back([run.delivery for run in runs])
        except BrokerError as error:
            _log.warning("%d tasks could not be handed back, the lease brings them back: %s", len(runs), error)
        else:
            if given:  # what was cut short goes back by way of the committer
                _log.info("handed back %d tasks", given)
            for run in runs:
                self._counters["handed_back", run.delivery.message.task] += 1
        for run in runs:
            self._holdings.drop(run)
