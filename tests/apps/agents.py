"""Agents, for tests that kill their processes: ``python -m tests.apps.agents NAME`` runs one."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from streamq import Agent, StreamQ
from streamq.channels.envelope import Envelope

app = StreamQ()


@dataclass
class Question:
    text: str


@dataclass
class Answer:
    text: str
    number: int


@dataclass
class Job:
    """Is begun by writing the process id to a file, and ends when another is there."""

    marker: Path
    ready: Path


@dataclass
class Report:
    pid: int


async def work(job: Job) -> Report:
    with job.marker.open("a") as marker:
        marker.write(f"{os.getpid()}\n")
    while not job.ready.exists():  # noqa: ASYNC110 - of another process
        await asyncio.sleep(0.01)
    return Report(os.getpid())


def make(name: str, app: StreamQ) -> Agent:
    """Make an agent that answers and works."""
    agent = Agent(name, app, capabilities=("read",))
    agent.takes(Job)(work)

    @agent.on(Question)
    async def answer(message: Envelope[Question]) -> Answer:
        return Answer(message.payload.text.upper(), os.getpid())

    @agent.on("die")
    def die(_message: Envelope[object]) -> None:
        os._exit(1)

    return agent


async def main() -> None:
    async with app:
        await make(sys.argv[1], app).run()


if __name__ == "__main__":
    asyncio.run(main())
