"""`Signature` and `Partial`: values of calls that have not been enqueued."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar, Unpack, cast

from streamq.broker.caller import Broker
from streamq.broker.producer import new_task_id
from streamq.errors import ConfigError, FlowError
from streamq.message import Message
from streamq.results import AsyncResult
from streamq.sending import SendOptions
from streamq.workflows.callers import Callee, Caller
from streamq.workflows.canvas import Canvas, Step
from streamq.workflows.edges import Ends, Heads
from streamq.workflows.graph import Drawn, Graph, Spot
from streamq.workflows.scope import over
from streamq.workflows.tails import Unknown, encode_whole, misfit, tail_of

A_contra = TypeVar("A_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Call(Step[A_contra, R_co]):
    """A call with its arguments encoded, or with those that follow the first ones.

    Args:
        caller: what is called, with the options that were chosen.
        args: by position.
        kwargs: by name.
        is_immutable: it takes no values from what is before it.
    """

    def __init__(
        self,
        caller: Caller,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        is_immutable: bool = False,
    ) -> None:
        self.caller = caller
        self.args = args
        self.kwargs = kwargs
        self.is_immutable = is_immutable

    @property
    def task(self) -> Callee:
        """What is called."""
        return self.caller.task

    @property
    def tail(self) -> bytes:
        """The arguments, encoded as what follows others."""
        raise NotImplementedError

    @property
    def message(self) -> Message:
        """The encoded form of the call by itself; without an id, unless one was chosen.

        Raises:
            TypeError: an argument is missing.
        """
        raise NotImplementedError

    def set(self, **options: Unpack[SendOptions]) -> Self:
        """Choose options, as `streamq.tasks.Task.using` takes them; those that were chosen before stay.

        Raises:
            ConfigError: one of them cannot be used.
        """
        return self._calling(self.caller.choosing(over(self.caller.chosen, options)))

    def _calling(self, caller: Caller) -> Self:
        return self._with(caller=caller)

    def completed(self, leading: tuple[Any, ...]) -> Signature[R_co]:
        """Make the call with more arguments before its own.

        Raises:
            TypeError: the function does not take these arguments.
            PayloadError: they cannot be encoded, or are too large.
        """
        if self.is_immutable:
            raise TypeError(f"{self.task.name}() is immutable: it takes no more arguments")
        codec, args = self.task.call_codec, (*leading, *self.args)
        if (why := misfit(codec, 0, args, self.kwargs)) is not None:
            raise TypeError(why)
        whole = encode_whole(codec, leading, self.tail)
        message = self.caller.message_of(self.caller.task_id or "", whole, args, self.kwargs)
        made: Signature[R_co] = Signature(self.caller, message, args, self.kwargs)
        made.successes, made.errors = self.successes, self.errors
        return made

    # ---- the flow

    def _chosen_of_all(self) -> SendOptions:
        return self.caller.chosen

    def _choosing_only(self, options: SendOptions) -> Self:
        return self._calling(self.caller.choosing(options))

    @property
    def is_single(self) -> bool:
        """It has no callbacks."""
        return not self.successes and not self.errors

    def _draw(self, graph: Graph, spot: Spot) -> Drawn[Heads]:
        yield from ()
        return self.draw_node(graph, spot)

    def draw_node(self, graph: Graph, spot: Spot) -> Heads:
        """Draw its node alone.

        Raises:
            FlowError: the function does not take the values from before, or it cannot be a part of a flow.
            PayloadTooLarge: its arguments are over the limit.
        """
        caller = graph.caller_in(self.caller, spot.scope)
        leading = 0 if self.is_immutable else len(spot.before.inputs)
        graph.check(caller)
        why = graph.misfit(self.task.call_codec, leading, self.args, self.kwargs)
        if why is not None:
            hint = "; .si() takes no value from what is before it" if "too many" in why and leading else ""
            raise FlowError(why + hint)
        if caller is self.caller and not leading:
            message = self.message
        else:
            encoded = self.tail if leading else self.message.args
            try:
                message = caller.message_of("", encoded, self.args, self.kwargs, leading)
            except Unknown as unknown:
                raise FlowError(
                    f"{self.task.name}(): its keys or limits are taken from {unknown.args[0]!r}, which is not known"
                    " before the task runs whose value it is"
                ) from None
        return graph.task(caller, message, spot, has_inputs=leading > 0)

    def ends_at(self, out: int) -> Ends:
        """Give its own node."""
        return Ends((out,), is_known=True)

    def first(self, common: SendOptions) -> Caller | None:
        """Give what it calls, with all options."""
        return self.caller.choosing(over(common, self.caller.chosen)) if common else self.caller

    def _parts(self) -> tuple[()]:
        return ()

    def last(self) -> Callee | None:
        """Give the task that it calls."""
        return self.task

    def label(self) -> str:
        """Name it for people."""
        return self.task.name.rpartition(".")[2]

    def __repr__(self) -> str:
        return f"<{'partial ' if isinstance(self, Partial) else ''}call of {self.task.name}>"


class Signature(Call[Any, R_co], Canvas[R_co], Generic[R_co]):
    """A call that has not been enqueued, and lacks no argument; made by ``task.s(...)`` and ``task.si(...)``.

    Attributes:
        task: what is called.
        message: its encoded form; without an id, unless the caller has chosen one: each enqueue makes a new one.
    """

    def __init__(
        self,
        caller: Caller,
        message: Message,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        is_immutable: bool = False,
    ) -> None:
        super().__init__(caller, args, kwargs, is_immutable=is_immutable)
        self._message = message

    @property
    def message(self) -> Message:
        """Its encoded form."""
        return self._message

    @property
    def tail(self) -> bytes:
        """The arguments, encoded as what follows others."""
        return tail_of(self._message.args, len(self.args))

    def _calling(self, caller: Caller) -> Self:
        message = caller.message_of(caller.task_id or "", self._message.args, self.args, self.kwargs)
        return self._with(caller=caller, _message=message)

    def delay(self, *leading: Any) -> AsyncResult[R_co]:
        """Enqueue it, with these arguments before its own, if there are any; see `streamq.sender.Sender.delay`.

        With callbacks it is a flow, and what is returned a `streamq.FlowResult`, which type checkers do not know: the
        other methods of an `AsyncResult` that they know of are not there then.

        Raises:
            TypeError: the function does not take these arguments.
            PayloadError: they cannot be encoded, or are too large.
            BrokerError: as for an enqueue.
        """
        if not self.is_single:
            return cast("AsyncResult[R_co]", self._after(leading).enqueue_whole())
        return self.caller.send(self._alone(leading))

    async def adelay(self, *leading: Any) -> AsyncResult[R_co]:
        """Enqueue it, as `delay` does."""
        if not self.is_single:
            return cast("AsyncResult[R_co]", await self._after(leading).aenqueue_whole())
        return await self.caller.asend(self._alone(leading))

    def _alone(self, leading: tuple[Any, ...]) -> Message:
        message = self.completed(leading).message if leading else self.message
        return message if message.id else message._replace(id=new_task_id())

    def _after(self, leading: tuple[Any, ...]) -> Signature[R_co]:
        return self.completed(leading) if leading else self

    def to_message(self) -> Message:
        """Make the message of one enqueue.

        Raises:
            FlowError: it has callbacks: only ``delay()`` can enqueue them.
            ConfigError: it has a durability: that belongs to the enqueue.
        """
        self.check_single()
        message = self._message
        return message if message.id else Message(new_task_id(), *message[1:])

    def check_single(self) -> None:
        """See that it can be enqueued together with others, or by a schedule.

        Raises:
            FlowError: it has callbacks.
            ConfigError: it has a durability.
        """
        if not self.is_single:
            raise FlowError(f"{self!r} has callbacks: enqueue it with its delay(), or in a chain or group")
        if self.caller.durability is not None:
            raise ConfigError(f"{self!r} has a durability: that belongs to the enqueue, as in enqueue_many(...)")

    def to_result(self, message: Message, broker: Broker, there: str | None = None) -> AsyncResult[R_co]:
        """Make the result of one enqueue; `there`: the id of the task that is there in its place, if one is."""
        task = self.task
        result: AsyncResult[R_co] = AsyncResult(
            message.id, message.queue, broker, task.result_codec, task.options.raises
        )
        return result if there is None else result.of_another(there, is_chosen=self._message.id != "")


class Partial(Call[A_contra, R_co]):
    """A call that has not been enqueued, and lacks its first arguments; made by ``task.s(...)``.

    In a chain they are the values of what is before it; ``delay(first)`` gives them by hand.
    """

    def __init__(self, caller: Caller, args: tuple[Any, ...], kwargs: Mapping[str, Any], tail: bytes) -> None:
        super().__init__(caller, args, kwargs)
        self._tail = tail

    @property
    def message(self) -> Message:
        """It has none.

        Raises:
            TypeError: always; it says what is missing.
        """
        why = misfit(self.task.call_codec, 0, self.args, self.kwargs)
        raise TypeError(f"{why}: this call is partial, it can only be enqueued where the value comes from before it")

    @property
    def tail(self) -> bytes:
        """The arguments, encoded as what follows others."""
        return self._tail

    def delay(self, first: A_contra, *more: Any) -> AsyncResult[R_co]:
        """Enqueue it, with these arguments before its own; see `streamq.sender.Sender.delay`.

        Raises:
            TypeError: the function does not take these arguments.
            PayloadError: they cannot be encoded, or are too large.
            BrokerError: as for an enqueue.
        """
        return self.completed((first, *more)).delay()

    async def adelay(self, first: A_contra, *more: Any) -> AsyncResult[R_co]:
        """Enqueue it, as `delay` does."""
        return await self.completed((first, *more)).adelay()

    def to_message(self) -> Message:
        """It cannot be enqueued by itself.

        Raises:
            TypeError: always; it says what is missing.
        """
        return self.message
