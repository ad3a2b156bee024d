"""Pub/Sub: what wakes waiting results, and the signals of workers.

Pub/Sub loses messages without an error, so nothing here is believed: it only says when to look.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

from redis.exceptions import RedisError

from streamq._redis.cluster_hub import ClusterHub
from streamq._redis.connections import AsyncConnection
from streamq._redis.hub import Hub, Kind
from streamq.errors import BrokerError

_FAILURES = (RedisError, OSError)
_BACKOFF_SECONDS = 1.0
_PATIENCE_SECONDS = 60.0  # that redis-py waits for a message before it says that there was none; nothing is sent


class Doorbell:
    """Wakes those in this process who wait for tasks.

    Args:
        hub: what listens.
        channel: the channel of this process; each message on it is the id of a task that has ended.
    """

    def __init__(self, hub: Hub | ClusterHub, channel: str) -> None:
        self.channel = channel
        self._hub = hub
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Callable[[], object]]] = {}
        self._listens = False

    @contextlib.contextmanager
    def on_ring(self, task_id: str, wake: Callable[[], object]) -> Iterator[None]:
        """Call `wake`, from another thread, when the task has ended, or may have: after a gap everybody is woken."""
        with self._lock:
            self._waiting.setdefault(task_id, []).append(wake)
            listens, self._listens = self._listens, True
        if not listens:
            self._hub.subscribe(Kind.CHANNEL, self.channel, self)
        try:
            yield
        finally:
            with self._lock:
                waiting = self._waiting.get(task_id, [])
                if wake in waiting:
                    waiting.remove(wake)
                if not waiting:
                    self._waiting.pop(task_id, None)

    def take(self, _channel: bytes, data: bytes) -> None:
        """Wake those who wait for the task that has ended."""
        with self._lock:
            wakes = list(self._waiting.get(data.decode("utf-8", "replace"), ()))
        _wake(wakes)

    def joined(self, _since: float | None) -> None:
        """Wake everybody: what was published before is lost."""
        with self._lock:
            wakes = [wake for waiting in self._waiting.values() for wake in waiting]
        _wake(wakes)

    def away(self, _error: BrokerError) -> None:
        """Do nothing: those who wait look again by themselves."""

    def refused(self, _error: BrokerError) -> None:
        """Do nothing: those who wait look again by themselves."""


def _wake(wakes: Sequence[Callable[[], object]]) -> None:
    for wake in wakes:
        with contextlib.suppress(RuntimeError):  # the event loop that waited has been closed
            wake()


async def heard(
    connection: AsyncConnection, channels: Sequence[str]
) -> AsyncGenerator[bytes | BrokerError | None, None]:
    """Listen to some channels on an event loop, for ever; subscribe again after a failure. Sends nothing meanwhile.

    Yields:
        The data of a message; None at each (re)subscription; the error when the server is away.
    """
    pubsub = connection.pubsub()
    try:
        while True:
            try:
                if not pubsub.subscribed:
                    await pubsub.subscribe(*channels)
                message = await pubsub.get_message(timeout=_PATIENCE_SECONDS)
            except _FAILURES as error:
                await pubsub.aclose()
                yield await connection.failed(error)
                await asyncio.sleep(_BACKOFF_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
                continue
            if message is None:
                continue
            if message["type"] == "message":
                yield message["data"]
            elif message["channel"].decode() == channels[-1]:  # the last of those that confirm a subscription
                yield None
    finally:
        await pubsub.aclose()
