"""Agents in the process of the test, and in processes of their own, started as a user starts them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from streamq import Agent, AgentInfo, StreamQ
from streamq.agent.presence import agents_sync
from tests.workers import ROOT, until

Start = Callable[[str], "AgentProcess"]


class AgentProcess:
    """One agent of ``tests/apps/agents.py``."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.apps.agents", name], cwd=ROOT, env={**os.environ, "STREAMQ_URL": url}
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=10)


def here(app: StreamQ, name: str) -> list[AgentInfo]:
    """List the instances of an agent that are there."""
    return [info for info in agents_sync(app) if info.name == name]


@asynccontextmanager
async def running(*agents: Agent) -> AsyncIterator[None]:
    """Run agents in this process."""
    async with asyncio.timeout(30):
        for agent in agents:
            await agent.start()
        try:
            yield
        finally:
            for agent in agents:
                await agent.stop()


@contextmanager
def processes(app: StreamQ) -> Iterator[Start]:
    """Start agents, and wait until they are there; they are gone at the end."""
    started: list[AgentProcess] = []

    def start(name: str) -> AgentProcess:
        number = len(here(app, name))
        started.append(AgentProcess(name, app.settings.url))
        until(lambda: len(here(app, name)) > number)
        return started[-1]

    try:
        yield start
    finally:
        for one in started:
            if one.process.poll() is None:
                one.kill()
