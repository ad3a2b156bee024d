"""Takes messages from durable channels, has them handled, and acknowledges them then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from streamq.agent.running import Runner, persist
from streamq.agent.service import Service
from streamq.channels.envelope import Envelope
from streamq.channels.gaps import Gap
from streamq.channels.group import GroupListener


class Consumer(Service):
    """Takes what is in a durable channel for a group. What is being handled when the process dies, another takes.

    Args:
        group: gives what this instance takes, and has each of them acknowledged.
        runner: runs what is taken.
        handle: handles one.
        missed: is told of a gap.
    """

    def __init__(
        self,
        group: GroupListener[Any],
        runner: Runner,
        handle: Callable[[Envelope[Any]], Awaitable[object]],
        missed: Callable[[Gap], Awaitable[object]],
    ) -> None:
        self._group = group
        super().__init__(self._group)
        self._runner = runner
        self._handle = handle
        self._missed = missed

    async def _until_ready(self) -> None:
        await self._runner.until_free()

    async def _take(self, item: Envelope[Any] | Gap) -> None:
        if isinstance(item, Gap):
            await self._missed(item)
        else:
            await self._runner.start(self._work(item))

    async def _work(self, message: Envelope[Any]) -> None:
        if self._is_finishing or not self._group.has(message):  # it waited for its turn
            return
        await self._handle(message)
        await persist(lambda: self._group.ack(message))

    def finish(self) -> None:
        """Take nothing more; what is being handled may end."""
        self._is_finishing = True
        self._group.finish()
