"""Hears what is told to all, and has it handled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from streamq.agent.service import Service
from streamq.channels.channel import Channel
from streamq.channels.envelope import Envelope
from streamq.channels.gaps import Gap


class Hearing(Service):
    """Listens to a channel, or to a pattern, and passes on what others have published.

    Args:
        channel: the channel.
        agent: whose messages are its own, and skipped.
        heard: takes a message.
        missed: is told of a gap.
    """

    def __init__(
        self,
        channel: Channel[Any],
        agent: str,
        heard: Callable[[Envelope[Any]], Awaitable[object]],
        missed: Callable[[Gap], Awaitable[object]],
    ) -> None:
        super().__init__(channel.listen())
        self._agent = agent
        self._heard = heard
        self._missed = missed

    async def _until_ready(self) -> None:
        pass  # what comes is passed on at once

    async def _take(self, item: Envelope[Any] | Gap) -> None:
        if isinstance(item, Gap):
            await self._missed(item)
        elif item.sender != self._agent:
            await self._heard(item)
