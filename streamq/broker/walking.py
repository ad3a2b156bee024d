"""Goes through what is too much for one call, in steps: the same for threads and for an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any, TypeVar

from streamq._redis.connections import AsyncConnection, SyncConnection
from streamq._redis.scripts import Call

T = TypeVar("T")


def follow(connection: SyncConnection, walk: Generator[Call[Any] | T, Any, None]) -> Iterator[T]:
    """Send the calls that a walk gives, answer them, and pass on what else it gives.

    Raises:
        BrokerError: Redis does not do what is asked; what was done until then stays done.
    """
    answer: Any = None
    while (step := _next(walk, answer)) is not None:
        answer = connection.run(step) if isinstance(step, Call) else None
        if not isinstance(step, Call):
            yield step


async def afollow(connection: AsyncConnection, walk: Generator[Call[Any] | T, Any, None]) -> AsyncIterator[T]:
    """Send the calls that a walk gives, and pass on what else it gives, as `follow` does."""
    answer: Any = None
    while (step := _next(walk, answer)) is not None:
        answer = await connection.run(step) if isinstance(step, Call) else None
        if not isinstance(step, Call):
            yield step


def _next(walk: Generator[Call[Any] | T, Any, None], answer: Any) -> Call[Any] | T | None:
    try:
        return walk.send(answer)
    except StopIteration:
        return None
