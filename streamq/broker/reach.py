"""The ways to one server, or one cluster: a connection for threads, one for each event loop, and one that listens."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from functools import cached_property

from streamq._redis.cluster import AsyncCluster, SyncCluster
from streamq._redis.cluster_hub import ClusterHub
from streamq._redis.connections import AsyncConnection, SyncConnection
from streamq._redis.hub import Hub
from streamq._redis.urls import check_url, is_cluster

_reaches: weakref.WeakSet[Reach] = weakref.WeakSet()


def _forget_all() -> None:
    for reach in _reaches:
        reach._forget_connections()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_forget_all)  # the sockets of a parent are its own


def _listen(connection: SyncConnection | SyncCluster) -> Hub | ClusterHub:
    return ClusterHub(connection) if isinstance(connection, SyncCluster) else Hub(connection)


class Reach:
    """Opens connections at their first use.

    Args:
        url: where the server is, or the cluster.

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
        self._hub: Hub | ClusterHub | None = None
        self.__dict__.pop("sync", None)
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncConnection | AsyncCluster]
        self._loops = weakref.WeakKeyDictionary()

    @cached_property  # from the second use on an attribute, which costs nothing on the way of each call
    def sync(self) -> SyncConnection | SyncCluster:
        """The connection for threads."""
        with self._lock:  # of those who find none at a time the first makes it
            made = self.__dict__.get("sync")
            if made is None:
                kind = SyncCluster if is_cluster(self.url) else SyncConnection
                made = self.__dict__["sync"] = kind(self.url, patient=True)
            return made

    @property
    def on_loop(self) -> AsyncConnection | AsyncCluster:
        """The connection for the running event loop."""
        loop = asyncio.get_running_loop()
        connection = self._loops.get(loop)
        if connection is None:
            kind = AsyncCluster if is_cluster(self.url) else AsyncConnection
            connection = self._loops[loop] = kind(self.url, patient=True)
        return connection

    @property
    def hub(self) -> Hub | ClusterHub:
        """The one subscription connection of this process; of a cluster, the one and those of sharded channels."""
        connection = self.sync
        with self._lock:
            if self._hub is None:
                self._hub = _listen(connection)
            return self._hub

    def new_hub(self) -> Hub | ClusterHub:
        """Make a hub for one who needs a connection of its own, and closes it."""
        return _listen(self.sync)

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
