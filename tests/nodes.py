"""Servers that are replicas of one another, and the Sentinels that watch them, as processes that a test may kill."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import redis

from tests.servers import server_binary
from tests.workers import until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Node:
    """One process of the embedded server's program, on a port of this machine."""

    def __init__(self, folder: Path, *options: str | int, sentinel: bool = False, login: str | None = None) -> None:
        self.port = free_port()
        folder.mkdir()
        self.socket = folder / "s"
        own = ["port", self.port, "bind", "127.0.0.1", "dir", folder, "repl-diskless-sync-delay", 0]
        if sentinel:
            own = own[:6]
        else:
            own += ["unixsocket", self.socket, "save", '""']
        words = [*own, *options]
        config = folder / "conf"
        lines = "\n".join(f"{name} {value}" for name, value in zip(words[::2], words[1::2], strict=True))
        config.write_text(lines + "\n")
        mode = ["--sentinel"] if sentinel else []
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen([server_binary(), config, *mode], stdout=log, stderr=log)
        self.client = redis.Redis(port=self.port, socket_timeout=5, password=login, decode_responses=True)
        until(self.answers, seconds=30, why=f"the server does not answer: {(folder / 'log').read_text()}")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def run(self, *words: str | int) -> object:
        return self.client.execute_command(*words)

    def follow(self, master: Node) -> None:
        """Become a replica, and wait until its data is here."""
        self.run("REPLICAOF", "127.0.0.1", master.port)
        until(lambda: self.client.info("replication")["master_link_status"] == "up", why="no replication")
        until(lambda: master.run("WAIT", 1, 100) == 1)

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.thaw()
        self.kill()
        self.client.close()
