"""What listens, in a task of its own, for as long as an agent runs."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from streamq.channels.listener import Listener

_log = logging.getLogger("streamq.agents")
_PATIENCE_SECONDS = 1.0  # with a server that does not answer, at the end

Failed = Callable[[Exception], object]


class Service(ABC):
    """Takes what a listener gives, one after the other.

    Args:
        listener: gives it.
    """

    def __init__(self, listener: Listener[Any]) -> None:
        self._listener = listener
        self._task: asyncio.Task[None] | None = None
        self._is_finishing = False

    @abstractmethod
    async def _take(self, item: Any) -> None:
        """Take one."""

    @abstractmethod
    async def _until_ready(self) -> None:
        """Wait until one more may come."""

    async def start(self, failed: Failed) -> None:
        """Listen; when this returns, what is published is heard. `failed` is told if that comes to an end by itself.

        Raises:
            BrokerError: the server cannot be reached, or refuses.
        """
        await self._listener.__aenter__()
        self._task = asyncio.get_running_loop().create_task(self._run(failed), name="streamq-agent-listener")

    async def _run(self, failed: Failed) -> None:
        try:
            await self._until_ready()
            async for item in self._listener:
                if self._is_over():
                    return
                await self._take(item)
                await self._until_ready()
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody listens any more
            _log.exception("an agent listens no more")
            failed(error)

    def _is_over(self) -> bool:
        return self._is_finishing

    def finish(self) -> None:
        """Take nothing more."""
        self._is_finishing = True
        self._listener.close()

    async def aclose(self) -> None:
        """Take nothing more, and close the listener."""
        self.finish()
        if self._task is not None:
            try:
                await asyncio.wait({self._task}, timeout=_PATIENCE_SECONDS)
            finally:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
                await self._listener.aclose()
