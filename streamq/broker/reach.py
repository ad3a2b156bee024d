"""The ways to one server: a connection for threads, one for each event loop, and one that listens."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from functools import cached_property

from streamq._redis.connections import AsyncConnection, SyncConnection
from streamq._redis.hub import Hub
from streamq._redis.urls import check_url

_reaches: weakref.WeakSet[Reach] = weakref.WeakSet()


def _forget_all() -> None:
    for reach in _reaches:
        reach._forget_connections()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_forget_all)  # the sockets of a parent are its own


class Reach:
    """Opens connections at their first use.

    Args:
        url: where the server is.

    Raises:
        ConfigError: the URL cannot be used.
    """

    def __init__(self, url: str) -> None:
        check_url(url)
        self.url = url
        self._forget_connections()
        _reaches.add(self)

    def _forget_connections(self) -> None:
        self._lock = threading.Lock()
        self._hub: Hub | None = None
        self.__dict__.pop("sync", None)
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncConnection]
        self._loops = weakref.WeakKeyDictionary()

    @cached_property  # from the second use on an attribute, which costs nothing on the way of each call
    def sync(self) -> SyncConnection:
        """The connection for threads."""
        with self._lock:  # of those who find none at a time the first makes it
            made = self.__dict__.get("sync")
            if made is None:
                made = self.__dict__["sync"] = SyncConnection(self.url, patient=True)
            return made

    @property
    def on_loop(self) -> AsyncConnection:
        """The connection for the running event loop."""
        loop = asyncio.get_running_loop()
        connection = self._loops.get(loop)
        if connection is None:
            connection = self._loops[loop] = AsyncConnection(self.url, patient=True)
        return connection

    @property
    def hub(self) -> Hub:
        """The one subscription connection of this process."""
        connection = self.sync
        with self._lock:
            if self._hub is None:
                self._hub = Hub(connection)
            return self._hub

    def close(self) -> None:
        """Close the connections of threads, and stop listening. They open again at the next use."""
        with self._lock:
            hub, self._hub = self._hub, None
            sync = self.__dict__.pop("sync", None)
        if hub:
            hub.close()
        if sync:
            sync.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop, and then as `close` does."""
        connection = self._loops.pop(asyncio.get_running_loop(), None)
        if connection:
            await connection.close()
        await asyncio.to_thread(self.close)
