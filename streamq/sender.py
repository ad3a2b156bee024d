"""`Sender`: enqueues calls of one task, with one choice of options, and makes values of calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from streamq.broker.caller import Broker
from streamq.broker.producer import new_task_id
from streamq.config import DEFAULT_LEVEL, Durability, check_durability, check_name, check_priority, check_task_id
from streamq.errors import BrokerError, BrokerUnavailable, ConfigError, NotDurable, PayloadTooLarge
from streamq.message import Message, Terms
from streamq.picking import lock_of
from streamq.results import AsyncResult
from streamq.sending import SendOptions, check_headers, delay_of, expiry_of
from streamq.uniqueness import By, choose
from streamq.workflows.callers import Callee
from streamq.workflows.scope import over
from streamq.workflows.signature import Partial, Signature
from streamq.workflows.tails import Known, encode_tail, takes_more

P = ParamSpec("P")
Q = ParamSpec("Q")
A = TypeVar("A")
R = TypeVar("R")
A_contra = TypeVar("A_contra", contravariant=True)


def _in_doubt(error: BrokerError, message: Message) -> BrokerError:
    if isinstance(error, NotDurable):
        known = ", or the one that it is a duplicate of, is in Redis" if message.terms else " is in Redis"
    else:
        known = " may have been enqueued or not"
    error.add_note(f"Task {message.id}{known}; sending it again with using(task_id={message.id!r}) is safe.")
    return error


class Takes(Protocol[A_contra, Q, R]):
    """What takes a first argument, and others: type checkers find out which from this form of `Sender.delay`."""

    def delay(  # noqa: D102 - see above
        self, first: A_contra, /, *args: Q.args, **kwargs: Q.kwargs
    ) -> AsyncResult[R]: ...


class Sender(Generic[P, R]):
    """Enqueues calls of one task, with one choice of queue, id, delay and durability."""

    def __init__(
        self,
        task: Callee,
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
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.task = task
        self.chosen = over(
            {},
            {
                "queue": queue,
                "task_id": task_id,
                "countdown": countdown,
                "eta": eta,
                "expires": expires,
                "durability": durability,
                "priority": priority,
                "ordering_key": ordering_key,
                "fairness_key": fairness_key,
                "unique": unique,
                "debounce": debounce,
                "throttle": throttle,
                "headers": headers,
            },
        )
        self.queue = check_name("queue", task.options.queue if queue is None else queue)
        self.task_id = None if task_id is None else check_task_id(task_id)
        self.delay_ms = delay_of(countdown, eta)
        expiry = expiry_of(task.options.expires if expires is None else expires)
        self.durability = None if durability is None else check_durability(durability)
        self.level = check_priority(task.options.priority if priority is None else priority)
        level = None if self.level == DEFAULT_LEVEL else self.level
        self.steering = replace(expiry, level=level, headers=check_headers(headers))
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
        # As `send` does: there is to be little on the way of each call.
        broker, message = self.task.broker, self._message(self.task_id or new_task_id(), args, kwargs)
        try:
            there = broker.enqueue(message, self.durability)
        except (BrokerUnavailable, NotDurable) as error:
            raise _in_doubt(error, message) from error.__cause__
        task = self.task
        result: AsyncResult[R] = AsyncResult(message.id, message.queue, broker, task.result_codec, task.options.raises)
        return result if there is None else result.of_another(there, is_chosen=self.task_id is not None)

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Enqueue a call with these arguments, as `delay` does."""
        return await self.asend(self._message(self.task_id or new_task_id(), args, kwargs))

    @overload  # where all arguments could be there, they are
    def s(  # type: ignore[overload-overlap]
        self, *args: P.args, **kwargs: P.kwargs
    ) -> Signature[R]: ...
    @overload
    def s(self: Takes[A, Q, R], *args: Q.args, **kwargs: Q.kwargs) -> Partial[A, R]: ...
    def s(self, *args: Any, **kwargs: Any) -> Any:
        """Make a value of a call, to be enqueued later; its arguments are encoded now.

        The first arguments may be missing: then it goes where they come from what is before it, as in a chain.

        Raises:
            TypeError: the function does not take these arguments.
            PayloadError: they cannot be encoded, or are too large.
            ConfigError: a durability was chosen; it belongs to the enqueue: ``enqueue_many(..., durability=...)``.
        """
        self._check_no_durability()
        codec = self.task.call_codec
        try:
            encoded = codec.encode(args, kwargs)
        except TypeError:
            if not takes_more(codec, args, kwargs):
                raise
            tail = encode_tail(codec, args, kwargs)
            self._check_size(tail)
            return Partial(self, args, kwargs, tail)
        message = self.message_of(self.task_id or "", encoded, args, kwargs)
        return Signature(self, message, args, kwargs)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """Make a value of a call as `s` does, which takes no values from what is before it in a chain or graph."""
        self._check_no_durability()
        message = self._message(self.task_id or "", args, kwargs)
        return Signature(self, message, args, kwargs, is_immutable=True)

    def _check_no_durability(self) -> None:
        if self.durability is not None:
            raise ConfigError("a signature has no durability: give it to enqueue_many(..., durability=...)")

    # ---- for signatures

    def choosing(self, options: SendOptions) -> Sender[..., R]:
        """Make one with all of these options, and no others."""
        return Sender(self.task, **options)

    def send(self, message: Message) -> AsyncResult[R]:
        """Enqueue a message of this caller's, as `delay` does."""
        broker = self.task.broker
        try:
            there = broker.enqueue(message, self.durability)
        except (BrokerUnavailable, NotDurable) as error:
            raise _in_doubt(error, message) from error.__cause__
        return self._result(broker, message, there)

    async def asend(self, message: Message) -> AsyncResult[R]:
        """Enqueue a message of this caller's, as `delay` does."""
        broker = self.task.broker
        try:
            there = await broker.aenqueue(message, self.durability)
        except (BrokerUnavailable, NotDurable) as error:
            raise _in_doubt(error, message) from error.__cause__
        return self._result(broker, message, there)

    def _result(self, broker: Broker, message: Message, there: str | None) -> AsyncResult[R]:
        task = self.task
        result: AsyncResult[R] = AsyncResult(message.id, message.queue, broker, task.result_codec, task.options.raises)
        return result if there is None else result.of_another(there, is_chosen=self.task_id is not None)

    def _message(self, task_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Message:
        task = self.task
        encoded = task.call_codec.encode(args, kwargs)
        if self.is_steered or len(encoded) > task.broker.settings.max_payload:
            return self.message_of(task_id, encoded, args, kwargs)
        return Message(task_id, task.name, self.queue, encoded, self.delay_ms, self.plain_options)

    def _check_size(self, encoded: bytes) -> None:
        limit = self.task.broker.settings.max_payload
        if len(encoded) > limit:
            raise PayloadTooLarge(
                f"{self.task.name}(): the arguments have {len(encoded)} bytes, over the limit of {limit} (max_payload)"
            )

    def message_of(
        self, task_id: str, encoded: bytes, args: tuple[Any, ...], kwargs: Mapping[str, Any], leading: int = 0
    ) -> Message:
        """Make a message of arguments that are encoded; so many others come before them.

        Raises:
            PayloadTooLarge: they are over the limit.
            Unknown: what its turns are taken from is among the others.
        """
        task = self.task
        self._check_size(encoded)
        if not self.is_steered:
            return Message(task_id, task.name, self.queue, encoded, self.delay_ms, self.plain_options)
        codec = task.call_codec
        arguments = Known(codec, leading, args, kwargs) if leading else codec.named(args, kwargs)
        lock = None if self.only_one is None else lock_of(self.only_one, task.name, arguments)
        weights = task.broker.settings.fairness_weights
        steering, terms = self.turns.of_call(arguments, self.steering, Terms(lock), weights)
        return Message(task_id, task.name, self.queue, encoded, self.delay_ms, steering.encode(), terms)
