"""Who is there: a list, and the changes of it."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol, Self

from pydantic_core import from_json

from streamq.agent.beating import HOLDS_SECONDS
from streamq.agent.names import PRESENCE
from streamq.broker import agents as calls
from streamq.broker.agents import Present
from streamq.channels.broadcast import Broadcast
from streamq.channels.channel import Channel
from streamq.channels.envelope import Envelope
from streamq.channels.gaps import Gap, moment
from streamq.channels.listener import Listener
from streamq.errors import BrokerUnavailable

_LOOK_SECONDS = 2.0  # after which a watcher looks by itself: who is killed does not say so


class HasBroadcast(Protocol):
    """An app, as far as agents need it."""

    @property
    def broadcast(self) -> Broadcast:
        """What all channels of the app share in this process."""


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """One instance of an agent.

    Attributes:
        name: of the agent.
        instance: of this process among those that have this name.
        capabilities: what it can do.
        host: where it runs.
        pid: its process there.
        since: when it came, by its clock.
        last_seen: when it gave its last sign of life, by the clock of Redis.
    """

    name: str
    instance: str
    capabilities: tuple[str, ...]
    host: str
    pid: int
    since: datetime
    last_seen: datetime

    @property
    def member(self) -> str:
        """Its name among all instances of all agents."""
        return f"{self.name}:{self.instance}"


@dataclass(frozen=True, slots=True)
class Joined:
    """An instance of an agent has come.

    Attributes:
        info: which one.
    """

    info: AgentInfo


@dataclass(frozen=True, slots=True)
class Left:
    """An instance of an agent is not there any more: it has left, or gave no sign of life for four seconds.

    Attributes:
        info: which one, as it was known last.
    """

    info: AgentInfo


async def agents(app: HasBroadcast) -> list[AgentInfo]:
    """List the agents that are there, by name and then by age: a killed one is not there any more after 4 s.

    Raises:
        BrokerError: Redis does not do what is asked.
    """
    broadcast = app.broadcast
    return _infos(await broadcast.reach.on_loop.run(calls.present(broadcast.keys, PRESENCE)))


def agents_sync(app: HasBroadcast) -> list[AgentInfo]:
    """List the agents that are there, as `agents` does, from a thread."""
    broadcast = app.broadcast
    return _infos(broadcast.reach.sync.run(calls.present(broadcast.keys, PRESENCE)))


def presence(app: HasBroadcast) -> PresenceWatch:
    """Tell who comes and goes, by ``async for``.

    It begins at the first item that is asked for, or at ``async with``, which returns when all changes from then on
    will be given. Each instance that comes is given once as `Joined`, and once as `Left` when it is gone. What could
    not be heard, because the connection was lost, is found by comparing: an instance that has come and gone meanwhile
    is not given at all. One that was paused for more than four seconds is given as `Left`, and then as `Joined`.
    """
    return PresenceWatch(app)


class PresenceWatch:
    """Gives who comes and goes; made by `presence`.

    Args:
        app: whose agents are meant.
    """

    def __init__(self, app: HasBroadcast) -> None:
        self._app = app
        self._known: dict[str, AgentInfo] = {}
        self._ready: deque[Joined | Left] = deque()
        self._listener: Listener[Envelope[Any] | Gap] | None = None

    async def __aenter__(self) -> Self:
        await self._opened()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Joined | Left:
        listener = await self._opened()
        while not self._ready:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    heard = await anext(listener)
            except TimeoutError:
                await self._compare()
                continue
            if isinstance(heard, Gap):
                await self._compare()
            else:
                self._note(heard)
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Hear no more."""
        if self._listener is not None:
            await self._listener.aclose()

    async def _opened(self) -> Listener[Envelope[Any] | Gap]:
        if self._listener is None:
            self._known = {info.member: info for info in await agents(self._app)}
            listener = Channel[Any](self._app.broadcast, PRESENCE).listen()
            self._listener = await listener.__aenter__()
            await self._compare()
        return self._listener

    def _note(self, message: Envelope[Any]) -> None:
        info = _info(message.payload, message.time_ms)
        if info is None:
            return
        if message.type == "joined" and info.member not in self._known:
            self._known[info.member] = info
            self._ready.append(Joined(info))
        elif message.type == "left" and info.member in self._known:
            self._ready.append(Left(self._known.pop(info.member)))

    async def _compare(self) -> None:
        try:
            here = {info.member: info for info in await agents(self._app)}
        except BrokerUnavailable:
            await asyncio.sleep(random.uniform(0, 1.0))  # noqa: S311 - spreads load
            return
        self._ready.extend(Left(info) for member, info in self._known.items() if member not in here)
        self._ready.extend(Joined(info) for member, info in here.items() if member not in self._known)
        self._known = here


def _infos(found: list[Present]) -> list[AgentInfo]:
    infos = [_info(from_json(one.info), one.until_ms - HOLDS_SECONDS * 1000) for one in found]
    return sorted((info for info in infos if info is not None), key=lambda info: (info.name, info.since, info.instance))


def _info(said: Any, seen_ms: float) -> AgentInfo | None:
    try:
        return AgentInfo(
            said["name"],
            said["instance"],
            tuple(said["capabilities"]),
            said["host"],
            said["pid"],
            moment(said["since_ms"] / 1000),
            moment(seen_ms / 1000),
        )
    except (KeyError, TypeError):  # of another version
        return None
