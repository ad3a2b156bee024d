"""`Task`: a function that can be enqueued.

The module is not called ``task``, because ``streamq.task`` is the decorator.
"""

from __future__ import annotations

import functools
import inspect
import os
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, cast

from streamq.broker.caller import Broker
from streamq.broker.turns import weighed_stake
from streamq.codec import CallCodec
from streamq.config import DEFAULT_LEVEL, Durability, check_durability, check_name, check_priority, check_task_id
from streamq.context import context_of
from streamq.errors import BrokerError, BrokerUnavailable, ConfigError, NotDurable, PayloadTooLarge
from streamq.generators import driven, result_codec
from streamq.message import Delivery, Message, Terms
from streamq.options import TaskOptions
from streamq.picking import lock_of
from streamq.results import AsyncResult
from streamq.sending import SendOptions, delay_of, expiry_of
from streamq.streams import Yields
from streamq.uniqueness import By, choose

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def new_task_id() -> str:
    """Make a UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix time in ms, then 74 random bits."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


_current: list[Broker] = []


def make_current(broker: Broker) -> None:
    """Have the tasks that belong to no app go through this broker."""
    _current[:] = [broker]


def _current_broker() -> Broker:
    if not _current:
        raise ConfigError("there is no app yet: make a StreamQ(...) before tasks of streamq.task are enqueued")
    return _current[0]


def _in_doubt(error: BrokerError, message: Message) -> BrokerError:
    if isinstance(error, NotDurable):
        known = ", or the one that it is a duplicate of, is in Redis" if message.terms else " is in Redis"
    else:
        known = " may have been enqueued or not"
    error.add_note(f"Task {message.id}{known}; sending it again with using(task_id={message.id!r}) is safe.")
    return error


class Sender(Generic[P, R]):
    """Enqueues calls of one task, with one choice of queue, id, delay and durability."""

    def __init__(
        self,
        task: Task[P, R],
        *,
        queue: str | None = None,
        task_id: str | None = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        expires: float | datetime | None = None,
        durability: Durability | None = None,
        priority: int | None = None,
        ordering_key: str | None = None,
        fairness_key: str | None = None,
        unique: By | None = None,
        debounce: By | None = None,
        throttle: By | None = None,
    ) -> None:
        self.task = task
        self.queue = check_name("queue", task.options.queue if queue is None else queue)
        self.task_id = None if task_id is None else check_task_id(task_id)
        self.delay_ms = delay_of(countdown, eta)
        expiry = expiry_of(task.options.expires if expires is None else expires)
        self.durability = None if durability is None else check_durability(durability)
        level = check_priority(task.options.priority if priority is None else priority)
        self.steering = replace(expiry, level=None if level == DEFAULT_LEVEL else level)
        self.plain_options = self.steering.encode()
        self.only_one = choose(unique, debounce, throttle) or task.options.only_one
        if self.only_one is not None:
            self.delay_ms = self.only_one.check(task.options.name, task.call_codec.signature, self.delay_ms)
        self.turns = task.options.turns.chosen(ordering_key, fairness_key)
        self.turns.check(self.delay_ms)
        self.is_steered = self.turns.are_asked or self.only_one is not None

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Enqueue a call with these arguments.

        When it returns, the message is in Redis.

        Raises:
            TypeError: the function does not take these arguments.
            PayloadError: they cannot be encoded, or are too large. Nothing was sent.
            BrokerUnavailable: Redis did not answer; whether the message is there is not known. A note of the error
                says the id, with which sending again is safe.
            BrokerOutOfMemory: Redis is full. Nothing was enqueued.
            BrokerRefused: it cannot give the durability that was asked for. Nothing was enqueued.
            NotDurable: the message is in Redis, but has not been confirmed within 3 seconds to be as safe as was asked
                for. A note of the error says the id, with which sending again is safe.
        """
        task = self.task
        broker = task.broker
        message = self._message(broker, self.task_id or new_task_id(), args, kwargs)
        try:
            there = broker.enqueue(message, self.durability)
        except (BrokerUnavailable, NotDurable) as error:
            raise _in_doubt(error, message) from error.__cause__
        result: AsyncResult[R] = AsyncResult(message.id, message.queue, broker, task.result_codec, task.options.raises)
        return result if there is None else result.of_another(there, is_chosen=self.task_id is not None)

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Enqueue a call with these arguments, as `delay` does."""
        task = self.task
        broker = task.broker
        message = self._message(broker, self.task_id or new_task_id(), args, kwargs)
        try:
            there = await broker.aenqueue(message, self.durability)
        except (BrokerUnavailable, NotDurable) as error:
            raise _in_doubt(error, message) from error.__cause__
        result: AsyncResult[R] = AsyncResult(message.id, message.queue, broker, task.result_codec, task.options.raises)
        return result if there is None else result.of_another(there, is_chosen=self.task_id is not None)

    def s(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """Make a value of a call, to be enqueued later; its arguments are encoded now.

        Raises:
            TypeError: the function does not take these arguments.
            PayloadError: they cannot be encoded, or are too large.
            ConfigError: a durability was chosen; it belongs to the enqueue: ``enqueue_many(..., durability=...)``.
        """
        if self.durability is not None:
            raise ConfigError("a signature has no durability: give it to enqueue_many(..., durability=...)")
        message = self._message(self.task.broker, self.task_id or "", args, kwargs)
        return Signature(cast("Task[..., R]", self.task), message)

    def _message(self, broker: Broker, task_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Message:
        task = self.task
        encoded = task.call_codec.encode(args, kwargs)
        limit = broker.settings.max_payload
        if len(encoded) > limit:
            raise PayloadTooLarge(
                f"{task.name}(): the arguments have {len(encoded)} bytes, over the limit of {limit} (max_payload)"
            )
        if not self.is_steered:
            return Message(task_id, task.name, self.queue, encoded, self.delay_ms, self.plain_options)
        arguments = task.call_codec.named(args, kwargs)
        lock = None if self.only_one is None else lock_of(self.only_one, task.name, arguments)
        steering, terms = self.turns.of_call(arguments, self.steering, Terms(lock), broker.settings.fairness_weights)
        return Message(task_id, task.name, self.queue, encoded, self.delay_ms, steering.encode(), terms)


class Task(Sender[P, R]):
    """A function that can be enqueued. Made by ``@app.task``.

    Attributes:
        name: the registered name.
        function: the function itself.
        run: what a worker calls: the function; one that yields is run to its end, and emits what it yields.
        options: what the decorator said.
        is_async: the function is an ``async def``.
        is_limited: a run may take only so long.
    """

    def __init__(self, function: Callable[..., Any], options: TaskOptions, broker: Broker | None) -> None:
        functools.update_wrapper(cast("Any", self), function)
        self.options = options
        self.call_codec = CallCodec(options.name, function, bind=options.bind)
        super().__init__(self)
        self.name = options.name
        self.function = function
        self.run = driven(function)
        self.is_async = inspect.iscoroutinefunction(self.run)
        self.is_limited = options.timeout is not None or options.hard_timeout is not None
        self.result_codec = result_codec(options.name, function)
        self._broker = broker

    @property
    def broker(self) -> Broker:
        """Where calls of this task go: through its app, or through the current one."""
        return self._broker or _current_broker()

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

        Raises:
            ConfigError: one of them cannot be used.
        """
        return Sender(self, **options)

    def apply_async(
        self, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None, **options: Unpack[SendOptions]
    ) -> AsyncResult[R]:
        """Enqueue a call in Celery's form: ``using(...).delay(*args, **kwargs)`` without the types."""
        return cast("Sender[..., R]", self.using(**options)).delay(*args, **(kwargs or {}))

    async def aapply_async(
        self, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None, **options: Unpack[SendOptions]
    ) -> AsyncResult[R]:
        """Enqueue a call in Celery's form, as `apply_async` does."""
        return await cast("Sender[..., R]", self.using(**options)).adelay(*args, **(kwargs or {}))

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


@dataclass(frozen=True)
class Signature(Generic[R]):
    """A call that has not been enqueued.

    Attributes:
        task: what is called.
        message: its encoded form; without an id, unless the caller has chosen one: each enqueue makes a new one.
    """

    task: Task[..., R]
    message: Message

    def to_message(self) -> Message:
        """Make the message of one enqueue."""
        return self.message if self.message.id else Message(new_task_id(), *self.message[1:])

    def to_result(self, message: Message, broker: Broker, there: str | None = None) -> AsyncResult[R]:
        """Make the result of one enqueue; `there`: the id of the task that is there in its place, if one is."""
        task = self.task
        result: AsyncResult[R] = AsyncResult(message.id, message.queue, broker, task.result_codec, task.options.raises)
        return result if there is None else result.of_another(there, is_chosen=self.message.id != "")
