"""What calls need to know of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from streamq.broker.caller import Broker
from streamq.codec import CallCodec, ResultCodec
from streamq.config import Durability
from streamq.message import Message
from streamq.nodes import Stored
from streamq.options import TaskOptions
from streamq.results import AsyncResult
from streamq.sending import SendOptions
from streamq.uniqueness import OnlyOne


class Callee(Protocol):
    """A task, as far as calls of it need to know it."""

    name: str
    options: TaskOptions
    call_codec: CallCodec
    result_codec: ResultCodec

    @property
    def broker(self) -> Broker: ...  # noqa: D102


class Caller(Protocol):
    """A task with one choice of options."""

    queue: str
    task_id: str | None
    durability: Durability | None
    level: int
    only_one: OnlyOne | None
    chosen: SendOptions

    @property
    def task(self) -> Callee: ...  # noqa: D102

    def choosing(self, options: SendOptions) -> Caller:
        """Make one with all of these options, and no others."""

    def message_of(
        self, task_id: str, encoded: bytes, args: tuple[Any, ...], kwargs: Mapping[str, Any], leading: int = 0
    ) -> Message:
        """Make a message of arguments that are encoded; so many others come before them."""

    def send(self, message: Message) -> AsyncResult[Any]:
        """Enqueue a message of this caller's."""

    async def asend(self, message: Message) -> AsyncResult[Any]:
        """Enqueue a message of this caller's."""


class Starter(Protocol):
    """Starts flows."""

    def start_flow(self, graph: Stored, durability: Durability | None) -> bool: ...  # noqa: D102

    async def astart_flow(self, graph: Stored, durability: Durability | None) -> bool: ...  # noqa: D102
