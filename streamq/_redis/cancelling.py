"""Has a cancellation that strikes while a command is being sent reach its task.

redis-py sends by way of ``asyncio.wait_for``, and that of Python 3.11 drops a cancellation that comes in the same turn
of the loop in which sending ends (CPython issue 86296, mended in 3.12): the cancelled task would go on for ever, and a
time limit would not hold.
"""

from __future__ import annotations

import asyncio
import sys
from functools import cache
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import TimeoutError as RedisTimeoutError


@cache
def cancelling(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """Make a class of connections like `kind`, whose sending can be cancelled at any moment."""
    if sys.version_info >= (3, 12):
        return kind

    class Cancelling(kind):  # type: ignore[misc, valid-type]  # it is only known now
        socket_timeout: float | None

        async def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's own
            if not self.is_connected:
                await self.connect_check_health(check_health=False)
            seconds, self.socket_timeout = self.socket_timeout, None  # without one, redis-py sends without wait_for
            try:
                async with asyncio.timeout(seconds):
                    await super().send_packed_command(command, check_health)
            except TimeoutError:
                raise RedisTimeoutError("Timeout writing to socket") from None
            finally:
                self.socket_timeout = seconds

    Cancelling.__name__ = f"Cancelling{kind.__name__}"
    return Cancelling
