"""`Agent`: one of several processes that know of each other, tell and ask each other things, and share out work."""

from __future__ import annotations

import asyncio
import secrets
from functools import lru_cache
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from streamq.agent import claims, names
from streamq.agent.assigning import Work
from streamq.agent.claims import Claim
from streamq.agent.life import GRACE_SECONDS, Life, on_sigterm
from streamq.agent.payloads import reader_of
from streamq.agent.presence import HasBroadcast, agents
from streamq.agent.replies import value_of
from streamq.agent.taker import Taker
from streamq.broker.channels import Published
from streamq.channels.channel import Channel
from streamq.checks import is_number, is_whole
from streamq.config import check_name
from streamq.errors import BrokerError, ChannelError, ConfigError, RequestTimeout

T = TypeVar("T")

_CHANNELS = 1024  # that are kept ready
_LOOK_SECONDS = 1.0


class Agent(Taker):
    """One of several processes that tell each other things; several with one name are instances that share its inbox.

    Handlers are added first; then ``async with agent`` or ``await agent.run()`` has them called. Of each agent,
    `concurrency` handlers run at a time, so that messages may overtake each other; coroutine functions run on the event
    loop, other functions in threads.

    Args:
        name: letters, digits, ``_``, ``.`` and ``-``. It is the sender of all that the agent publishes.
        app: the app whose channels are used.
        capabilities: what it can do; others see them, and assignments may ask for one.
        concurrency: so many handlers run at a time.
        grace: seconds for which handlers may go on when the agent stops.

    Attributes:
        instance: the name of this one among those of the same name.

    Raises:
        ConfigError: one of them cannot be used.
    """

    def __init__(
        self,
        name: str,
        app: HasBroadcast,
        *,
        capabilities: tuple[str, ...] = (),
        concurrency: int = 32,
        grace: float = GRACE_SECONDS,
    ) -> None:
        if not is_whole(concurrency) or concurrency < 1:
            raise ConfigError(f"concurrency must be a whole number of handlers, 1 or more, not {concurrency!r}")
        if not is_number(grace) or grace < 0:
            raise ConfigError(f"grace must be a number of 0 or more seconds, not {grace!r}")
        super().__init__(tuple(capabilities))
        self.name = check_name("agent", name)
        self.instance = secrets.token_hex(4)
        self._app = app
        self._concurrency = concurrency
        self._grace = grace
        self._life: Life | None = None
        self._log = lru_cache(_CHANNELS)(self._make_log)
        self._plain = lru_cache(_CHANNELS)(self._make_plain)

    def __repr__(self) -> str:
        return f"<agent {self.name} ({self.instance})>"

    @property
    def gaps(self) -> int:
        """How many gaps it has been told of since it was started."""
        return 0 if self._life is None else self._life.gaps

    def _make_plain(self, name: str) -> Channel[Any]:
        return Channel(self._app.broadcast, name, sender=self.name)

    def _make_log(self, name: str) -> Channel[Any]:
        return Channel(self._app.broadcast, name, durable=True, sender=self.name)

    # ---- its life

    def _check_rest(self) -> None:
        if self._life is not None:
            raise ConfigError(f"agent {self.name} is running: say before what it takes")

    async def start(self) -> None:
        """Listen, and join: when this returns, it gets what is published, and others see it.

        Raises:
            ConfigError: it is running.
            BrokerError: the server cannot be reached, or refuses. The agent is not running then.
        """
        self._check_rest()
        life = self._life = Life(self._app.broadcast, self.name, self.instance, self._handlers, self._concurrency)
        try:
            await life.start(self._log, self._plain, self._followed, self._grace)
        except BaseException:
            self._life = None
            raise

    async def stop(self) -> None:
        """Take nothing more, let handlers end within the grace time, give the rest back, and leave."""
        life = self._life
        if life is not None:
            try:
                await life.stop()
            finally:
                self._life = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def run(self) -> None:
        """Run until this is cancelled, or, in the main thread, until a SIGTERM.

        Raises:
            BrokerError: the server cannot be reached at the start, or refuses later.
        """
        async with self:
            life = self._running
            with on_sigterm(life.end):
                await life.wait()

    @property
    def _running(self) -> Life:
        if self._life is None:
            raise ChannelError(
                f"agent {self.name} is not running, and hears no reply: async with agent, or agent.run()"
            )
        return self._life

    # ---- what it tells

    async def publish(self, payload: Any, *, type: str | None = None) -> Published:  # noqa: A002 - as the envelope
        """Publish a message on the agent's own channel, ``agent:NAME:events``; raises as `Channel.publish`."""
        return await self._plain(names.events(self.name)).publish(payload, type=type)

    async def broadcast(self, payload: Any, *, type: str | None = None) -> Published:  # noqa: A002 - as the envelope
        """Publish a message to all other agents, on ``agent:all:events``; raises as `Channel.publish`."""
        return await self._plain(names.ALL).publish(payload, type=type)

    async def send(self, to: str, payload: Any, *, type: str | None = None) -> Published:  # noqa: A002 - as the envelope
        """Put a message into the inbox of an agent: it gets it, even if it is away now, within a day.

        The last 10,000 are kept, at least. Raises as `Channel.publish`.
        """
        return await self._inbox_of(to).publish(payload, type=type)

    @overload
    async def request(
        self,
        to: str,
        payload: Any,
        *,
        reply: type[T],
        timeout: float = ...,  # noqa: ASYNC109
        type: str | None = ...,
    ) -> T: ...
    @overload
    async def request(
        self,
        to: str,
        payload: Any,
        *,
        reply: Any = ...,
        timeout: float = ...,  # noqa: ASYNC109
        type: str | None = ...,
    ) -> Any: ...
    async def request(
        self,
        to: str,
        payload: Any,
        *,
        reply: Any = Any,
        timeout: float = 5.0,  # noqa: ASYNC109 - the agent is told of it
        type: str | None = None,  # noqa: A002 - as the envelope
    ) -> Any:
        """Send a message to an agent and wait for its reply, which is what its handler returns.

        Args:
            to: the agent.
            payload: what to ask.
            reply: the type of the reply, anything that pydantic can validate.
            timeout: seconds. A request that has waited longer in the inbox is not handled any more.
            type: of the message; by default the name of the payload's class.

        Raises:
            RequestTimeout: no reply within the time; it says whether the agent is there.
            RemoteError: the handler raised, or there is none.
            ChannelError: the reply is not of the type expected; or this agent is not running.
            BrokerError: as `Channel.publish`.
        """
        replies, read = self._running.replies, reader_of(reply)
        inbox = self._inbox_of(to)
        with replies.expected() as (correlation, future):
            try:
                async with asyncio.timeout(timeout):
                    await inbox.publish(
                        payload, type=type, correlation_id=correlation, reply_to=replies.address, expires=timeout
                    )
                    return value_of(await future, read)
            except TimeoutError:
                pass
        said = type or payload.__class__.__name__
        raise RequestTimeout(f"agent {to} has not answered {said} within {timeout:g} s{await self._whether_there(to)}")

    @overload
    async def assign(
        self,
        payload: Any,
        *,
        reply: type[T],
        timeout: float = ...,  # noqa: ASYNC109
        durable: bool = ...,
        capability: str | None = ...,
        type: str | None = ...,
    ) -> T: ...
    @overload
    async def assign(
        self,
        payload: Any,
        *,
        reply: Any = ...,
        timeout: float = ...,  # noqa: ASYNC109
        durable: bool = ...,
        capability: str | None = ...,
        type: str | None = ...,
    ) -> Any: ...
    async def assign(
        self,
        payload: Any,
        *,
        reply: Any = Any,
        timeout: float = 30.0,  # noqa: ASYNC109 - those who take it are told of it
        durable: bool = True,
        capability: str | None = None,
        type: str | None = None,  # noqa: A002 - as the envelope
    ) -> Any:
        """Have one of the agents that take such work do it, and wait for its result.

        One agent gets it. If that dies, another does it again, within seconds: so it may be done twice, but the first
        result counts. The results of all are told on ``agent:coordination:results``.

        Args:
            payload: the work.
            reply: the type of the result, anything that pydantic can validate.
            timeout: seconds; what has not begun by then is not done.
            durable: it waits in a log until an agent takes it, which may come later; False: it is offered to those who
                are there, once a second, and the first to claim it does it.
            capability: what the agent must be able to do.
            type: of the payload; by default the name of its class.

        Raises:
            RequestTimeout: no result within the time; it says what was assigned, and who had claimed it if known.
            RemoteError: the agent's handler raised.
            ChannelError: the result is not of the type expected; or this agent is not running.
            BrokerError: as `Channel.publish`.
        """
        read = reader_of(reply)
        work = Work(payload, type or payload.__class__.__name__, timeout, capability)
        given = await self._running.assigning.assign(work, durable=durable)
        return value_of(given, read)

    async def claim(self, name: str, *, seconds: float) -> Claim | None:
        """Claim a name for a time, atomically: of all agents one has it.

        Returns:
            The claim; None: another has it.

        Raises:
            ConfigError: the name or the time cannot be used.
            BrokerError: Redis does not do what is asked.
        """
        return await claims.take(self._app.broadcast, name, f"{self.name}:{self.instance}", seconds)

    def _inbox_of(self, agent: str) -> Channel[Any]:
        return self._log(names.inbox(check_name("agent", agent)))

    async def _whether_there(self, agent: str) -> str:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                is_there = any(info.name == agent for info in await agents(self._app))
        except (TimeoutError, BrokerError):
            return ""
        return "; it is there" if is_there else "; it is not there"
