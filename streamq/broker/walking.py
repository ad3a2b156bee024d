"""Sends what takes more than one call, in steps: the same for threads and for an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

from streamq._redis.cluster import SyncCluster
from streamq._redis.connections import AsyncConnection, SyncConnection
from streamq._redis.scripts import Call
from streamq._redis.steps import adrive, drive

T = TypeVar("T")

Steps = Generator[Call[Any] | Sequence[Call[Any]] | float, Any, T]
"""Gives calls, which are answered one by one or together, and seconds to wait; returns what they come to."""


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


def complete(
    connection: SyncConnection | SyncCluster,
    steps: Steps[T],
    together: Callable[[Sequence[Call[Any]]], Any] | None = None,
) -> T:
    """Send the calls that steps give, and return what they return.

    Args:
        connection: for the calls.
        steps: give them.
        together: sends those that are given together; None: they are sent one by one, and answered with a list.

    Raises:
        BrokerError: Redis does not do what is asked; what was done until then stays done.
    """

    def do(step: Call[Any] | Sequence[Call[Any]] | float) -> Any:
        if isinstance(step, Call):
            return connection.run(step)
        if isinstance(step, Sequence):
            return together(step) if together else [connection.run(call) for call in step]
        return time.sleep(step)

    return drive(steps, do)


async def acomplete(
    connection: AsyncConnection,
    steps: Steps[T],
    together: Callable[[Sequence[Call[Any]]], Awaitable[Any]] | None = None,
) -> T:
    """Send the calls that steps give, and return what they return, as `complete` does."""

    async def do(step: Call[Any] | Sequence[Call[Any]] | float) -> Any:
        if isinstance(step, Call):
            return await connection.run(step)
        if isinstance(step, Sequence):
            return await together(step) if together else [await connection.run(call) for call in step]
        return await asyncio.sleep(step)

    return await adrive(steps, do)
