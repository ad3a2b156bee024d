"""Sends what is published, in order, so that the numbers of a sender arrive in order.

On an event loop all that became ready while the last round trip was under way goes together; threads take turns. Each
has numbers of its own, since nothing orders what goes over two sockets.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from streamq._redis.scripts import Call
from streamq.broker.channels import Published
from streamq.broker.reach import Reach
from streamq.errors import BrokerError

T = TypeVar("T")

_MOST_COUNTERS = 10_000  # a channel that is forgotten is counted in a new session
_BATCH = 250


class Place(NamedTuple):
    """The place of a message among those of its session."""

    session: str
    sequence: int


Make = Callable[[Place], Call[Published]]


class _Counters:
    """Numbers messages, by channel and sender."""

    def __init__(self) -> None:
        self._counters: OrderedDict[tuple[str, str], Place] = OrderedDict()

    def next(self, channel: str, sender: str) -> Place:
        key = (channel, sender)
        last = self._counters.get(key)
        if last is None:
            last = Place(secrets.token_hex(6), 0)
            if len(self._counters) >= _MOST_COUNTERS:
                self._counters.popitem(last=False)
        place = self._counters[key] = Place(last.session, last.sequence + 1)
        return place

    def take_back(self, channel: str, sender: str) -> None:
        """Give a number back that was not sent."""
        session, sequence = self._counters[channel, sender]
        self._counters[channel, sender] = Place(session, sequence - 1)


class _Lane:
    """Sends from one event loop."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._counters = _Counters()
        self._ready: list[tuple[Call[Published], asyncio.Future[Published]]] = []
        self._sending: asyncio.Task[None] | None = None

    def send(self, channel: str, sender: str, make: Make) -> asyncio.Future[Published]:
        loop = asyncio.get_running_loop()
        place = self._counters.next(channel, sender)
        try:
            call = make(place)
        except BaseException:
            self._counters.take_back(channel, sender)
            raise
        future: asyncio.Future[Published] = loop.create_future()
        self._ready.append((call, future))
        if self._sending is None:
            self._sending = loop.create_task(self._send(), name="streamq-publisher")
        return future

    async def _send(self) -> None:
        try:
            while self._ready:
                batch, self._ready = self._ready[:_BATCH], self._ready[_BATCH:]
                await self._send_batch(batch)
        finally:
            self._sending = None
            for _, future in self._ready:  # the loop is being closed
                future.cancel()

    async def _send_batch(self, batch: list[tuple[Call[Published], asyncio.Future[Published]]]) -> None:
        replies: list[Published | BrokerError]
        try:
            if len(batch) == 1:  # without a pipeline it is there earlier
                published = await self._reach.on_loop.run(batch[0][0])
                replies = [published]
            else:
                replies = await self._reach.on_loop.run_each([call for call, _ in batch])
        except BrokerError as error:
            replies = [type(error)(*error.args) for _ in batch]
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        for (_, future), reply in zip(batch, replies, strict=True):
            if future.done():  # nobody waits any more
                continue
            if isinstance(reply, BrokerError):
                future.set_exception(reply)
            else:
                future.set_result(reply)


class Publisher:
    """Publishes on one server.

    Args:
        reach: the server.
        note: makes the call that notes the name of a durable channel.
    """

    def __init__(self, reach: Reach, note: Callable[[str], Call[None]]) -> None:
        self._reach = reach
        self._note = note
        self._lock = threading.Lock()
        self._counters = _Counters()
        self._lanes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Lane] = weakref.WeakKeyDictionary()

    async def apublish(self, channel: str, sender: str, make: Make) -> Published:
        """Number a message, make the call that publishes it, and send that after those before it.

        Raises:
            BrokerError: Redis does not do what is asked. After `BrokerUnavailable` it is not known whether the message
                was published; those who listen hear of a gap if it was not.
        """
        loop = asyncio.get_running_loop()
        lane = self._lanes.get(loop)
        if lane is None:
            lane = self._lanes[loop] = _Lane(self._reach)
        published = await lane.send(channel, sender, make)
        if published.is_first:
            await self._reach.on_loop.run(self._note(channel))
        return published

    def publish(self, channel: str, sender: str, make: Make) -> Published:
        """Publish a message from a thread, as `apublish` does."""
        with self._lock:
            place = self._counters.next(channel, sender)
            try:
                call = make(place)
            except BaseException:
                self._counters.take_back(channel, sender)
                raise
            published = self._reach.sync.run(call)
        if published.is_first:
            self._reach.sync.run(self._note(channel))
        return published
