"""Renews the leases of what a worker has."""

from __future__ import annotations

from collections.abc import Sequence

from streamq._redis.connections import SyncConnection
from streamq.broker import calls
from streamq.config import Settings


class Renewals:
    """Renews leases, from a thread and over a connection of its own."""

    def __init__(self, settings: Settings, consumer: str, read_timeout: float) -> None:
        self._consumer = consumer
        self._connection = SyncConnection(settings.url, read_timeout=read_timeout)

    def renew(self, stream: str, entries: Sequence[bytes]) -> list[bytes]:
        """Start the lease of entries anew; returns those that belong to another by now."""
        return self._connection.run(calls.renew(stream, self._consumer, entries))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
