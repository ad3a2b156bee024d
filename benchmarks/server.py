"""The server that both sides use: an embedded one in a temporary folder, or one that is given."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from benchmarks.machine import NO_CORES, Cores, pin
from benchmarks.names import NAMESPACE
from streamq._redis import embedded


class Server:
    """A running server.

    Attributes:
        url: for streamq.
        bare_url: the same server, for redis-py.
        version: what it calls itself.
        pid: its process, if it runs here.
        cores: where it and the measured processes run.
        client: for filling, watching and cleaning; nothing of that is measured.
    """

    def __init__(self, url: str, bare_url: str, cores: Cores) -> None:
        self.url = url
        self.bare_url = bare_url
        self.client: redis.Redis = redis.Redis.from_url(bare_url)
        info = self.client.info("server")
        kind = "Valkey" if "valkey_version" in info else "Redis"
        self.version = f"{kind} {info.get('valkey_version') or info['redis_version']}"
        self.pid = _here(int(info["process_id"]))
        # With a server that cannot be given a core, the measured processes are better left to the scheduler too.
        self.cores = cores if self.pid is not None and pin(self.pid, cores.server) else NO_CORES

    def clean(self) -> None:
        """Delete every key of the benchmark."""
        while found := list(self.client.scan_iter(f"{NAMESPACE}:*", count=1000)):
            for start in range(0, len(found), 1000):
                self.client.unlink(*found[start : start + 1000])


def _here(pid: int) -> int | None:
    """Return `pid` if it is a server that runs here: one in a container has a number of another world."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return None
    return pid if name.startswith(("redis", "valkey")) else None


@contextmanager
def running(url: str | None, cores: Cores) -> Iterator[Server]:
    """Provide a server; an embedded one unless there is a `url`."""
    if url is not None:
        server = Server(url, url, cores)
        yield server
        server.clean()
        return
    with tempfile.TemporaryDirectory(prefix="streamq-", ignore_cleanup_errors=True) as folder:
        directory = Path(folder) / "server"
        socket = embedded.acquire(directory)
        try:
            yield Server(f"embedded://{directory}", f"unix://{socket}", cores)
        finally:
            embedded.release(directory)
