"""Pub/Sub: one listener that wakes waiting results, and plain subscriptions.

Pub/Sub loses messages without an error, so nothing here is believed: it only says when to look.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

from redis.exceptions import RedisError

from streamq._redis.connections import AsyncConnection, SyncConnection
from streamq.errors import BrokerError

_FAILURES = (RedisError, OSError)
_BACKOFF_SECONDS = 1.0
_PATIENCE_SECONDS = 60.0  # that redis-py waits for a message before it says that there was none; nothing is sent


class Doorbell:
    """Wakes those in this process who wait for tasks: one subscription, one thread, started at first use.

    Args:
        connection: whose server to listen to.
        channel: the channel of this process; each message on it is the id of a task that has ended.
    """

    def __init__(self, connection: SyncConnection, channel: str) -> None:
        self.channel = channel
        self._connection = connection
        self._pubsub = connection.pubsub()
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Callable[[], object]]] = {}
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def on_ring(self, task_id: str, wake: Callable[[], object]) -> Iterator[None]:
        """Call `wake`, from another thread, when the task has ended, or may have: after a gap everybody is woken."""
        with self._lock:
            self._waiting.setdefault(task_id, []).append(wake)
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="streamq-doorbell", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                waiting = self._waiting.get(task_id, [])
                if wake in waiting:
                    waiting.remove(wake)
                if not waiting:
                    self._waiting.pop(task_id, None)

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                if not self._pubsub.subscribed:
                    self._pubsub.subscribe(self.channel)
                message = self._pubsub.get_message(timeout=1.0)
            except _FAILURES as error:
                with contextlib.suppress(*_FAILURES):
                    self._pubsub.reset()
                self._connection.failed(error)
                self._closing.wait(_BACKOFF_SECONDS)
                continue
            if message is None:
                continue
            if message["type"] == "subscribe":  # also after a reconnect: what was published meanwhile is lost
                self._ring(None)
            elif message["type"] == "message":
                self._ring(message["data"].decode("utf-8", "replace"))
        self._pubsub.close()

    def _ring(self, task_id: str | None) -> None:
        with self._lock:
            if task_id is None:
                wakes = [wake for waiting in self._waiting.values() for wake in waiting]
            else:
                wakes = list(self._waiting.get(task_id, ()))
        for wake in wakes:
            with contextlib.suppress(RuntimeError):  # the event loop that waited has been closed
                wake()

    def close(self) -> None:
        """Stop listening; the thread ends and its socket is closed."""
        self._closing.set()
        with self._lock:
            thread = self._thread
        if thread:
            with contextlib.suppress(*_FAILURES):
                self._pubsub.unsubscribe()
            thread.join(timeout=2.0)
        else:
            self._pubsub.close()


def messages(connection: SyncConnection, pattern: str, beacon: str) -> Iterator[tuple[str, bytes] | BrokerError | None]:
    """Listen to all channels that match `pattern`, for ever; subscribe again after a failure.

    Who publishes knows by the subscription to `beacon` that somebody listens.

    Yields:
        The channel and data of a message; None at each (re)subscription; the error when the server is away.
    """
    pubsub = connection.pubsub()
    try:
        while True:
            try:
                if not pubsub.subscribed:
                    pubsub.subscribe(beacon)
                    pubsub.psubscribe(pattern)
                message = pubsub.get_message(timeout=1.0)
            except _FAILURES as error:
                pubsub.reset()
                yield connection.failed(error)
                threading.Event().wait(_BACKOFF_SECONDS)
                continue
            if message is None:
                continue
            if message["type"] == "psubscribe":
                yield None
            elif message["type"] == "pmessage":
                yield message["channel"].decode("utf-8", "backslashreplace"), message["data"]
    finally:
        pubsub.close()


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
