"""`Task`: a function that can be enqueued.

The module is not called ``task``, because ``streamq.task`` is the decorator.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, cast

from streamq.broker.caller import Broker
from streamq.broker.producer import new_task_id
from streamq.broker.turns import weighed_stake
from streamq.checks import is_whole
from streamq.codec import CallCodec, ResultCodec
from streamq.context import context_of
from streamq.errors import ConfigError
from streamq.generators import driven, result_codec
from streamq.latest import LatestBroker
from streamq.message import Delivery, Message
from streamq.options import TaskOptions
from streamq.results import AsyncResult
from streamq.sender import Sender, Takes
from streamq.sending import SendOptions
from streamq.streams import Yields
from streamq.workflows.canvas import Step
from streamq.workflows.group import Group, group
from streamq.workflows.items import KINDS, ItemsCodec, ItemsResultCodec, Kind, run_over_items
from streamq.workflows.signature import Signature

P = ParamSpec("P")
Q = ParamSpec("Q")
A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")

Callbacks = Step[Any, Any] | Iterable[Step[Any, Any]] | None


class Task(Sender[P, R]):
    """A function that can be enqueued. Made by ``@app.task``.

    Attributes:
        name: the registered name.
        function: the function itself.
        run: what a worker calls: the function; one that yields is run to its end, and emits what it yields.
        options: what the decorator said.
        is_async: the function is an ``async def``.
        is_limited: a run may take only so long.
        broker: where its calls go: through its app, or through the one that was made last.
    """

    broker: Broker = cast("Broker", LatestBroker())

    def __init__(self, function: Callable[..., Any], options: TaskOptions, broker: Broker | None) -> None:
        functools.update_wrapper(cast("Any", self), function)
        self.options = options
        self.call_codec, self.result_codec = self._codecs(options.name, function)
        super().__init__(self)
        self.name = options.name
        self.function = function
        self.run = driven(function)
        self.is_async = inspect.iscoroutinefunction(self.run)
        self.is_limited = options.timeout is not None or options.hard_timeout is not None
        if broker is not None:
            self.broker = broker

    def _codecs(self, name: str, function: Callable[..., Any]) -> tuple[CallCodec, ResultCodec]:
        return CallCodec(name, function, bind=self.options.bind), result_codec(name, function)

    def using(self, **options: Unpack[SendOptions]) -> Sender[P, R]:
        """Choose options for calls, keeping the types of the arguments.

        Args:
            options: as follows.
            queue: another queue than the task's own.
            task_id: an id of your own; as long as its record lives, enqueueing it again does nothing.
            countdown: seconds to wait before a worker may have it, up to a century.
            eta: the moment from which on a worker may have it, as a datetime with its time zone; one that has passed
                means now. It is compared with the clock of Redis, to which the wait of a countdown is added as well.
            expires: seconds from the enqueue on, or the moment as a datetime with its time zone, after which no run
                begins any more, be it the first or a retry: when a worker comes to it, the task ends as ``expired``.
                What has begun goes on. In place of what the task says; by the clock of Redis.
            durability: what the enqueue waits for, in place of what the app says: ``async`` for Redis itself,
                ``replica`` for one of its replicas, ``fsync`` for its disk.
            priority: another level than the task's own, 0 to 9; in its queue, larger ones come first.
            ordering_key: calls of a queue with the same key run one after another, in the order of their enqueueing;
                they can have no countdown, eta or debounce.
            fairness_key: calls of a queue with different keys take turns. One that is to come later waits for its
                time, and then for no turn.
            unique: in place of what the task says: of which calls there is to be only one; see `streamq.uniqueness.by`.
            debounce: the same, for calls of which the last is to run.
            throttle: the same, for calls of which the first is to run.
            headers: texts by name, at most 8 KiB of them, which a run finds in its ``context.headers``.

        Raises:
            ConfigError: one of them cannot be used.
        """
        return Sender(self, **options)

    def apply_async(
        self,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        link: Callbacks = None,
        link_error: Callbacks = None,
        **options: Unpack[SendOptions],
    ) -> AsyncResult[R]:
        """Enqueue a call in Celery's form: ``using(...).delay(*args, **kwargs)`` without the types.

        With callbacks, which are one signature or several, it is a flow, and what comes back its `FlowResult`.
        """
        if link is not None or link_error is not None:
            return self._linked(args, kwargs or {}, link, link_error, options).delay()
        return cast("Sender[..., R]", self.using(**options)).delay(*args, **(kwargs or {}))

    async def aapply_async(
        self,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        link: Callbacks = None,
        link_error: Callbacks = None,
        **options: Unpack[SendOptions],
    ) -> AsyncResult[R]:
        """Enqueue a call in Celery's form, as `apply_async` does."""
        if link is not None or link_error is not None:
            return await self._linked(args, kwargs or {}, link, link_error, options).adelay()
        return await cast("Sender[..., R]", self.using(**options)).adelay(*args, **(kwargs or {}))

    def _linked(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        link: Callbacks,
        link_error: Callbacks,
        options: SendOptions,
    ) -> Signature[R]:
        call: Signature[R] = cast("Task[..., Any]", self).s(*args, **kwargs).set(**options)
        for callback in (link,) if isinstance(link, Step) else link or ():
            call.link(callback)
        for callback in (link_error,) if isinstance(link_error, Step) else link_error or ():
            call.link_error(callback)
        return call

    def map(self: Takes[A, Q, R], items: Iterable[A]) -> Signature[list[R]]:
        """Make one call that runs the function with each item, in order, and returns the list of what it returned.

        It has the options of the task, with its ``timeout`` for the whole; what is before it in a chain does not change
        it. If a run fails, all have failed, and are run again if the task is to be tried again.

        Raises:
            TypeError: the function does not take one of the items as its only argument.
            PayloadError: the items cannot be encoded, or are too large together; see `chunks`.
            ConfigError: the task yields, or has options that are about the arguments of single calls.
        """
        return cast("Task[..., R]", self).over_items("map").si(items)

    def starmap(self, items: Iterable[Iterable[Any]]) -> Signature[list[R]]:
        """Make one call as `map` does, of which each item is the list of a run's arguments."""
        return self.over_items("starmap").si(items)

    def chunks(self: Takes[A, Q, R], items: Iterable[A], size: int) -> Group[list[R]]:
        """Make a group of calls as `map` makes them, for so many items each; the value is the list of their lists.

        Args:
            items: any number of them; what a generator makes is taken as it is sent, and can be sent once.
            size: how many go into one call; the last one has what is left.

        Raises:
            ConfigError: the size is no whole number of 1 or more; or as for `map`.
        """
        if not is_whole(size) or size < 1:
            raise ConfigError(f"chunks need a size that is a whole number of 1 or more, not {size!r}")
        companion = cast("Task[..., R]", self).over_items("map")
        if isinstance(items, Sequence):
            return group([companion.si(items[first : first + size]) for first in range(0, len(items), size)])
        source = iter(items)
        parts = iter(lambda: [*islice(source, size)], [])
        return group(companion.si(part) for part in parts)

    def over_items(self, kind: Kind) -> Task[[Iterable[Any]], list[R]]:
        """Give what runs the function over many items.

        Raises:
            ConfigError: the task yields, or has options that are about the arguments of single calls.
        """
        if (why := self._why_only_single()) is not None:
            raise ConfigError(f"task {self.name}: there is no {kind}() of it, because {why}")
        return self.companions[kind]

    def _why_only_single(self) -> str | None:
        options = self.options
        if isinstance(self, (StreamTask, AsyncStreamTask)):
            return "it yields"
        if options.only_one is not None:
            return f"it is {options.only_one.name}"
        if options.turns.ordering_key is not None or any(limit.asks for limit in options.turns.limits):
            return "its ordering_key or a limit of it is taken from the arguments of a call"
        return None

    @functools.cached_property
    def companions(self) -> Mapping[Kind, Task[[Iterable[Any]], list[R]]]:
        """What runs the function over many items, by what an item is; named ``<task>:map`` and so on."""
        if self._why_only_single() is not None:
            return {}
        return {kind: _Companion(self, kind) for kind in KINDS}

    def settle_weight(self, delivery: Delivery, units: float, limit: str | None) -> bool:
        """Have a run count as `units` of a limit's rate; see `Context.settle`."""
        stake = weighed_stake(delivery, self.options.turns.limits, units, limit)
        return self.broker.settle_weight(delivery, stake, units)

    async def asettle_weight(self, delivery: Delivery, units: float, limit: str | None) -> bool:
        """Have a run count as `units` of a limit's rate; see `Context.settle`."""
        stake = weighed_stake(delivery, self.options.turns.limits, units, limit)
        return await self.broker.asettle_weight(delivery, stake, units)

    def _call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call the function here and now; a bound one gets a context that was never delivered."""
        if self.options.bind:
            message = Message(new_task_id(), self.name, self.queue, b"")
            here = Delivery(message, "", b"", fence=-1, enqueued_ms=time.time_ns() // 1_000_000)
            args = (context_of(here, None), *args)
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name}>"


class _Companion(Task[[Iterable[Any]], list[R]]):
    """Runs the function of a task over many items."""

    def __init__(self, task: Task[..., R], kind: Kind) -> None:
        self._one = task
        self._kind = kind
        options = replace(task.options, name=f"{task.name}:{kind}", schedule=())
        options = replace(options, turns=replace(options.turns, fairness_key=None))
        super().__init__(run_over_items(task.function, is_async=task.is_async), options, vars(task).get("broker"))

    def _codecs(self, name: str, _function: Callable[..., Any]) -> tuple[CallCodec, ResultCodec]:
        return ItemsCodec(name, self._one.call_codec, self._kind), ItemsResultCodec(name, self._one.function)


def find_task(tasks: Mapping[str, Task[..., Any]], name: str) -> Task[..., Any] | None:
    """Find what a message calls: a task, or what runs one over many items; None: there is no such task."""
    found = tasks.get(name)
    if found is not None or ":" not in name:
        return found
    base, _, kind = name.partition(":")
    task = tasks.get(base)
    return None if task is None or kind not in KINDS else task.companions.get(kind)


class SyncTask(Task[P, R]):
    """A task whose function is a plain ``def``; it runs in a thread."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here; nothing is enqueued."""
        return cast("R", self._call(args, kwargs))


class AsyncTask(Task[P, R]):
    """A task whose function is an ``async def``; it runs on the event loop."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call the function here; nothing is enqueued."""
        return cast("Coroutine[Any, Any, R]", self._call(args, kwargs))


class StreamTask(Task[P, Yields[T, R]], Generic[P, T, R]):
    """A task whose function is a generator; it runs in a thread, and what it yields is emitted."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Generator[T, Any, R]:
        """Call the function here, and get the generator; nothing is enqueued."""
        return cast("Generator[T, Any, R]", self._call(args, kwargs))


class AsyncStreamTask(Task[P, Yields[T, None]], Generic[P, T]):
    """A task whose function is an async generator; it runs on the event loop, and what it yields is emitted."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
        """Call the function here, and get the generator; nothing is enqueued."""
        return cast("AsyncGenerator[T, None]", self._call(args, kwargs))
