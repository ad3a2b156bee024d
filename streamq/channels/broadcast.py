"""What all channels of an app share in one process."""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Sequence
from typing import Any

from streamq._redis.hub import Kind
from streamq._redis.keys import Keys
from streamq.broker import channels as calls
from streamq.broker.reach import Reach
from streamq.channels.envelope import Envelope, EnvelopeCodec
from streamq.channels.gaps import Gap
from streamq.channels.listener import Listener, LiveListener
from streamq.channels.publisher import Publisher
from streamq.channels.readers import LiveReader
from streamq.channels.renewing import Renewer
from streamq.config import Settings, check_channel, is_pattern

_broadcasts: weakref.WeakSet[Broadcast] = weakref.WeakSet()


def _begin_anew() -> None:
    for broadcast in _broadcasts:
        broadcast._begin()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_begin_anew)  # a child that went on with its parent's numbers would repeat them


class Broadcast:
    """What all channels of an app share in this process.

    Args:
        settings: of the app.
        reach: the app's own server.

    Attributes:
        sender: what this process is called as a sender: its host and process id.
        reach: the server of channels: the app's, or that of ``events_url``.
        publisher: sends what is published there.
        renewer: renews the leases of what groups have.
    """

    def __init__(self, settings: Settings, reach: Reach) -> None:
        self.settings = settings
        self.keys = Keys(settings.namespace)
        self.reach = reach if settings.events_url is None else Reach(settings.events_url)
        self._begin()
        _broadcasts.add(self)

    def _begin(self) -> None:
        self.sender = f"{socket.gethostname()}-{os.getpid()}"
        self.publisher = Publisher(self.reach, lambda name: calls.note(self.keys, name))
        self.renewer = Renewer(self.reach)

    def listen_to_all(self, names: Sequence[str], *, buffer: int) -> Listener[Envelope[Any] | Gap]:
        """Hear, as one, what is published on several channels, whatever it is; of what two names match, it comes once.

        Args:
            names: of channels, or patterns of names.
            buffer: so many messages may wait in this process to be read.

        Raises:
            ConfigError: one of them cannot be used.
        """
        topics = []
        for name in dict.fromkeys(names):
            kind = Kind.PATTERN if is_pattern(name) else Kind.CHANNEL
            topics.append((kind, self.keys.channel(check_channel(name, pattern=is_pattern(name))).channel))
        codec: EnvelopeCodec[Any] = EnvelopeCodec(Any, ", ".join(names), self.settings.max_message)
        reader = LiveReader(codec, self.keys.channel("").channel, gaps=True)
        return LiveListener(self.reach, topics, reader, buffer=buffer, when_full="drop_oldest")

    def close(self) -> None:
        """Close what threads use."""
        self.renewer.close()
        self.reach.close()

    async def aclose(self) -> None:
        """Close what this event loop and threads use."""
        self.renewer.close()
        await self.reach.aclose()
