"""The replies to one instance of an agent, and who waits for them."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from streamq.agent.answering import ERROR
from streamq.agent.payloads import Read
from streamq.agent.service import Service
from streamq.channels.channel import Channel
from streamq.channels.envelope import Envelope
from streamq.channels.gaps import Gap
from streamq.errors import ChannelError, RemoteError

_log = logging.getLogger("streamq.agents")


class Replies(Service):
    """Hands replies to those who wait, by their correlation ids. What is missed is read from the channel's log.

    Args:
        channel: of the replies of this instance.
        instance: its name.
    """

    def __init__(self, channel: Channel[Any], instance: str) -> None:
        super().__init__(channel.listen())
        self.address = channel.name
        self._instance = instance
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[Envelope[Any]]] = {}

    @contextmanager
    def expected(self) -> Iterator[tuple[str, asyncio.Future[Envelope[Any]]]]:
        """Give a correlation id, and the future of the first reply with it."""
        correlation = f"{self._instance}-{next(self._numbers)}"
        future = self._waiting[correlation] = asyncio.get_running_loop().create_future()
        try:
            yield correlation, future
        finally:
            del self._waiting[correlation]
            if future.done() and not future.cancelled():
                future.exception()  # has been looked at

    async def _until_ready(self) -> None:
        pass  # what comes is passed on at once

    async def _take(self, item: Envelope[Any] | Gap) -> None:
        if isinstance(item, Gap):
            _log.warning("replies are missing: %s", item)
            return
        future = self._waiting.get(item.correlation_id or "")
        if future is None or future.done():
            _log.debug("a reply of %s came too late, or twice", item.sender)
            return
        future.set_result(item)

    def finish(self) -> None:
        """Take nothing more; those who wait are told."""
        super().finish()
        self.fail(ChannelError("the agent has been stopped, and waits for no reply"))

    def fail(self, error: Exception) -> None:
        """Tell those who wait that nothing will come."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)


def value_of(reply: Envelope[Any], read: Read) -> Any:
    """Give what a reply holds.

    Raises:
        RemoteError: it says that the handler raised.
        ChannelError: it is not of the type that is expected.
    """
    if reply.type == ERROR and isinstance(reply.payload, dict):
        said = (str(reply.payload.get(name, "")) for name in ("type", "message", "traceback"))
        raise RemoteError(reply.sender, *said)
    try:
        return read(reply.payload)
    except ValueError as error:
        raise ChannelError(f"the reply of agent {reply.sender} does not fit: {error}") from None
