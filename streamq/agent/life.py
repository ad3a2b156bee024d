"""What runs while an agent is running: it is made at its start, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from functools import lru_cache, partial
from typing import Any

from streamq.agent import names
from streamq.agent.answering import Answering
from streamq.agent.assigning import Assigning
from streamq.agent.beating import Beat
from streamq.agent.consuming import Consumer
from streamq.agent.handlers import Handler, Handlers
from streamq.agent.hearing import Hearing
from streamq.agent.replies import Replies
from streamq.agent.running import Runner
from streamq.agent.service import Service
from streamq.agent.taking import Taking
from streamq.broker.channels import Retention
from streamq.channels.broadcast import Broadcast
from streamq.channels.channel import Channel
from streamq.channels.envelope import Envelope
from streamq.channels.gaps import Gap
from streamq.codec import encode_plain
from streamq.errors import ChannelError

_log = logging.getLogger("streamq.agents")

GRACE_SECONDS = 5.0
LEASE_SECONDS = 5.0
_REPLIES_KEPT = Retention(1000, 600.0)
_INBOX_GROUP, _TAKERS_GROUP = "agent", "takers"
_PREFETCH = 10
_MOST_CHANNELS = 1024  # that are kept ready

ChannelOf = Callable[[str], Channel[Any]]


class Life:
    """One run of an agent.

    Args:
        broadcast: what channels of the app share.
        name: of the agent.
        instance: of it.
        handlers: what it takes.
        concurrency: so many handlers run at a time.

    Attributes:
        replies: those to this instance.
        assigning: gives work to others.
        gaps: how many gaps it has been told of.
    """

    def __init__(self, broadcast: Broadcast, name: str, instance: str, handlers: Handlers, concurrency: int) -> None:
        self.gaps = 0
        self.replies: Replies
        self.assigning: Assigning
        self._broadcast = broadcast
        self._name = name
        self._instance = instance
        self._handlers = handlers
        self._runner = Runner(concurrency)
        self._beat = Beat(broadcast, f"{name}:{instance}", self._info())
        self._failure: Exception | None = None
        self._ended = asyncio.Event()
        self._stack = AsyncExitStack()

    def _info(self) -> bytes:
        said = {
            "name": self._name,
            "instance": self._instance,
            "capabilities": self._handlers.capabilities,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since_ms": time.time_ns() // 1_000_000,
        }
        return encode_plain(said)

    async def start(self, log: ChannelOf, plain: ChannelOf, followed: Sequence[str], grace: float) -> None:
        """Listen to everything, and then join. What has been begun ends again if this fails.

        Args:
            log: gives a durable channel by its name.
            plain: gives another one.
            followed: what is to be heard beside what all agents hear.
            grace: seconds for which handlers may go on at the end.
        """
        reply_channel = _reply_channels(self._broadcast, self._name)
        answering = Answering(self._name, self._runner, reply_channel, self._beat.server_ms)
        self.replies = Replies(reply_channel(names.replies(self._name, self._instance)), self._instance)
        self.assigning = Assigning(self._broadcast, self.replies, log, plain(names.TASKS))
        services = self._services(answering, log, plain, followed)
        async with AsyncExitStack() as stack:  # what is put in last ends first
            stack.push_async_callback(self.replies.aclose)
            await self.replies.start(self._failed)
            stack.push_async_callback(self._beat.aclose)
            for service in services:
                stack.push_async_callback(service.aclose)
            stack.push_async_callback(self._runner.end, grace)
            for service in services:
                stack.callback(service.finish)
            await self._beat.read_clock()
            for service in services:
                await service.start(self._failed)
            await self._beat.start()
            self._stack = stack.pop_all()

    def _services(
        self, answering: Answering, log: ChannelOf, plain: ChannelOf, followed: Sequence[str]
    ) -> list[Service]:
        async def receive(message: Envelope[Any]) -> None:
            if answering.is_late(message):
                _log.debug("agent %s: %s of %s came too late", self._name, message.type, message.sender)
                return
            handler = self._handlers.of_message(message.type)
            await answering.answer(message, handler, message.payload, f"message {message.type}")

        async def hear(message: Envelope[Any]) -> None:
            handler = self._handlers.of_message(message.type)
            if handler is not None:
                await self._runner.start(handled(message, handler))

        async def handled(message: Envelope[Any], handler: Handler) -> None:
            await answering.answer(message, handler, message.payload, f"message {message.type}")

        taking = Taking(self._broadcast, self._name, self._handlers, answering, plain(names.RESULTS))
        made: list[Service] = [self._consumer(log(names.inbox(self._name)), _INBOX_GROUP, receive, _PREFETCH)]
        made += [Hearing(plain(name), self._name, hear, self._missed) for name in (names.ALL, *followed)]
        if self._handlers.takes_jobs:
            made.append(Hearing(plain(names.TASKS), self._name, taking.hear, self._missed))
        for name, handler in self._handlers.job_channels():
            take = partial(taking.take_durable, handler=handler)
            made.append(self._consumer(log(name), _TAKERS_GROUP, take, 1))  # what this one has no other can take
        return made

    def _consumer(
        self, channel: Channel[Any], group: str, handle: Callable[[Envelope[Any]], Awaitable[object]], prefetch: int
    ) -> Consumer:
        member = f"{self._name}-{self._instance}"
        listener = channel.group(group, lease=LEASE_SECONDS, prefetch=prefetch, auto_ack=False, consumer=member)
        return Consumer(listener, self._runner, handle, self._missed)

    async def _missed(self, gap: Gap) -> None:
        self.gaps += 1
        _log.warning("agent %s: messages are missing: %s", self._name, gap)
        on_gap = self._handlers.on_gap
        if on_gap is not None:
            await self._runner.start(self._tell(on_gap, gap))

    async def _tell(self, on_gap: Callable[[Gap], Any], gap: Gap) -> None:
        await self._runner.call(on_gap, gap)

    def _failed(self, error: Exception) -> None:
        self.replies.fail(ChannelError(f"agent {self._name} listens no more: {error}"))
        self._failure = self._failure or error
        self._ended.set()

    async def wait(self) -> None:
        """Wait until `end` is called.

        Raises:
            Exception: it listens no more; this is why.
        """
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure

    def end(self) -> None:
        """Have `wait` return."""
        self._ended.set()

    async def stop(self) -> None:
        """Take nothing more, let handlers end, give the rest back, and leave."""
        await self._stack.aclose()


def _reply_channels(broadcast: Broadcast, sender: str) -> ChannelOf:
    @lru_cache(_MOST_CHANNELS)
    def make(name: str) -> Channel[Any]:
        return Channel(broadcast, name, durable=True, retention=_REPLIES_KEPT, sender=sender, listed=False)

    return make


@contextlib.contextmanager
def on_sigterm(then: Callable[[], object]) -> Iterator[None]:
    """Have something called at a SIGTERM, where this is possible: in the main thread."""
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGTERM)
    try:
        loop.add_signal_handler(signal.SIGTERM, then)
    except (NotImplementedError, RuntimeError, ValueError):  # not the main thread, or not this system
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
