"""The ``task`` decorator, and the tasks that it has made."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from datetime import datetime
from types import CellType
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, overload

from streamq.broker.caller import Broker
from streamq.checks import is_number
from streamq.config import DEFAULT_LEVEL, DEFAULT_QUEUE, check_priority
from streamq.context import Context
from streamq.errors import ConfigError, TaskNameClash
from streamq.limits import Limit, Of, limits_of_task
from streamq.message import Message
from streamq.naming import default_name
from streamq.options import TaskOptions
from streamq.retry import Retry, make_policy
from streamq.schedule.plan import Missed, check_missed, check_schedule, declared
from streamq.schedule.rules import Rule
from streamq.sending import Turns
from streamq.tasks import AsyncStreamTask, AsyncTask, StreamTask, SyncTask, Task
from streamq.uniqueness import By, choose

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


_LONGEST_SECONDS = 366 * 24 * 3600.0  # timers of an event loop, and of signals, have their limits


class _Options(TypedDict, total=False):
    """What ``@task(...)`` takes; `TaskMaker.__call__` explains it."""

    name: str | None
    queue: str
    priority: int
    timeout: float | None
    hard_timeout: float | None
    pool: Literal["process"] | None
    retry: Retry | int | None
    retry_on: tuple[type[BaseException], ...] | None
    discard_on: tuple[type[BaseException], ...]
    expires: float | datetime | None
    raises: tuple[type[BaseException], ...]
    rate_limit: str | None
    concurrency: int | None
    limits: Sequence[Limit]
    ordering_key: Of | None
    fairness_key: Of | None
    unique: By | None
    debounce: By | None
    throttle: By | None
    schedule: Rule | Iterable[Rule] | None
    missed: Missed


class _Decorator(Protocol):
    """Makes a task of an async or a plain function, or of one that yields."""

    @overload  # they all are functions: the first that fits is meant
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, AsyncIterable[T]], /
    ) -> AsyncStreamTask[P, T]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Generator[T, Any, R]], /
    ) -> StreamTask[P, T, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Iterator[T]], /
    ) -> StreamTask[P, T, Any]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...


class _BindingDecorator(Protocol):
    """Makes a task of a function whose first parameter is the context."""

    @overload  # see above
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[Context, P], AsyncIterable[T]], /
    ) -> AsyncStreamTask[P, T]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[Context, P], Generator[T, Any, R]], /
    ) -> StreamTask[P, T, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[Context, P], Iterator[T]], /
    ) -> StreamTask[P, T, Any]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], R], /) -> SyncTask[P, R]: ...


class Registry(dict[str, Task[..., Any]]):
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


class TaskMaker:
    """The ``task`` decorator, which an app and library code share."""

    def __init__(self, registry: Registry, broker: Broker | None) -> None:
        self._registry = registry
        self._broker = broker

    @overload  # see above
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, AsyncIterable[T]], /
    ) -> AsyncStreamTask[P, T]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Generator[T, Any, R]], /
    ) -> StreamTask[P, T, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Iterator[T]], /
    ) -> StreamTask[P, T, Any]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def __call__(self, /, *, bind: Literal[True], **options: Unpack[_Options]) -> _BindingDecorator: ...
    @overload
    def __call__(self, /, *, bind: Literal[False] = ..., **options: Unpack[_Options]) -> _Decorator: ...
    def __call__(
        self, function: Callable[..., Any] | None = None, /, *, bind: bool = False, **options: Unpack[_Options]
    ) -> Any:
        """Make a task of a function; with or without options.

        Args:
            function: an ``async def``, which will run on the worker's event loop, or a ``def``, in a thread. What it
                yields, if it does, its result streams; see `AsyncResult.stream`.
            name: the registered name; ``module.function`` if not given.
            queue: where calls are enqueued.
            priority: 0 to 9; in their queue, calls with a larger one come first, as far as ``streamq worker
                --weights`` does not say otherwise.
            timeout: seconds a run may take; past them `TaskTimeout` is raised in it, which it may handle.
            hard_timeout: seconds after which a run has failed with `TaskTimeout`, whatever it does. A process of the
                pool is killed; what runs on the event loop or in a thread is left to itself, and its worker process is
                replaced if it goes on for long.
            pool: ``"process"``: run it in a process of its own, which can be killed without harm to other tasks.
            retry: a policy, or at most how many attempts there are; without it a failure is the end.
            retry_on: only these exception types call for another attempt.
            discard_on: these exception types do not.
            expires: seconds from the enqueue on, or a moment, after which no run begins any more, unless a call says
                otherwise; see `streamq.tasks.Task.using`.
            raises: exception types that come back to the caller as themselves, and are logged without traceback.
            rate_limit: so many runs may begin in a time, in all workers together: ``100/m``, ``10/s``, ``1000/h``.
            concurrency: so many may run at a time, in all workers together.
            limits: more of that, by a key, by weight, or shared with other tasks of the queue; see `Limit`.
            ordering_key: calls for which this is the same run one after another, in the order of their enqueueing: the
                name of a parameter, or a function of the arguments by name.
            fairness_key: calls for which this is different take turns: such a name or function. One that
                is to come later waits for its time, and then for no turn.
            unique: ``by("user_id")``: a call that is the same as one that has not ended is not enqueued; see
                `streamq.uniqueness.by` for what is the same and how long. The enqueue returns the result of the first,
                with ``duplicate``.
            debounce: ``by("doc_id", seconds=5)``: a call waits so long, and while it waits, the same call takes its
                place and the wait begins anew; only the last one is run.
            throttle: ``by("user_id", seconds=60)``: for so long after a call the same call is not enqueued again.
            schedule: when it is enqueued by itself, without arguments: ``cron(...)`` or ``every(...)``, or several.
            missed: what becomes of instants at which no worker was there: ``skip`` them, make up for them by ``one``
                call (if nothing is said), or by ``all``; `streamq.timetable.Schedules.add` explains it.
            bind: pass the context first.

        Raises:
            TaskNameClash: another function has the name.
            ConfigError: an option cannot be used.
        """

        def decorate(function: Callable[..., Any]) -> Task[..., Any]:
            if not inspect.isfunction(function):
                raise ConfigError(f"@task needs a function, not {function!r}")
            task: Task[..., Any] = _kind(function)(function, _checked(function, bind=bind, **options), self._broker)
            task.turns.check_parameters(list(task.call_codec.signature.parameters))
            _check_schedule(task)
            self._registry.add(task)
            return task

        return decorate if function is None else decorate(function)


def _kind(function: Callable[..., Any]) -> type[Task[..., Any]]:
    if inspect.iscoroutinefunction(function):
        return AsyncTask
    if inspect.isasyncgenfunction(function):
        return AsyncStreamTask
    return StreamTask if inspect.isgeneratorfunction(function) else SyncTask


def _checked(
    function: Callable[..., Any],
    *,
    bind: bool,
    name: str | None = None,
    queue: str = DEFAULT_QUEUE,
    priority: int = DEFAULT_LEVEL,
    timeout: float | None = None,
    hard_timeout: float | None = None,
    pool: Literal["process"] | None = None,
    retry: Retry | int | None = None,
    retry_on: tuple[type[BaseException], ...] | None = None,
    discard_on: tuple[type[BaseException], ...] = (),
    expires: float | datetime | None = None,
    raises: tuple[type[BaseException], ...] = (),
    rate_limit: str | None = None,
    concurrency: int | None = None,
    limits: Sequence[Limit] = (),
    ordering_key: Of | None = None,
    fairness_key: Of | None = None,
    unique: By | None = None,
    debounce: By | None = None,
    throttle: By | None = None,
    schedule: Rule | Iterable[Rule] | None = None,
    missed: Missed = "one",
) -> TaskOptions:
    name = name or default_name(function)
    options = TaskOptions(
        name=name,
        queue=queue,
        priority=check_priority(priority),
        timeout=timeout,
        hard_timeout=hard_timeout,
        pool=pool,
        retry=make_policy(retry, retry_on, discard_on),
        expires=expires,
        raises=tuple(raises),
        only_one=choose(unique, debounce, throttle),
        schedule=check_schedule(schedule),
        missed=check_missed(missed),
        turns=Turns(name, limits_of_task(name, rate_limit, concurrency, limits), ordering_key, fairness_key),
        bind=bind,
    )
    _check(options)
    return options


def _check(options: TaskOptions) -> None:
    if not options.name.isprintable() or any(character in ": *?[]{}" for character in options.name):
        raise ConfigError(f"task name {options.name!r} cannot be used: no spaces, ':', '*', '?', brackets or braces")
    for name in ("timeout", "hard_timeout"):
        value = getattr(options, name)
        if value is not None and not (is_number(value) and 0 < value <= _LONGEST_SECONDS):
            raise ConfigError(f"task {options.name}: {name} must be more than 0 seconds, at most a year, not {value!r}")
    if options.timeout is not None and options.hard_timeout is not None and options.timeout >= options.hard_timeout:
        raise ConfigError(f"task {options.name}: hard_timeout must be more than timeout")
    if options.pool not in (None, "process"):
        raise ConfigError(f"task {options.name}: pool must be 'process' or None, not {options.pool!r}")
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in options.raises):
        raise ConfigError(f"task {options.name}: raises must be exception classes, not {options.raises!r}")


def _check_schedule(task: Task[..., Any]) -> None:
    """Refuse a schedule of what cannot be called without arguments, or has a name that ids cannot have."""
    if task.options.schedule:
        try:
            call = Message("", task.name, task.queue, task.call_codec.encode((), {}), task.delay_ms)
        except TypeError as error:
            raise ConfigError(f"task {task.name}: a schedule calls it without arguments, but {error}") from None
        declared(task.name, task.options.schedule, task.options.missed, call)


shared_tasks = Registry()

task = TaskMaker(shared_tasks, None)
"""As ``@app.task``, for library code that has no app at hand: calls go through the app that was made last."""
