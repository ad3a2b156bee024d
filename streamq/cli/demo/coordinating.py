"""The coordinator of the demo: it assigns shares, kills an agent half way, and asks questions at the end."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from streamq.agent.agent import Agent
from streamq.agent.presence import Joined, Left, presence
from streamq.app import StreamQ
from streamq.channels.envelope import Envelope
from streamq.cli.demo.indexing import Answer, Ask, Began, Indexed, Notice, Share
from streamq.cli.demo.processes import Process

_SHARES = 60  # about as many, so that there is something to do for all until the end
_AT_A_TIME = 9  # assignments that are out: so each agent has some
_PATIENCE_SECONDS = 60.0


class Coordinator:
    """Assigns, asks and adds up.

    Args:
        app: the app.
        crew: the processes of the agents; the last of them is to be killed.
        files: what is to be read.
        say: prints a line, in a style.

    Attributes:
        files: what is to be read.
        files_read: how many files the agents answered for at the end.
        words_read: how many words are in them.
    """

    def __init__(self, app: StreamQ, crew: Sequence[Process], files: Sequence[Path], say: Callable[..., None]) -> None:
        self.files = files
        self.files_read = self.words_read = 0
        self._app = app
        self._crew = crew
        self._victim = crew[-1]
        self._say = say
        size = max(1, -(-len(files) // _SHARES))
        parts = [list(files[start : start + size]) for start in range(0, len(files), size)]
        self._shares = [Share(number=number, files=part) for number, part in enumerate(parts)]
        self._begun: dict[int, str] = {}
        self._done: dict[int, Indexed] = {}
        self._killed_at: float | None = None
        self._held: set[int] = set()
        self._gone = asyncio.Event()
        self._changed = asyncio.Event()
        self._agent = Agent("coordinator", app)
        self._agent.on(Began)(self._has_begun)
        self._agent.follow("agent:reader-*:events")

    async def __aenter__(self) -> Self:
        await self._agent.__aenter__()
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        await self._agent.__aexit__(kind, error, trace)

    async def _has_begun(self, news: Envelope[Began]) -> None:
        self._begun[news.payload.share] = news.payload.agent
        self._changed.set()

    async def _watch(self) -> None:
        """Tell who comes and goes."""
        async for change in presence(self._app):
            if isinstance(change, Left) and change.info.name == self._victim.name and self._killed_at is not None:
                after = time.monotonic() - self._killed_at
                self._say(f"{after:.1f} s later: {change.info.name} is not present any more", style="bold yellow")
                self._gone.set()
            elif change.info.name != "coordinator":
                self._say(f"{change.info.name} has {'joined' if isinstance(change, Joined) else 'left'}")

    # ---- reading

    async def have_all_read(self) -> None:
        """Have every share read by an agent that lives at the end."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._kill_half_way())
            await self._assign(self._shares)
        if self._killed_at is None:
            return
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await self._gone.wait()
        taken = [number for number in self._held if self._done[number].agent != self._victim.name]
        if self._held:
            self._say(f"what it held was taken over: {len(taken)} of {len(self._held)} shares", style="bold green")
        lost = [share for share in self._shares if self._done[share.number].agent == self._victim.name]
        if lost:
            self._say(f"its index is gone with it: {len(lost)} shares that it had read are assigned again")
            await self._assign(lost)

    async def _assign(self, shares: Sequence[Share]) -> None:
        places = asyncio.Semaphore(_AT_A_TIME)

        async def one(share: Share) -> None:
            async with places:
                found = await self._agent.assign(share, reply=Indexed, timeout=_PATIENCE_SECONDS, durable=True)
            self._done[share.number] = found
            self._changed.set()

        async with asyncio.TaskGroup() as group:
            for share in shares:
                group.create_task(one(share))

    async def _kill_half_way(self) -> None:
        """Kill an agent when half is done: one that has something in its hands, if it can be found so."""
        while len(self._done) < len(self._shares):
            self._changed.clear()
            done, every = len(self._done), len(self._shares)
            held = {n for n, name in self._begun.items() if name == self._victim.name and n not in self._done}
            if 2 * done >= every and (held or 4 * done >= 3 * every):
                self._held, self._killed_at = held, time.monotonic()
                self._victim.kill()
                self._say(
                    f"SIGKILL to {self._victim.name} (pid {self._victim.pid}), which was reading {len(held)} shares",
                    style="bold red",
                )
                return
            await self._changed.wait()

    # ---- asking

    async def ask_all(self, words: Sequence[str]) -> Counter[str]:
        """Ask every agent that lives about words, and add the answers up."""
        await self._agent.broadcast(Notice(text=f"all {len(self._shares)} shares are read"))
        living = [one for one in self._crew if not one.killed]
        answers = await asyncio.gather(*(self._ask(one.name, words) for one in living))
        counts: Counter[str] = Counter()
        for agent, answer in zip(living, answers, strict=True):
            self.files_read += answer.files
            self.words_read += answer.words
            counts.update(answer.counts)
            most = max(answer.most.items(), key=lambda one: one[1][1], default=None)
            told = f"; most often “{most[0]}”: {most[1][1]:,} times in {most[1][0].name}" if most else ""
            self._say(f"{agent.name} answers for {answer.files:,} files{told}")
        return Counter({word: counts[word] for word in words})

    async def _ask(self, name: str, words: Sequence[str]) -> Answer:
        shares = [number for number, done in self._done.items() if done.agent == name]
        question = Ask(words=list(words), shares=shares)
        return await self._agent.request(name, question, reply=Answer, timeout=_PATIENCE_SECONDS)
