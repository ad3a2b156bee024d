"""Handles a message that may want an answer, and sends that."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic_core import from_json

from streamq.agent.handlers import Handler
from streamq.agent.running import Runner, persist
from streamq.channels.channel import Channel
from streamq.channels.envelope import Envelope
from streamq.codec import encode_error
from streamq.errors import BrokerError, ChannelError, ConfigError, PayloadError, StreamqError, WorkerDied

_log = logging.getLogger("streamq.agents")

MOST_DELIVERIES = 4  # the process has died under a message three times then
REPLY, ERROR = "reply", "error"
_MOST_TEXT = 8 * 1024  # characters of an error's message, and of its traceback

ChannelOf = Callable[[str], Channel[Any]]


class Answering:
    """Has messages handled, and answers those who ask.

    Args:
        agent: its name.
        runner: runs the handlers.
        reply_channel: gives the channel of replies of a name.
        server_ms: gives the time of Redis, ms.
    """

    def __init__(self, agent: str, runner: Runner, reply_channel: ChannelOf, server_ms: Callable[[], float]) -> None:
        self.runner = runner
        self._agent = agent
        self._channel = reply_channel
        self._server_ms = server_ms

    async def answer(
        self, message: Envelope[Any], handler: Handler | None, payload: Any, what: str
    ) -> Exception | None:
        """Handle a message and send the answer, if one is wanted.

        Returns:
            Why it could not be handled; None: it was.
        """
        try:
            value = await self._handled(message, handler, payload, what)
            await self._send(message, REPLY, value)
        except Exception as error:  # noqa: BLE001 - the user's, or what becomes of what it returns
            is_ours = isinstance(error, StreamqError)
            _log.error(
                "agent %s: %s of %s failed%s",
                self._agent,
                what,
                message.sender,
                f": {error}" if is_ours else "",
                exc_info=None if is_ours else error,
            )
            await self._send_error(message, error)
            return error
        return None

    async def _handled(self, message: Envelope[Any], handler: Handler | None, payload: Any, what: str) -> Any:
        if message.deliveries > MOST_DELIVERIES:
            raise WorkerDied(f"{what} was dropped: it was handed over {message.deliveries - 1} times before, in vain")
        if handler is None:
            raise ChannelError(f"agent {self._agent} has no handler for {what}")
        try:
            argument = handler.argument(message, payload)
        except ValueError as error:
            raise ChannelError(f"agent {self._agent}: {what} does not fit: {error}") from None
        return await self.runner.call(handler.function, argument)

    def is_late(self, message: Envelope[Any]) -> bool:
        """Tell whether nobody waits for the answer any more, by the clock of Redis alone."""
        if message.expires_ms is None or message.entry is None:
            return False
        age_ms = self._server_ms() - int(message.entry.partition("-")[0])
        return age_ms > message.expires_ms - message.time_ms

    async def _send_error(self, message: Envelope[Any], error: Exception) -> None:
        stored = from_json(encode_error(error))
        said = {
            "type": stored["type"],
            "message": stored["message"][:_MOST_TEXT],
            "traceback": stored["traceback"][-_MOST_TEXT:],
        }
        try:
            await self._send(message, ERROR, said)
        except (BrokerError, PayloadError, ConfigError) as failure:
            _log.error("agent %s could not answer %s: %s", self._agent, message.sender, failure)

    async def _send(self, message: Envelope[Any], kind: str, payload: Any) -> None:
        if message.reply_to is None:
            return
        channel = self._channel(message.reply_to)
        correlation = message.correlation_id or message.id

        def publish() -> Awaitable[object]:
            return channel.publish(payload, type=kind, correlation_id=correlation)

        await persist(publish)  # who has it twice takes the first
