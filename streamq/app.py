"""`StreamQ`: the app. It joins settings, tasks and connections, and knows nothing of Redis or of running tasks."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from types import CellType, TracebackType
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, Self, TypeVar, overload

from streamq.broker.producer import Broker
from streamq.config import DEFAULT_QUEUE, Settings
from streamq.context import Context
from streamq.dead import DeadLetters
from streamq.errors import ConfigError, TaskNameClash
from streamq.results import AsyncResult
from streamq.tasks import AsyncTask, Signature, SyncTask, Task, TaskOptions, default_name, make_current
from streamq.transaction import Transaction

P = ParamSpec("P")
R = TypeVar("R")
Lifespan = Callable[["StreamQ"], AbstractAsyncContextManager[Any]]


class _Decorator(Protocol):
    """Makes a task of an async or a plain function."""

    @overload  # an async function is a function too: the first that fits is meant
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...


class _BindingDecorator(Protocol):
    """Makes a task of a function whose first parameter is the context."""

    @overload  # see above
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], R], /) -> SyncTask[P, R]: ...


class _Registry(dict[str, Task[..., Any]]):
    """Tasks by name."""

    def add(self, task: Task[..., Any]) -> None:
        """Take a task in; the same function again, from a module that was imported twice, takes its own place.

        Raises:
            TaskNameClash: another function has the name.
        """
        known = self.get(task.name)
        if known is not None and _origin(known.function) != _origin(task.function):
            where = "{}:{}".format(*_origin(known.function)[:2])
            raise TaskNameClash(f"the task name {task.name!r} is taken by the function at {where}")
        self[task.name] = task


def _origin(function: Callable[..., Any], seen: frozenset[int] = frozenset()) -> tuple[Any, ...]:
    """Say where a function stands, and where those stand that it wraps: a decorator makes many with one code."""
    code = inspect.unwrap(function).__code__
    seen |= {id(function)}
    held: list[Any] = []
    for value in (cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)):
        if inspect.isfunction(value):
            held += [] if id(value) in seen else [_origin(value, seen)]
        elif isinstance(value, (str, int, float)):
            held.append(value)
    return code.co_filename, code.co_firstlineno, next(code.co_positions(), None), *held


def _is_filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - an empty one raises
    except ValueError:
        return False
    return True


class _TaskMaker:
    """The ``task`` decorator, which an app and library code share."""

    def __init__(self, registry: _Registry, broker: Broker | None) -> None:
        self._registry = registry
        self._broker = broker

    @overload  # an async function is a function too: the first that fits is meant
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def __call__(
        self,
        /,
        *,
        bind: Literal[True],
        name: str | None = ...,
        queue: str = ...,
        timeout: float | None = ...,
        raises: tuple[type[BaseException], ...] = ...,
    ) -> _BindingDecorator: ...
    @overload
    def __call__(
        self,
        /,
        *,
        bind: Literal[False] = ...,
        name: str | None = ...,
        queue: str = ...,
        timeout: float | None = ...,
        raises: tuple[type[BaseException], ...] = ...,
    ) -> _Decorator: ...
    def __call__(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        queue: str = DEFAULT_QUEUE,
        timeout: float | None = None,
        raises: tuple[type[BaseException], ...] = (),
        bind: bool = False,
    ) -> Any:
        """Make a task of a function; with or without options.

        Args:
            function: an ``async def``, which will run on the worker's event loop, or a ``def``, in a thread.
            name: the registered name; ``module.function`` if not given.
            queue: where calls are enqueued.
            timeout: seconds a run may take; past them it fails with `TaskTimeout`.
            raises: exception types that come back to the caller as themselves, and are logged without traceback.
            bind: pass the context first.

        Raises:
            TaskNameClash: another function has the name.
            ConfigError: an option cannot be used.
        """

        def decorate(function: Callable[..., Any]) -> Task[..., Any]:
            if not inspect.isfunction(function):
                raise ConfigError(f"@task needs a function, not {function!r}")
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise ConfigError(f"@task needs a function that returns, and {function.__qualname__} is a generator")
            options = TaskOptions(name or default_name(function), queue, timeout, tuple(raises), bind)
            _check(options)
            kind = AsyncTask if inspect.iscoroutinefunction(function) else SyncTask
            task: Task[..., Any] = kind(function, options, self._broker)
            self._registry.add(task)
            return task

        return decorate if function is None else decorate(function)


def _check(options: TaskOptions) -> None:
    if not options.name.isprintable() or any(character in ": *?[]{}" for character in options.name):
        raise ConfigError(f"task name {options.name!r} cannot be used: no spaces, ':', '*', '?', brackets or braces")
    if options.timeout is not None and not options.timeout > 0:
        raise ConfigError(f"task {options.name}: timeout must be more than 0 seconds, not {options.timeout!r}")
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in options.raises):
        raise ConfigError(f"task {options.name}: raises must be exception classes, not {options.raises!r}")


_shared = _Registry()

task = _TaskMaker(_shared, None)
"""As ``@app.task``, for library code that has no app at hand: calls go through the app that was made last."""


class StreamQ:
    """A set of tasks and the Redis they travel through.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://`` or ``embedded://DIR``; by default ``$STREAMQ_URL``, else
            ``redis://localhost:6379/0``.
        namespace: first part of every key, so that apps can share a server.
        include: modules that hold tasks; a worker imports them.
        lifespan: an async context manager that takes the app; each worker process enters it once, and tasks find
            what it yields as ``context.state``.
        result_ttl: seconds for which the record of an ended task is kept.
        max_payload: bytes that the encoded arguments of one call may have.
        max_result: bytes that an encoded result may have.

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
    ) -> None:
        given: dict[str, Any] = {} if url is None else {"url": url}
        self.settings = Settings(
            **given,
            namespace=namespace,
            result_ttl=result_ttl,
            max_payload=max_payload,
            max_result=max_result,
        )
        self.broker = Broker(self.settings)
        self.include = (include,) if isinstance(include, str) else tuple(include)
        self.lifespan = lifespan
        self._own = _Registry()
        self.task = _TaskMaker(self._own, self.broker)
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
        every = _Registry(self._own)
        for shared in _shared.values():
            every.add(shared)
        return every

    def result(self, task_id: str, *, queue: str | None = None) -> AsyncResult[Any]:
        """Return the result of a task of which only the id is at hand.

        Args:
            task_id: its id.
            queue: where it was enqueued; without it all queues are looked through.
        """
        return AsyncResult(task_id, queue, self.broker)

    def enqueue_many(self, signatures: Iterable[Signature[R]]) -> list[AsyncResult[R]]:
        """Enqueue many calls, some hundred to a round trip.

        Returns:
            Their results, in the order given.

        Raises:
            BrokerError: some may have been enqueued; sending signatures with ids of their own again is safe.
        """
        batch = [(signature, signature.to_message()) for signature in signatures]
        self.broker.enqueue_many(message for _, message in batch)
        return [signature.to_result(message, self.broker) for signature, message in batch]

    async def aenqueue_many(self, signatures: Iterable[Signature[R]]) -> list[AsyncResult[R]]:
        """Enqueue many calls, as `enqueue_many` does."""
        batch = [(signature, signature.to_message()) for signature in signatures]
        await self.broker.aenqueue_many(message for _, message in batch)
        return [signature.to_result(message, self.broker) for signature, message in batch]

    def transaction(self) -> Transaction:
        """Begin a block, ``with`` or ``async with``, whose calls are enqueued all or none; see `Transaction`."""
        return Transaction(self.broker)

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
