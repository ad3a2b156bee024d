"""Says that an agent is there, from a thread: a blocked event loop does not make it vanish."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

from streamq._redis.scripts import Call
from streamq.agent.names import PRESENCE
from streamq.broker import agents as calls
from streamq.broker.reads import now
from streamq.channels.broadcast import Broadcast
from streamq.errors import BrokerError

_log = logging.getLogger("streamq.agents")

BEAT_SECONDS = 1.0
HOLDS_SECONDS = 4.0
_LEAVING_SECONDS = 3.0


class Beat:
    """Says at intervals that one instance is there, and at its end that it leaves.

    Args:
        broadcast: what channels of the app share.
        member: the name of the instance among all.
        info: who it is, a JSON object.
    """

    def __init__(self, broadcast: Broadcast, member: str, info: bytes) -> None:
        self._broadcast = broadcast
        self._member = member
        self._info = info
        self._ahead_ms = 0.0  # the clock of Redis, of the one here that nobody sets
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def server_ms(self) -> float:
        """The time of Redis, ms, as known from what it said last."""
        return time.monotonic() * 1000 + self._ahead_ms

    async def read_clock(self) -> None:
        """Learn the time of Redis.

        Raises:
            BrokerError: the server cannot be reached.
        """
        self._note(await self._broadcast.reach.on_loop.run(now()))

    async def start(self) -> None:
        """Join; when this returns, all can see it.

        Raises:
            BrokerError: the server cannot be reached, or refuses.
        """
        self._note(await self._broadcast.reach.on_loop.run(self._call()))
        self._thread = threading.Thread(target=self._run, name="streamq-presence", daemon=True)
        self._thread.start()

    async def aclose(self) -> None:
        """Leave."""
        self._ending.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _LEAVING_SECONDS)

    def _call(self) -> Call[int]:
        return calls.beat(self._broadcast.keys, PRESENCE, self._member, self._info, round(HOLDS_SECONDS * 1000))

    def _note(self, server_ms: int) -> None:
        self._ahead_ms = server_ms - time.monotonic() * 1000

    def _run(self) -> None:
        reach = self._broadcast.reach
        while not self._ending.wait(BEAT_SECONDS):
            try:
                self._note(reach.sync.run(self._call()))
            except BrokerError as error:
                _log.debug("%s could not say that it is there: %s", self._member, error)
        try:
            reach.sync.run(calls.leave(self._broadcast.keys, PRESENCE, self._member))
        except BrokerError as error:
            _log.debug("%s could not say that it leaves: %s", self._member, error)
