"""What has been heard and not been read yet, within bounds. The hub's thread puts in, and one listener takes out."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

from streamq._redis.hub import Overrun
from streamq.channels.gaps import Reason
from streamq.channels.signal import Signal
from streamq.checks import is_whole
from streamq.errors import BrokerError, ConfigError, SlowListener

WhenFull = Literal["drop_oldest", "drop_newest", "block", "disconnect"]

# How long a listener that blocks may hold up its connection. What is published meanwhile fills the buffers of the
# sockets and then memory of the server, which is not to grow: so the connection is closed then.
_BLOCK_SECONDS = 1.0


def check_when_full(policy: str) -> None:
    """See that there is such a policy.

    Raises:
        ConfigError: there is none.
    """
    if policy not in get_args(WhenFull):
        raise ConfigError(f"when_full must be one of {', '.join(get_args(WhenFull))}, not {policy!r}")


@dataclass(slots=True)
class Counts:
    """What a listener has counted.

    Attributes:
        received: messages that came for it.
        dropped: those that were dropped because its buffer was full.
        unreadable: those that were no messages of the channel, and were skipped.
        repeated: those that were here before, and were skipped: their sender had no answer, and sent them again.
        reconnected: how often its connection was lost and is there again.
    """

    received: int = 0
    dropped: int = 0
    unreadable: int = 0
    repeated: int = 0
    reconnected: int = 0


@dataclass(slots=True)
class Missing:
    """Stands in the buffer where messages are missing.

    Attributes:
        reason: as in `Gap`.
        since: Unix time, s.
        dropped: how many were dropped here.
        last: by channel and session, how many of them, and the last.
    """

    reason: Reason
    since: float
    dropped: int = 0
    last: dict[tuple[bytes, bytes], tuple[int, bytes]] = field(default_factory=dict)

    def joined(self, later: Missing) -> Missing:
        """Put one that follows into this one."""
        self.dropped += later.dropped
        for key, (count, data) in later.last.items():
            self.last[key] = (self.last.get(key, (0, b""))[0] + count, data)
        return self


Heard = tuple[bytes, bytes]
"""The channel of a message, and its data."""


class Buffer:
    """The sink of one listener.

    Args:
        size: so many messages may wait.
        when_full: what becomes of one more.
        topics: so many names are subscribed.
        signal: is set when there is something to take out.
        origin: names the session that a message is of, by its data; of each the last that was dropped is kept.
        needle: what does not hold these bytes is not for this listener.

    Raises:
        ConfigError: the size or the policy cannot be used.
    """

    def __init__(
        self,
        size: int,
        when_full: WhenFull,
        topics: int,
        signal: Signal,
        origin: Callable[[bytes], bytes],
        *,
        needle: bytes = b"",
    ) -> None:
        if not is_whole(size) or size < 1:
            raise ConfigError(f"buffer must be a whole number of messages, 1 or more, not {size!r}")
        check_when_full(when_full)
        self.counts = Counts()
        self.failure: BaseException | None = None  # nothing more will come
        self.trouble: BrokerError | None = None  # the server is away
        self._size = size
        self._when_full = when_full
        self._to_join = topics
        self._signal = signal
        self._origin = origin
        self._needle = needle
        self._items: deque[Heard | Missing] = deque()
        self._room = threading.Condition()
        self._is_closed = False

    @property
    def has_joined(self) -> bool:
        """Everything that was subscribed has been heard of by the server."""
        return self._to_join <= 0

    def __len__(self) -> int:
        return len(self._items)

    # ---- what the hub's thread calls

    def take(self, channel: bytes, data: bytes) -> None:
        """Put a message in; the policy says what follows if there is no room."""
        if self._needle not in data:
            return
        with self._room:
            self.counts.received += 1
            if self.failure is not None:
                self.counts.dropped += 1
                return
            if len(self._items) >= self._size and not self._make_room(channel, data):
                return
            self._items.append((channel, data))
        self._signal.set()

    def joined(self, since: float | None) -> None:
        """Note that a name is subscribed, for the first time or again."""
        with self._room:
            self.trouble = None
            self._to_join -= 1
            last = self._items[-1] if self._items else None
            is_noted = isinstance(last, Missing) and last.reason == "reconnected"
            if since is not None and not is_noted:  # there is one for each name
                self.counts.reconnected += 1
                self._items.append(Missing("reconnected", since))
        self._signal.set()

    def away(self, error: BrokerError) -> None:
        """Note that the server is away. One who blocks has a hub of its own, which waits here until there is room."""
        self.trouble = error
        self._signal.set()
        if self._when_full == "block":
            with self._room:
                self._room.wait_for(lambda: self._is_closed or len(self._items) <= self._size // 2)

    def refused(self, error: BrokerError) -> None:
        """Note that the server does not allow it."""
        self.failure = error
        self._signal.set()

    def _make_room(self, channel: bytes, data: bytes) -> bool:
        match self._when_full:
            case "drop_oldest":
                self._drop_oldest()
                return True
            case "drop_newest":
                last = self._items[-1]
                if not isinstance(last, Missing) or last.reason != "overflow":
                    last = Missing("overflow", time.time())
                    self._items.append(last)
                self._drop(last, channel, data)
                return False
            case "disconnect":
                self.failure = SlowListener(f"this listener is {len(self._items)} messages behind: disconnected")
                self.counts.dropped += 1
                self._signal.set()
                return False
            case _:
                if not self._room.wait_for(self._has_room, _BLOCK_SECONDS):
                    self.counts.dropped += 1
                    raise Overrun
                return not self._is_closed

    def _has_room(self) -> bool:
        return self._is_closed or len(self._items) < self._size

    def _drop_oldest(self) -> None:
        gap = Missing("overflow", time.time())
        while self._items:
            oldest = self._items.popleft()
            if not isinstance(oldest, Missing):
                self._drop(gap, *oldest)
                break
            gap = oldest.joined(gap)  # one gap is as good as two that touch
        self._items.appendleft(gap)

    def _drop(self, missing: Missing, channel: bytes, data: bytes) -> None:
        self.counts.dropped += 1
        key = (channel, self._origin(data))
        missing.dropped += 1
        missing.last[key] = (missing.last.get(key, (0, b""))[0] + 1, data)

    # ---- what the listener calls

    def take_out(self, most: int) -> list[Heard | Missing]:
        """Give what has waited longest, in order."""
        with self._room:
            found = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            if self._when_full == "block":
                self._room.notify_all()
        return found

    def close(self) -> None:
        """Have nothing wait for room any more."""
        with self._room:
            self._is_closed = True
            self._room.notify_all()
