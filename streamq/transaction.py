"""`Transaction`: several calls that are enqueued together, all or none."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self, TypeVar

from streamq.broker.caller import Broker
from streamq.config import Durability
from streamq.errors import BrokerUnavailable, PayloadError, PayloadTooLarge
from streamq.message import Message
from streamq.results import AsyncResult
from streamq.workflows.signature import Signature

R = TypeVar("R")

# Redis does nothing else while the script runs: some ms for so many messages.
MOST_MESSAGES = 1000
MOST_BYTES = 8 * 1024 * 1024


class Transaction:
    """Collects calls and enqueues them all, in one step, when its block is left without an error.

    Made by ``app.transaction()``, for ``with`` and for ``async with``. With an error nothing is sent. Calls may be of
    different tasks and queues; in a Redis Cluster all queues must lie in one slot.

    Args:
        broker: where the calls go.
        durability: what the end of the block waits for; None: what the app says.

    Raises:
        BrokerError: from the end of the block. Nothing was enqueued, except after `NotDurable`, when all calls were,
            and after `BrokerUnavailable`: then it is not known whether all were or none. Sending calls with ids of
            their own again is safe.
    """

    def __init__(self, broker: Broker, durability: Durability | None = None) -> None:
        self._broker = broker
        self._durability = durability
        self._messages: list[Message] = []
        self._results: list[tuple[AsyncResult[Any], bool]] = []  # each with whether the caller chose its id
        self._bytes = 0
        self._is_open = False

    def enqueue(self, signature: Signature[R]) -> AsyncResult[R]:
        """Add a call; it is sent at the end of the block.

        Args:
            signature: the call, such as ``add.s(2, 3)`` or ``mail.using(queue="mails").s("x")``. One with an id that
                is known already is left alone, as ever.

        Returns:
            Its result. Until the block has ended the task is unknown, and `get` raises `UnknownTaskId`. If it was
            enqueued already, the end of the block sets ``duplicate``, and has this be the result of the first.

        Raises:
            PayloadTooLarge: there would be over 1,000 calls in the transaction, or over 8 MiB of arguments. Unless it
                is caught in the block, nothing is sent.
            PayloadError: the block has not begun, or has ended.
        """
        if not self._is_open:
            raise PayloadError("a transaction takes calls only inside its block: with app.transaction() as batch: ...")
        message = signature.to_message()
        count, size = len(self._messages) + 1, self._bytes + len(message.args)
        if count > MOST_MESSAGES:
            raise PayloadTooLarge(f"{message.task}(): a transaction takes at most {MOST_MESSAGES} calls")
        if size > MOST_BYTES:
            raise PayloadTooLarge(
                f"{message.task}(): with these arguments a transaction has {size} bytes, over the limit of {MOST_BYTES}"
            )
        self._messages.append(message)
        self._bytes = size
        result = signature.to_result(message, self._broker)
        self._results.append((result, signature.message.id != ""))
        return result

    def _begin(self) -> Self:
        if self._is_open:
            raise PayloadError("this transaction has begun already; make another with app.transaction()")
        self._is_open = True
        self._results = []
        return self

    def _end(self, error: BaseException | None) -> list[Message]:
        """Close the block; returns what there is to send."""
        messages = [] if error else self._messages
        self._messages, self._bytes, self._is_open = [], 0, False
        return messages

    def _tell(self, there: dict[int, str]) -> None:
        """Have results be those of the tasks that are there in place of theirs."""
        for position, task_id in there.items():
            result, is_chosen = self._results[position]
            result.of_another(task_id, is_chosen=is_chosen)

    def __enter__(self) -> Self:
        return self._begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if messages := self._end(error):
            try:
                self._tell(self._broker.enqueue_all(messages, self._durability))
            except BrokerUnavailable as away:
                raise _in_doubt(away, messages) from away.__cause__

    async def __aenter__(self) -> Self:
        return self._begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if messages := self._end(error):
            try:
                self._tell(await self._broker.aenqueue_all(messages, self._durability))
            except BrokerUnavailable as away:
                raise _in_doubt(away, messages) from away.__cause__


def _in_doubt(error: BrokerUnavailable, messages: list[Message]) -> BrokerUnavailable:
    error.add_note(
        f"It is not known whether the transaction was enqueued: all of its {len(messages)} calls, or none. The first"
        f" is task {messages[0].id}; sending calls with the same ids again is safe."
    )
    return error
