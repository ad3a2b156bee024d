"""What workers are told by Pub/Sub, so that they need not ask: hints, all of which may get lost."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterable
from typing import NamedTuple

from streamq._redis.connections import AsyncConnection
from streamq._redis.keys import Keys
from streamq._redis.subscriptions import heard
from streamq.config import Settings
from streamq.errors import BrokerError


class Sooner(NamedTuple):
    """A delayed task is due in so many seconds, before all others."""

    seconds: float


class Cancelled(NamedTuple):
    """A task was cancelled that a worker has: where its message was."""

    stream: str
    entry: bytes


class Connected(NamedTuple):
    """From now on signals are heard; those from before may have been missed."""


Signal = Sooner | Cancelled | Connected


def read_signal(data: bytes) -> Signal | None:
    """Read one signal: the ms until a task is due, or the stream and the entry of one that was cancelled.

    Returns:
        None if it is neither: newer versions may tell more.
    """
    words = data.split(b" ")
    if len(words) == 1 and words[0].isdigit():
        return Sooner(int(words[0]) / 1000)
    if len(words) == 2:  # noqa: PLR2004 - stream and entry
        return Cancelled(words[0].decode("utf-8", "replace"), words[1])
    return None


async def listen(settings: Settings, queues: Iterable[str]) -> AsyncGenerator[Signal | BrokerError, None]:
    """Listen to what the workers of some queues are told, for ever, over a connection of its own.

    Yields:
        Signals; the error when the server is away.
    """
    keys = Keys(settings.namespace)
    connection = AsyncConnection(settings.url)
    try:
        async with contextlib.aclosing(heard(connection, [keys.queue(name).signals for name in queues])) as news:
            async for said in news:
                signal = said if isinstance(said, BrokerError) else Connected() if said is None else read_signal(said)
                if signal is not None:
                    yield signal
    finally:
        await connection.close()
