"""`Channel`: a name under which processes tell each other things, with the type of what they tell."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar, overload

from streamq._redis.hub import Kind
from streamq._redis.scripts import Call
from streamq.broker import channels as calls
from streamq.broker.channels import Published, Retention
from streamq.channels.broadcast import Broadcast
from streamq.channels.buffer import WhenFull
from streamq.channels.envelope import Envelope, EnvelopeCodec
from streamq.channels.gaps import Gap
from streamq.channels.group import GroupListener
from streamq.channels.listener import Listener, LiveListener, Reader
from streamq.channels.publisher import Place
from streamq.channels.readers import LiveReader, LogReader
from streamq.channels.replay import Replay
from streamq.checks import is_number
from streamq.config import check_channel, check_name, is_pattern
from streamq.errors import ConfigError

T = TypeVar("T")

BUFFER = 1000  # messages
LEASE_SECONDS = 30.0


class Channel(Generic[T]):
    """A name under which processes tell each other things; made by ``app.channel(...)``.

    Args:
        broadcast: what all channels of the app share.
        name: parts joined by colons, such as ``orders`` or ``agent:planner:events``; or a pattern with ``*`` and
            ``?``, which can only be listened to.
        kind: type of the payloads, anything that pydantic can validate; `Any`: whatever JSON can carry.
        durable: its messages are also kept in a log: each group gets each of them, late listeners can begin in the
            past, and nothing is missed but what `retention` removes.
        retention: how much of a durable channel is kept.
        sharded: it is published to the one node of a Redis Cluster that has its slot, and not to all; it cannot be
            heard by a pattern.
        sender: who publishes by it; by default the host and the process id.
        listed: its name is noted if it is durable, for those who look at all of them; not so if it is only for a while.

    Raises:
        ConfigError: one of them cannot be used.
    """

    def __init__(
        self,
        broadcast: Broadcast,
        name: str,
        kind: Any = Any,
        *,
        durable: bool = False,
        retention: Retention | None = None,
        sharded: bool = False,
        sender: str | None = None,
        listed: bool = True,
    ) -> None:
        self.is_pattern = isinstance(name, str) and is_pattern(name)
        self.name = check_channel(name, pattern=self.is_pattern)
        if self.is_pattern and (durable or sharded):
            raise ConfigError(f"channel {name}: a pattern cannot be durable or sharded")
        self.durable = durable
        self.sharded = sharded
        self._sender = sender
        self._listed = listed
        self._retention = retention or Retention()
        self._broadcast = broadcast
        self._keys = broadcast.keys.channel(name)
        self._codec: EnvelopeCodec[T] = EnvelopeCodec(kind, name, broadcast.settings.max_message)

    @property
    def sender(self) -> str:
        """Who publishes by it."""
        return self._broadcast.sender if self._sender is None else self._sender

    def __repr__(self) -> str:
        return f"<channel {self.name}>"

    async def publish(
        self,
        payload: T,
        *,
        type: str | None = None,  # noqa: A002 - as the envelope calls it
        correlation_id: str | None = None,
        reply_to: str | None = None,
        expires: float | None = None,
    ) -> Published:
        """Publish a message. From one event loop they go out in the order of these calls.

        Args:
            payload: what to tell.
            type: what it is; by default the name of its class.
            correlation_id: of a reply: that of what it replies to.
            reply_to: the channel on which a reply is expected.
            expires: seconds after which it is of no use any more.

        Returns:
            How many connections heard it, and its entry in the log if the channel is durable: then it is kept as
            safely as Redis keeps anything. Otherwise that it was published says nothing of who has heard it.

        Raises:
            ConfigError: the channel is a pattern.
            EncodeError: the payload is not of the channel's type, or no JSON. Nothing was sent.
            PayloadTooLarge: the message has more than ``max_message`` bytes. Nothing was sent.
            BrokerUnavailable: Redis did not answer; whether the message was published is not known. It is not sent
                again later; those who listen are told of a gap if it was not.
        """
        make = self._maker(payload, type, correlation_id, reply_to, expires)
        return await self._broadcast.publisher.apublish(self.name, self.sender, make)

    def publish_sync(
        self,
        payload: T,
        *,
        type: str | None = None,  # noqa: A002 - as the envelope calls it
        correlation_id: str | None = None,
        reply_to: str | None = None,
        expires: float | None = None,
    ) -> Published:
        """Publish a message from a thread, as `publish` does from an event loop."""
        make = self._maker(payload, type, correlation_id, reply_to, expires)
        return self._broadcast.publisher.publish(self.name, self.sender, make)

    def _maker(
        self, payload: T, kind: str | None, correlation_id: str | None, reply_to: str | None, expires: float | None
    ) -> Callable[[Place], Call[Published]]:
        if self.is_pattern:
            raise ConfigError(f"channel {self.name}: nothing can be published to a pattern")
        now = time.time_ns() // 1_000_000
        said = kind or payload.__class__.__name__
        expires_ms = None if expires is None else now + round(expires * 1000)

        def make(place: Place) -> Call[Published]:
            more = (correlation_id, reply_to, expires_ms)
            envelope = Envelope(payload, self.sender, said, self.name, now, place.session, place.sequence, *more)
            data = self._codec.encode(envelope)
            if not self.durable:
                return calls.publish(self._keys, data, sharded=self.sharded)
            numbered = (self._keys, data, place.session, place.sequence, self._retention)
            return calls.append(*numbered, sharded=self.sharded, listed=self._listed)

        return make

    @overload
    def listen(
        self,
        *,
        gaps: Literal[True] = ...,
        buffer: int = ...,
        when_full: WhenFull = ...,
        after: str | None = ...,
        since: datetime | None = ...,
    ) -> Listener[Envelope[T] | Gap]: ...
    @overload
    def listen(
        self,
        *,
        gaps: Literal[False],
        buffer: int = ...,
        when_full: WhenFull = ...,
        after: str | None = ...,
        since: datetime | None = ...,
    ) -> Listener[Envelope[T]]: ...
    def listen(
        self,
        *,
        gaps: bool = True,
        buffer: int = BUFFER,
        when_full: WhenFull = "drop_oldest",
        after: str | None = None,
        since: datetime | None = None,
    ) -> Listener[Any]:
        """Hear what is published: ``async for message in channel.listen()``, or ``for`` in a thread.

        It listens from the first item on that is asked for, or from ``async with`` (``with``) on, which returns when
        everything is heard that is published afterwards. If the connection is lost, it comes back by itself.

        Args:
            gaps: give a `Gap` where messages are missing; False: they are only logged.
            buffer: so many messages may wait in this process to be read.
            when_full: what becomes of one more: ``drop_oldest``, ``drop_newest``; ``block`` stops to read from the
                server, over a connection of this listener's own, and for a second at most, then the connection is
                closed and made again when there is room; ``disconnect`` ends the listener with `SlowListener`. A
                durable channel gets what was dropped from its log.
            after: of a durable channel: begin with what came after this entry.
            since: of a durable channel: begin with what came after this time, by the clock of Redis.

        Raises:
            ConfigError: one of them cannot be used.
            BrokerError: when it begins: the server cannot be reached, or refuses.
        """
        reader: Reader[Envelope[T] | Gap]
        start = _place(after, since)
        if self.durable:
            reader = LogReader(self._codec, self._keys, start, gaps=gaps)
        elif start is not None:
            raise ConfigError(f"channel {self.name}: only a durable channel can be heard from the past on")
        else:
            reader = LiveReader(self._codec, self._broadcast.keys.channel("").channel, gaps=gaps)
        kind = Kind.PATTERN if self.is_pattern else Kind.SHARD if self.sharded else Kind.CHANNEL
        topics = [(kind, self._keys.told(sharded=self.sharded))]
        return LiveListener(self._broadcast.reach, topics, reader, buffer=buffer, when_full=when_full)

    def replay(
        self, gap: Gap | None = None, *, after: str | None = None, since: datetime | None = None
    ) -> Listener[Envelope[T] | Gap]:
        """Read what a durable channel has kept, up to now: ``async for message in channel.replay(gap)``, or ``for``.

        Args:
            gap: what was missed by another listener to the channel. Messages of other senders come as well, also some
                that were heard: their ``id`` tells.
            after: begin with what came after this entry.
            since: begin with what came after this time, by the clock of Redis. With none of them: with the oldest.

        Raises:
            ConfigError: the channel is not durable, or more than one is given.
        """
        self._need_durable("replay")
        if gap is not None:
            after = after or gap.after
            since = since or (None if after else gap.since)
        start = _place(after, since) or "0-0"
        return Replay(self._broadcast.reach, LogReader(self._codec, self._keys, start, gaps=True, until_now=True))

    def group(
        self,
        group: str,
        *,
        after: str | None = None,
        since: datetime | None = None,
        lease: float = LEASE_SECONDS,
        prefetch: int = 10,
        auto_ack: bool = True,
        consumer: str | None = None,
    ) -> GroupListener[T]:
        """Consume a durable channel in a group: each group gets every message, and of its members one.

        A message counts as handled when the next one is asked for, or, without `auto_ack`, when it is given to
        ``ack``. What a member has and does not handle, because it died, goes to another after a lease.

        Args:
            group: its name.
            after: where a new group begins: after this entry; by default with the oldest message there is.
            since: the same, by a time.
            lease: seconds after which what a member has that gives no sign of life goes to another.
            prefetch: so many messages are taken at a time.
            auto_ack: whether asking for the next message acknowledges the one before.
            consumer: the name of this member; by default one that no other has.

        Raises:
            ConfigError: the channel is not durable, or one of them cannot be used.
        """
        self._need_durable("group")
        check_name("group", group)
        if not is_number(lease) or lease < 0.1:  # noqa: PLR2004 - as that of workers
            raise ConfigError(f"lease must be a number of 0.1 or more seconds, not {lease!r}")
        if not isinstance(prefetch, int) or prefetch < 1:
            raise ConfigError(f"prefetch must be a whole number of messages, 1 or more, not {prefetch!r}")
        return GroupListener(
            self._broadcast.reach,
            self._broadcast.renewer,
            self._keys,
            self._codec,
            group,
            start=_place(after, since) or "0",
            lease=lease,
            prefetch=prefetch,
            auto_ack=auto_ack,
            consumer=consumer,
            retention=self._retention,
            kind=Kind.SHARD if self.sharded else Kind.CHANNEL,
        )

    def _need_durable(self, what: str) -> None:
        if not self.durable:
            raise ConfigError(f"channel {self.name}: {what}() needs a durable channel: app.channel(..., durable=True)")


def _place(after: str | None, since: datetime | None) -> str | None:
    """Say where in a log to begin, as an entry after which to read."""
    if after is not None and since is not None:
        raise ConfigError("give after or since, and not both")
    if since is not None:
        if since.tzinfo is None:
            raise ConfigError(f"since needs its time zone: {since!r}")
        return f"{max(0, round(since.timestamp() * 1000) - 1)}-{2**64 - 1}"
    if after is not None:
        ms, _, nth = after.partition("-")
        if not (ms.isdigit() and (nth.isdigit() or not nth)):
            raise ConfigError(f"{after!r} is no entry of a log, such as 1795402736378-0")
    return after
