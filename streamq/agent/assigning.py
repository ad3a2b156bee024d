"""The side of an assignment that gives it, and waits for its result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from streamq.agent.claims import holder_of
from streamq.agent.names import tasks
from streamq.agent.replies import Replies
from streamq.agent.running import persist
from streamq.agent.taking import claim_name
from streamq.channels.broadcast import Broadcast
from streamq.channels.channel import Channel
from streamq.channels.envelope import Envelope
from streamq.config import check_name
from streamq.errors import BrokerError, RequestTimeout

_OFFER_SECONDS = 1.0  # after which an assignment is offered again: who had claimed it may have died
_ASK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Work:
    """What is assigned.

    Attributes:
        payload: the work itself.
        kind: its type.
        seconds: for which its result is waited for.
        capability: what the agent must be able to do; None: nothing else.

    Raises:
        ConfigError: the capability cannot be used.
    """

    payload: Any
    kind: str
    seconds: float
    capability: str | None

    def __post_init__(self) -> None:
        if self.capability is not None:
            check_name("capability", self.capability)


class Assigning:
    """Gives work to whoever takes it.

    Args:
        broadcast: what channels of the app share.
        replies: where results are expected.
        log: gives a durable channel by its name.
        offers: the channel on which work is offered to all.
    """

    def __init__(
        self, broadcast: Broadcast, replies: Replies, log: Callable[[str], Channel[Any]], offers: Channel[Any]
    ) -> None:
        self._broadcast = broadcast
        self._replies = replies
        self._log = log
        self._offers = offers

    async def assign(self, work: Work, *, durable: bool) -> Envelope[Any]:
        """Give work, and wait for the first reply.

        Raises:
            RequestTimeout: nobody has done it in time.
            BrokerError: it could not be given.
        """
        with self._replies.expected() as (assignment, future):
            try:
                async with asyncio.timeout(work.seconds):
                    if not durable:
                        return await self._offer(work, assignment, future)
                    await self._log(tasks(work.kind, work.capability)).publish(
                        work.payload,
                        type=work.kind,
                        correlation_id=assignment,
                        reply_to=self._replies.address,
                        expires=work.seconds,
                    )
                    return await future
            except TimeoutError:
                pass
        which = work.kind if work.capability is None else f"{work.kind} for {work.capability}"
        by_whom = "" if durable else await self._claimed_by(assignment)
        raise RequestTimeout(f"no agent has done {which} within {work.seconds:g} s{by_whom}")

    async def _offer(self, work: Work, assignment: str, future: asyncio.Future[Envelope[Any]]) -> Envelope[Any]:
        end = time.monotonic() + work.seconds

        def publish() -> Awaitable[object]:
            return self._offers.publish(
                {"capability": work.capability, "job": work.payload},
                type=work.kind,
                correlation_id=assignment,
                reply_to=self._replies.address,
                expires=max(0.0, end - time.monotonic()),
            )

        while not future.done():
            await persist(publish)
            await asyncio.wait([future], timeout=_OFFER_SECONDS)
        return future.result()

    async def _claimed_by(self, assignment: str) -> str:
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                holder = await holder_of(self._broadcast, claim_name(assignment))
        except (TimeoutError, BrokerError):
            return ""
        return "; nobody has claimed it" if holder is None else f"; agent {holder} has claimed it"
