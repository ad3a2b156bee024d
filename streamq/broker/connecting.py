"""The connections of those who enqueue tasks and wait for results."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import weakref

from streamq._redis.connections import AsyncConnection, SyncConnection
from streamq._redis.keys import Keys
from streamq._redis.subscriptions import Doorbell
from streamq._redis.urls import check_url
from streamq.config import Durability, Settings


class Connections:
    """Opened at first use, one pool for all threads and one for each event loop; a forked child opens its own."""

    def __init__(self, settings: Settings) -> None:
        check_url(settings.url)
        self.settings = settings
        self.keys = Keys(settings.namespace)
        self._lock = threading.Lock()
        self._forget_connections()

    def _forget_connections(self) -> None:
        self._pid = os.getpid()
        self._sync: SyncConnection | None = None
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncConnection]
        self._loops = weakref.WeakKeyDictionary()
        self._doorbell: Doorbell | None = None
        self._can_confirm: set[Durability] = set()  # what the server was found to be able to

    @property
    def sync(self) -> SyncConnection:
        """The connection for threads."""
        if self._sync is None or self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():  # sockets must not be shared with a parent process
                    self._forget_connections()
                if self._sync is None:
                    self._sync = SyncConnection(self.settings.url, patient=True)
        return self._sync

    @property
    def on_loop(self) -> AsyncConnection:
        """The connection for the running event loop."""
        loop = asyncio.get_running_loop()
        connection = self._loops.get(loop)
        if connection is None or self._pid != os.getpid():
            if self._pid != os.getpid():
                self._forget_connections()
            connection = self._loops[loop] = AsyncConnection(self.settings.url, patient=True)
        return connection

    @property
    def doorbell(self) -> Doorbell:
        """What wakes the waiting results of this process."""
        connection = self.sync
        with self._lock:
            if self._doorbell is None:
                self._doorbell = Doorbell(connection, self.keys.done + secrets.token_hex(8))
            return self._doorbell

    @property
    def client_id(self) -> str:
        """The last part of this process's channel."""
        return self.doorbell.channel.removeprefix(self.keys.done)

    def close(self) -> None:
        """Close the connections of threads, and stop listening for results. They open again at the next use."""
        with self._lock:
            doorbell, self._doorbell = self._doorbell, None
            sync, self._sync = self._sync, None
        if doorbell:
            doorbell.close()
        if sync:
            sync.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop, and then as `close` does."""
        connection = self._loops.pop(asyncio.get_running_loop(), None)
        if connection:
            await connection.close()
        await asyncio.to_thread(self.close)
