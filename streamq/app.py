"""`StreamQ`: the app. It joins settings, tasks and connections, and knows nothing of Redis or of running tasks."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

from streamq.broker.producer import Broker
from streamq.config import Durability, Settings
from streamq.dead import DeadLetters
from streamq.decorator import Registry, TaskMaker, shared_tasks
from streamq.limits import Limit
from streamq.results import AsyncResult
from streamq.tasks import Signature, Task, make_current
from streamq.transaction import Transaction

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
        max_result: bytes that an encoded result may have.
        max_deaths: so many times a worker may die under a task, then its message goes to the dead letters. The last
            time it runs in a process of its own, so that no other task is blamed.
        unknown_task_ttl: seconds for which a message that no worker can run is put back, before it goes there too.
        fairness_weights: by fairness keys, how many turns they have for one of those that are not named.
        queue_limits: of queues, by their names, how often and how many at a time their tasks may begin.
        durability: what an enqueue waits for: ``async`` for Redis itself, ``replica`` for one of its replicas to have
            the message, ``fsync`` for its disk to have it. Where Redis cannot confirm that, the enqueue is an error.

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
        max_deaths: int = Settings.max_deaths,
        unknown_task_ttl: float = Settings.unknown_task_ttl,
        queue_limits: Mapping[str, Limit] | None = None,
        fairness_weights: Mapping[str, float] | None = None,
        durability: Durability = Settings.durability,
    ) -> None:
        given: dict[str, Any] = {} if url is None else {"url": url}
        self.settings = Settings(
            **given,
            namespace=namespace,
            result_ttl=result_ttl,
            max_payload=max_payload,
            max_result=max_result,
            max_deaths=max_deaths,
            unknown_task_ttl=unknown_task_ttl,
            queue_limits=queue_limits or {},
            fairness_weights=fairness_weights or {},
            durability=durability,
        )
        self.broker = Broker(self.settings)
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

    def enqueue_many(
        self, signatures: Iterable[Signature[R]], *, durability: Durability | None = None
    ) -> list[AsyncResult[R]]:
        """Enqueue many calls, some hundred to a round trip.

        Args:
            signatures: the calls.
            durability: what to wait for, in place of what the app says.

        Returns:
            Their results, in the order given; those of calls that were enqueued already say ``duplicate``.

        Raises:
            BrokerError: some may have been enqueued; sending signatures with ids of their own again is safe. Also
                `NotDurable`: those that were sent last have not been confirmed, and the rest was not sent.
        """
        batch = [(signature, signature.to_message()) for signature in signatures]
        holders = self.broker.enqueue_many([message for _, message in batch], durability)
        return [call.to_result(message, self.broker, holders.get(nth)) for nth, (call, message) in enumerate(batch)]

    async def aenqueue_many(
        self, signatures: Iterable[Signature[R]], *, durability: Durability | None = None
    ) -> list[AsyncResult[R]]:
        """Enqueue many calls, as `enqueue_many` does."""
        batch = [(signature, signature.to_message()) for signature in signatures]
        holders = await self.broker.aenqueue_many([message for _, message in batch], durability)
        return [call.to_result(message, self.broker, holders.get(nth)) for nth, (call, message) in enumerate(batch)]

    def transaction(self, *, durability: Durability | None = None) -> Transaction:
        """Begin a block, ``with`` or ``async with``, whose calls are enqueued all or none; see `Transaction`.

        Args:
            durability: what the end of the block waits for; None: what the app says.
        """
        return Transaction(self.broker, durability)

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters of all queues, to be looked at, redriven or purged."""
        return DeadLetters(self.broker)

    def close(self) -> None:
        """Close the connections that threads use. The app can be used again."""
        self.broker.close()

    async def aclose(self) -> None:
        """Close the connections that this event loop and threads use. The app can be used again."""
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
