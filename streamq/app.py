"""`StreamQ`: the app. It joins settings, tasks and connections, and knows nothing of Redis or of running tasks."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from streamq import bulk
from streamq.broker.caller import Broker
from streamq.cancellation import Cancellation, choose
from streamq.channels.broadcast import Broadcast
from streamq.channels.maker import ChannelMaker
from streamq.config import Durability, Settings
from streamq.dead import DeadLetters
from streamq.decorator import Registry, TaskMaker, shared_tasks
from streamq.events.handlers import Handlers
from streamq.events.listening import Events
from streamq.flow_results.result import FlowResult
from streamq.latest import make_current
from streamq.limits import Limit
from streamq.queues import Queues
from streamq.results import AsyncResult
from streamq.tasks import Task
from streamq.timetable import Schedules
from streamq.transaction import Transaction
from streamq.workflows.signature import Signature

R = TypeVar("R")
Lifespan = Callable[["StreamQ"], AbstractAsyncContextManager[Any]]


class StreamQ:
    """A set of tasks and the Redis they travel through.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://``, ``embedded://DIR``, or
            ``redis+sentinel://HOST:26379,HOST:26379/SERVICE``; by default ``$STREAMQ_URL``, else
            ``redis://localhost:6379/0``.
        namespace: first part of every key, so that apps can share a server.
        include: modules that hold tasks; a worker imports them.
        lifespan: an async context manager that takes the app; each worker process enters it once, and tasks find
            what it yields as ``context.state``.
        result_ttl: seconds for which the record of an ended task is kept.
        max_payload: bytes that the encoded arguments of one call may have.
        max_result: bytes that an encoded result, or one chunk of a stream, may have.
        max_stream: bytes that all chunks of one run may have; each counts as 16 more than its JSON has.
        max_deaths: so many times a worker may die under a task, then its message goes to the dead letters. The last
            time it runs in a process of its own, so that no other task is blamed.
        unknown_task_ttl: seconds for which a message that no worker can run is put back, before it goes there too.
        queue_limits: by names of queues, how often and how many at a time their tasks may begin, in all workers
            together; such a `Limit` has no `by`, `weight` or `name`.
        fairness_weights: by fairness keys, how many turns they have for one of those that are not named.
        durability: what an enqueue waits for: ``async`` for Redis itself, ``replica`` for one of its replicas to have
            the message, ``fsync`` for its disk to have it. Where Redis cannot confirm that, the enqueue is an error.
        events_url: another server for channels and agents, or a Redis Cluster, which `url` cannot be:
            ``redis+cluster://[user:password@]HOST:6379,HOST:6379``. Its nodes must be reached by the addresses that
            they give for one another; with ``rediss+cluster://`` their certificates must have them. What is told of
            tasks is told by the scripts that commit them, and so at `url`.
        max_message: bytes that an encoded message of a channel may have.
        durable_events: keep the events of tasks and workers, those of the last hour and up to some 100,000 of each
            queue, so that who begins to listen late can still read them.

    Raises:
        ConfigError: one of them cannot be used. Nothing is connected until the first call is enqueued.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str = "sq",
        include: Iterable[str] = (),
        lifespan: Lifespan | None = None,
        result_ttl: float = Settings.result_ttl,
        max_payload: int = Settings.max_payload,
        max_result: int = Settings.max_result,
        max_stream: int = Settings.max_stream,
        max_deaths: int = Settings.max_deaths,
        unknown_task_ttl: float = Settings.unknown_task_ttl,
        queue_limits: Mapping[str, Limit] | None = None,
        fairness_weights: Mapping[str, float] | None = None,
        durability: Durability = Settings.durability,
        events_url: str | None = None,
        max_message: int = Settings.max_message,
        durable_events: bool = Settings.durable_events,
    ) -> None:
        given: dict[str, Any] = {} if url is None else {"url": url}
        self.settings = Settings(
            **given,
            namespace=namespace,
            result_ttl=result_ttl,
            max_payload=max_payload,
            max_result=max_result,
            max_stream=max_stream,
            max_deaths=max_deaths,
            unknown_task_ttl=unknown_task_ttl,
            queue_limits=queue_limits or {},
            fairness_weights=fairness_weights or {},
            durability=durability,
            events_url=events_url,
            max_message=max_message,
            durable_events=durable_events,
        )
        self.broker = Broker(self.settings)
        self.broadcast = Broadcast(self.settings, self.broker)
        self.channel = ChannelMaker(self.broadcast)
        self.on = Handlers()
        self.include = (include,) if isinstance(include, str) else tuple(include)
        self.lifespan = lifespan
        self._own = Registry()
        self.task = TaskMaker(self._own, self.broker)
        self.make_current()

    def make_current(self) -> None:
        """Have tasks of ``streamq.task`` go through this app; the app that was made last does so by itself."""
        make_current(self.broker)

    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """All tasks that a worker of this app can run, by name; imports the modules of ``include``.

        Raises:
            ImportError: one of them cannot be imported.
            TaskNameClash: a task of ``streamq.task`` has the name of one of the app's.
        """
        for module in self.include:
            importlib.import_module(module)
        every = Registry(self._own)
        for shared in shared_tasks.values():
            every.add(shared)
        return every

    def result(self, task_id: str, *, queue: str | None = None) -> AsyncResult[Any]:
        """Return the result of a task of which only the id is at hand.

        Args:
            task_id: its id.
            queue: where it was enqueued; without it all queues are looked through.
        """
        return AsyncResult(task_id, queue, self.broker)

    def flow(self, flow_id: str, *, queue: str | None = None) -> FlowResult[Any]:
        """Return the result of a flow of which only the id is at hand; its values are plain JSON then.

        Args:
            flow_id: its id.
            queue: that of its first task; without it all queues are looked through.
        """
        return FlowResult(flow_id, queue, self.broker)

    def enqueue_many(
        self,
        signatures: Iterable[Signature[R]],
        *,
        durability: Durability | None = None,
        on_progress: Callable[[int], object] | None = None,
        chunk_size: int = bulk.CHUNK,
    ) -> list[AsyncResult[R]]:
        """Enqueue many calls, of any tasks and with any options, some hundred to a round trip.

        Calls of one queue and priority are enqueued in the order given. Their iterable may be a generator of any
        length: only the results are kept. Where these would be too many, see `enqueue_each`.

        Args:
            signatures: the calls.
            durability: what to wait for, in place of what the app says.
            on_progress: called with the number of calls that are enqueued so far, after each chunk.
            chunk_size: so many calls are taken from `signatures` at a time.

        Returns:
            Their results, in the order given; those of calls that were enqueued already say ``duplicate``.

        Raises:
            BrokerError: some may have been enqueued; sending signatures with ids of their own again is safe. Also
                `NotDurable`: those that were sent last have not been confirmed, and the rest was not sent.
            ConfigError: the size of a chunk cannot be used.
        """
        chunk_size = bulk.check_chunk_size(chunk_size)
        return list(bulk.each(self.broker, signatures, durability, chunk_size, on_progress))

    async def aenqueue_many(
        self,
        signatures: Iterable[Signature[R]] | AsyncIterable[Signature[R]],
        *,
        durability: Durability | None = None,
        on_progress: Callable[[int], object] | None = None,
        chunk_size: int = bulk.CHUNK,
    ) -> list[AsyncResult[R]]:
        """Enqueue many calls, as `enqueue_many` does; their iterable may be an async one."""
        chunk_size = bulk.check_chunk_size(chunk_size)
        results = bulk.aeach(self.broker, signatures, durability, chunk_size, on_progress)
        return [result async for result in results]

    def enqueue_each(
        self,
        signatures: Iterable[Signature[R]],
        *,
        durability: Durability | None = None,
        on_progress: Callable[[int], object] | None = None,
        chunk_size: int = bulk.CHUNK,
    ) -> Iterator[AsyncResult[R]]:
        """Enqueue many calls as `enqueue_many` does, but give their results one by one and keep none.

        Calls are enqueued, a chunk at a time, when their results are asked for, as by a ``for`` loop.
        """
        return bulk.each(self.broker, signatures, durability, bulk.check_chunk_size(chunk_size), on_progress)

    def aenqueue_each(
        self,
        signatures: Iterable[Signature[R]] | AsyncIterable[Signature[R]],
        *,
        durability: Durability | None = None,
        on_progress: Callable[[int], object] | None = None,
        chunk_size: int = bulk.CHUNK,
    ) -> AsyncIterator[AsyncResult[R]]:
        """Enqueue many calls as `enqueue_each` does: ``async for result in app.aenqueue_each(...)``."""
        return bulk.aeach(self.broker, signatures, durability, bulk.check_chunk_size(chunk_size), on_progress)

    def transaction(self, *, durability: Durability | None = None) -> Transaction:
        """Begin a block, ``with`` or ``async with``, whose calls are enqueued all or none; see `Transaction`.

        Args:
            durability: what the end of the block waits for; None: what the app says.
        """
        return Transaction(self.broker, durability)

    def cancel_all(
        self,
        *,
        task: str | None = None,
        queue: str | Iterable[str] | None = None,
        older_than: float | datetime | None = None,
        running: bool = False,
        everything: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """Cancel all tasks that wait and fit what is given, some hundred to a step; each as `AsyncResult.cancel` does.

        Args:
            task: the task's name; ``*`` stands for any text, ``?`` for any character.
            queue: the name of their queue, or several names.
            older_than: enqueued at least so many seconds ago, or not after this time.
            running: also those that workers have.
            everything: has to be given if nothing else says which tasks are meant.
            on_progress: called with the number of cancelled tasks, after each step.

        Returns:
            How many were cancelled. What is enqueued meanwhile is left alone.

        Raises:
            ConfigError: one of them cannot be used, or nothing says which tasks are meant.
            BrokerError: Redis does not do what is asked. What was cancelled stays so; the rest can be by asking again.
        """
        chosen = choose(task=task, queue=queue, older_than=older_than, running=running, everything=everything)
        return Cancellation(self.broker, chosen).run(on_progress)

    async def acancel_all(
        self,
        *,
        task: str | None = None,
        queue: str | Iterable[str] | None = None,
        older_than: float | datetime | None = None,
        running: bool = False,
        everything: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """Cancel all tasks that wait and fit what is given, as `cancel_all` does."""
        chosen = choose(task=task, queue=queue, older_than=older_than, running=running, everything=everything)
        return await Cancellation(self.broker, chosen).arun(on_progress)

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters of all queues, to be looked at, redriven or purged."""
        return DeadLetters(self.broker)

    @property
    def queues(self) -> Queues:
        """All queues: to be looked at, paused or resumed, and to have their messages moved."""
        return Queues(self.broker)

    @property
    def schedules(self) -> Schedules:
        """The schedules: to be added, looked at, paused, resumed, run or removed; workers fire them."""
        return Schedules(self.broker)

    @property
    def events(self) -> Events:
        """The events of tasks and workers, to be listened to."""
        return Events(self.broker, self.broker.keys)

    def close(self) -> None:
        """Close the connections that threads use. The app can be used again."""
        self.broadcast.close()
        self.broker.close()

    async def aclose(self) -> None:
        """Close the connections that this event loop and threads use. The app can be used again."""
        await self.broadcast.aclose()
        await self.broker.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
