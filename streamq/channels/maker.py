"""``app.channel``: makes channels of an app."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from streamq.broker.channels import Retention
from streamq.channels.broadcast import Broadcast
from streamq.channels.channel import Channel

T = TypeVar("T")


class ChannelMaker:
    """Makes channels.

    Args:
        broadcast: what they share.
    """

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast

    @overload
    def __call__(
        self,
        name: str,
        kind: type[T],
        *,
        durable: bool = ...,
        max_length: int | None = ...,
        max_age: float | None = ...,
        sharded: bool = ...,
        sender: str | None = ...,
    ) -> Channel[T]: ...
    @overload
    def __call__(
        self,
        name: str,
        kind: Any = ...,
        *,
        durable: bool = ...,
        max_length: int | None = ...,
        max_age: float | None = ...,
        sharded: bool = ...,
        sender: str | None = ...,
    ) -> Channel[Any]: ...
    def __call__(
        self,
        name: str,
        kind: Any = Any,
        *,
        durable: bool = False,
        max_length: int | None = Retention.length,
        max_age: float | None = Retention.age,
        sharded: bool = False,
        sender: str | None = None,
    ) -> Channel[Any]:
        """Make a channel, by which processes tell each other things.

        Args:
            name: parts joined by colons, such as ``orders`` or ``agent:planner:events``; or a pattern with ``*`` and
                ``?``, which can only be listened to.
            kind: type of the payloads, anything that pydantic can validate; without it, whatever JSON can carry.
            durable: its messages are also kept, so that each group of consumers gets each of them, and listeners can
                begin in the past.
            max_length: so many messages are kept, at least; None: any number.
            max_age: for so many seconds, at least; None: for ever.
            sharded: it is published to the one node of a Redis Cluster that has its slot, and not to all. A cluster
                forwards anything else to every node, so more nodes do not carry more of it. In return it cannot be
                heard by a pattern. Whoever publishes and whoever listens must agree: one that is sharded and one that
                is not are two channels.
            sender: who publishes by it; by default the host and the process id.

        Raises:
            ConfigError: one of them cannot be used.
        """
        retention = Retention(max_length, max_age)
        return Channel(
            self._broadcast, name, kind, durable=durable, retention=retention, sharded=sharded, sender=sender
        )
