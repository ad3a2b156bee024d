"""The server of a row: the campaign starts it, kills it with SIGKILL, and starts it again on the same port and data."""

from __future__ import annotations

import subprocess
from pathlib import Path

import redis

from tests.nodes import free_port
from tests.servers import EMBEDDED, server_binary
from tests.workers import until


class Server:
    """What both kinds have in common.

    Args:
        name: ``embedded``, or a container's image.
        folder: for its data, if it runs here.
        options: of its configuration, by name.

    Attributes:
        url: where it is, now and after a restart.
        way: the URL for workers and producers, if it does not lead through the proxy.
        client: a client of the campaign's own.
        version: what it calls itself.
    """

    way: str | None = None

    def __init__(self, name: str, folder: Path, **options: str) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        own = {"appendonly": "yes", "appendfsync": "always", "save": ""} | options
        self._options = [word for key, value in own.items() for word in (f"--{key.replace('_', '-')}", value)]
        self._folder = folder
        self.client = redis.Redis(port=self.port, socket_timeout=5, decode_responses=True)
        self.begin()
        try:
            self.until_answers()
        except AssertionError:
            self.close()
            raise
        self.version = version_of(self.client)

    def begin(self) -> None:
        """Start it for the first time, or again."""
        raise NotImplementedError

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        raise NotImplementedError

    def close(self) -> None:
        """Kill it and remove what it has stored."""
        raise NotImplementedError

    def until_answers(self) -> None:
        """Wait until it has loaded its data."""
        until(self.answers, seconds=30, why=f"{self.name} does not answer")

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


class Process(Server):
    """The embedded server's program, as a process of this machine."""

    def begin(self) -> None:
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        with (self._folder / "server.log").open("a") as log:
            self.process = subprocess.Popen([server_binary(), *where, *self._options], stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        self.client.close()


class Container(Server):
    """A container, whose data is in a volume of its own."""

    _container = None

    def begin(self) -> None:
        if self._container is not None:
            self._container.start()
            return
        import docker  # noqa: PLC0415 - a machine without Docker is fine

        self._docker = docker.from_env()
        ports = {"6379/tcp": ("127.0.0.1", self.port)}
        words = ["--bind", "0.0.0.0", "--protected-mode", "no", *self._options]  # noqa: S104 - of the container
        self._container = self._docker.containers.run(self.name, words, ports=ports, detach=True)

    def kill(self) -> None:
        self._container.kill("KILL")
        self._container.wait()

    def close(self) -> None:
        self._container.remove(v=True, force=True)
        self._docker.close()
        self.client.close()


def version_of(client: redis.Redis) -> str:
    """Ask a server what it calls itself."""
    info = client.info("server")
    kind = "valkey" if "valkey_version" in info else "redis"
    return f"{kind} {info.get('valkey_version') or info['redis_version']}"


def start(name: str, folder: Path, **options: str) -> Server:
    """Start a server with its data kept by an append-only file that is synced with each write, unless `options` say."""
    return (Process if name == EMBEDDED else Container)(name, folder, **options)
