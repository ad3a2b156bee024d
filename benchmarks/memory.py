"""How much memory the server uses."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.server import Server

_LOOK_SECONDS = 0.005


class Memory:
    """By how much the memory of the server has grown since this was made.

    Attributes:
        most: the most that was seen, in bytes.
    """

    def __init__(self, server: Server) -> None:
        self._client = server.client
        while self._info()["lazyfree_pending_objects"]:  # what was there before is still being freed
            time.sleep(_LOOK_SECONDS)
        self._before = self._info()["used_memory"]
        self.most = 0

    def look(self) -> int:
        """Say by how much it has grown, in bytes."""
        grown = self._info()["used_memory"] - self._before
        self.most = max(self.most, grown)
        return grown

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look again and again meanwhile."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_LOOK_SECONDS):
                self.look()

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _info(self) -> dict[str, int]:
        return {**self._client.info("memory")}
