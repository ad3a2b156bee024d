"""An agent of the demo: ``python -m streamq.cli.demo.reader NAME``. It takes shares of files, and answers questions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

from streamq.agent.agent import Agent
from streamq.app import StreamQ
from streamq.channels.envelope import Envelope
from streamq.cli.demo.indexing import Answer, Ask, Began, Index, Indexed, Notice, Share


def make(name: str, app: StreamQ) -> Agent:
    """Make the agent."""
    agent = Agent(name, app, capabilities=("read",))
    index = Index()

    @agent.takes(Share)
    async def read(share: Share) -> Indexed:
        await agent.publish(Began(share=share.number, agent=name))
        files, words = await asyncio.to_thread(index.add, share)
        return Indexed(share=share.number, agent=name, pid=os.getpid(), files=files, words=words)

    @agent.on(Ask)
    async def answer(question: Envelope[Ask]) -> Answer:
        return index.answer(question.payload)

    @agent.on(Notice)
    async def hear(notice: Envelope[Notice]) -> None:
        print(f"{name} has heard: {notice.payload.text}", file=sys.stderr, flush=True)  # noqa: T201 - for the demo

    return agent


async def serve(name: str) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        app = await stack.enter_async_context(StreamQ())
        await stack.enter_async_context(make(name, app))
        print(f"{name} is ready", file=sys.stderr, flush=True)  # noqa: T201 - the demo waits for it
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
