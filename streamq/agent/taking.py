"""The side of an assignment that does it: from a durable channel, or by a claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streamq.agent.answering import Answering
from streamq.agent.claims import Renewal, take
from streamq.agent.handlers import Handler, Handlers
from streamq.agent.running import persist
from streamq.channels.broadcast import Broadcast
from streamq.channels.channel import Channel
from streamq.channels.envelope import Envelope
from streamq.codec import text_of, type_name
from streamq.errors import BrokerError, StreamqError

CLAIM_SECONDS = 4.0
_AFTERWARDS_SECONDS = 5.0  # for which it is known that an assignment is done, after its time is over


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is told of an assignment that is done.

    Attributes:
        assignment: its id.
        agent: who has done it.
        ok: it has not failed.
        error: why it has.
    """

    assignment: str
    agent: str
    ok: bool
    error: str | None = None


def claim_name(assignment: str) -> str:
    """Name the claim of an assignment that was offered to all."""
    return f"assignment:{assignment}"


class Taking:
    """Does what is assigned.

    Args:
        broadcast: what channels of the app share.
        agent: its name.
        handlers: of the agent.
        answering: has them called, and sends the results.
        results: the channel on which all are told what is done.
    """

    def __init__(
        self, broadcast: Broadcast, agent: str, handlers: Handlers, answering: Answering, results: Channel[Any]
    ) -> None:
        self._broadcast = broadcast
        self._agent = agent
        self._handlers = handlers
        self._answering = answering
        self._results = results

    async def do(self, message: Envelope[Any], handler: Handler, payload: Any) -> None:
        """Do it, send the result to who has assigned it, and tell all."""
        failure = await self._answering.answer(message, handler, payload, f"assignment {message.type}")
        error = None if failure is None else f"{type_name(type(failure))}: {text_of(failure)}"[:1000]
        outcome = Outcome(message.correlation_id or message.id, self._agent, failure is None, error)
        try:
            await self._results.publish(outcome)
        except StreamqError:  # it is news: the result itself has been sent
            return

    async def take_durable(self, message: Envelope[Any], handler: Handler) -> None:
        """Do what came from a durable channel, unless its time was over before."""
        if not self._answering.is_late(message):
            await self.do(message, handler, message.payload)

    async def hear(self, message: Envelope[Any]) -> None:
        """Take what is offered to all, if this agent can and nobody else has it."""
        payload = message.payload
        if not isinstance(payload, dict) or not {"capability", "job"} <= payload.keys():
            return
        handler = self._handlers.of_job(message.type, payload["capability"])
        if handler is not None and message.correlation_id and not self._answering.runner.is_full:
            await self._answering.runner.start(self._claim(message, handler, payload["job"]))

    async def _claim(self, message: Envelope[Any], handler: Handler, payload: Any) -> None:
        name = claim_name(message.correlation_id or "")
        try:
            claim = await take(self._broadcast, name, self._agent, CLAIM_SECONDS)
        except BrokerError:  # it is offered again
            return
        if claim is None:
            return
        renewal = Renewal(self._broadcast, claim, CLAIM_SECONDS)
        self._broadcast.renewer.add(renewal)
        is_done = False
        try:
            await self.do(message, handler, payload)
            is_done = True
        finally:
            self._broadcast.renewer.remove(renewal)
            if not is_done:
                await claim.release()
        left_ms = (message.expires_ms or message.time_ms) - message.time_ms
        await persist(lambda: claim.renew(left_ms / 1000 + _AFTERWARDS_SECONDS))  # who hears of it late leaves it alone
