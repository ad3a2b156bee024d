"""One subscription connection for all who listen in this process, read by a thread that does nothing else.

A thread, so that the socket is read whatever event loops and other threads are doing: what waits for a slow listener
waits in this process, within bounds that the listener has chosen, and never in the server, whose output buffers are
memory of all its clients. It also serves any number of event loops and threads at once. Beside a subscriber of
redis-py's on an event loop this costs a fifth more in latency, and nothing in throughput.

Pub/Sub loses messages without an error. What the hub can tell it tells: that a connection was lost, since when, and
that it is there again.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, Protocol

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from streamq._redis.failures import Backoff
from streamq.errors import BrokerError, BrokerUnavailable

_FAILURES = (RedisError, OSError)

# A connection on which nothing is heard for so long is asked for a sign of life, and given up when as much passes again
# without one: the server may be frozen, or cut off, and not be the master any more.
_SILENCE_SECONDS = 5.0
_LOOK_SECONDS = 1.0


class Kind(Enum):
    """How a name is subscribed: the command, the command that ends it, and the type of what comes."""

    CHANNEL = (b"SUBSCRIBE", b"UNSUBSCRIBE", b"message")
    PATTERN = (b"PSUBSCRIBE", b"PUNSUBSCRIBE", b"pmessage")
    SHARD = (b"SSUBSCRIBE", b"SUNSUBSCRIBE", b"smessage")

    @property
    def begin(self) -> bytes:
        """The command that subscribes."""
        return self.value[0]

    @property
    def end(self) -> bytes:
        """The command that ends it."""
        return self.value[1]


class Overrun(Exception):
    """Raised by a sink that has no room, to have the connection closed before the server has to keep what it sends."""


class Sink(Protocol):
    """Takes what is heard. Called from the hub's thread, which must not be kept waiting."""

    def take(self, channel: bytes, data: bytes) -> None:
        """One message."""

    def joined(self, since: float | None) -> None:
        """From now on everything is heard; what was published after `since` (Unix time, s) may not have been.

        None: nothing was heard before.
        """

    def away(self, error: BrokerError) -> None:
        """The server is away, or cannot be reached; `joined` follows when it is there again."""

    def refused(self, error: BrokerError) -> None:
        """Nothing more will come: the server does not allow this subscription, or the app was closed."""


class Lines(Protocol):
    """Gives sockets to listen by."""

    def line(self) -> Any:
        """Open a socket for one who listens, and give it as redis-py's connection."""

    def hang_up(self, line: Any) -> None:
        """Close a socket that was opened by `line`."""

    def failed(self, error: Exception) -> BrokerError:
        """Do what follows `error`, and return what it means."""


class _Topic:
    """One name that is subscribed, and for whom."""

    def __init__(self, kind: Kind, name: bytes) -> None:
        self.kind = kind
        self.name = name
        self.sinks: tuple[Sink, ...] = ()
        self.confirmed = False
        self.heard_until: float | None = None  # Unix time; None: the connection has not been lost yet


class Hub:
    """Subscribes names and passes on what comes. Every method may be called from any thread.

    Args:
        connection: whose server to listen to; a socket of its own is opened at the first subscription.

    Attributes:
        heard_at: Unix time of the last sign of life, s.
    """

    def __init__(self, connection: Lines) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self._topics: dict[bytes, dict[bytes, _Topic]] = {kind.value[2]: {} for kind in Kind}
        self._socket: Any = None
        # What replies are due for, in order: a subscription, the name of one that ends, or nothing.
        self._asked: deque[_Topic | bytes | None] = deque()
        self._error: BrokerError | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self.heard_at = 0.0

    def subscribe(self, kind: Kind, name: str, sink: Sink) -> None:
        """Have `sink` hear what is published under a name, or under names that match a pattern."""
        with self._lock:
            topics = self._topics[kind.value[2]]
            topic = topics.get(name.encode())
            if topic is None:
                topic = topics[name.encode()] = _Topic(kind, name.encode())
                self._ask([topic])
            topic.sinks = (*topic.sinks, sink)
            if topic.confirmed:
                sink.joined(None)
            elif self._error is not None:
                sink.away(self._error)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="streamq-hub", daemon=True)
                self._thread.start()

    def unsubscribe(self, kind: Kind, name: str, sink: Sink) -> None:
        """Have `sink` hear no more of it."""
        with self._lock:
            topic = self._topics[kind.value[2]].get(name.encode())
            if topic is None:
                return
            topic.sinks = tuple(one for one in topic.sinks if one is not sink)
            if not topic.sinks:
                del self._topics[kind.value[2]][topic.name]
                self._send([(kind.end, topic.name)], [topic.name])

    def close(self) -> None:
        """Stop listening; the thread ends and its socket is closed. Those who hear are told that nothing more comes."""
        self._closing.set()
        with self._lock:
            self._send([(b"PING",)], [None])  # wakes the thread
            thread, self._thread = self._thread, None
            sinks = [sink for topic in self._every_topic() for sink in topic.sinks]
        for sink in sinks:
            sink.refused(BrokerUnavailable("the app was closed while this was listening"))
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=_LOOK_SECONDS * 2)

    # ---- what is sent, by any thread

    def _ask(self, topics: Sequence[_Topic]) -> None:
        self._send([(topic.kind.begin, topic.name) for topic in topics], topics)

    def _send(self, commands: list[tuple[bytes, ...]], due: Iterable[_Topic | bytes | None]) -> None:
        """Send commands, if there is a connection; each has one reply. All of this is sent anew to the next one."""
        if self._socket is None or not commands:
            return
        self._asked.extend(due)
        packed = b"".join(part for words in commands for part in self._socket.pack_command(*words))
        # redis-py would close the socket when sending fails, under the thread that reads.
        line = self._socket._sock  # noqa: SLF001
        if line is None:  # that thread has closed it
            return
        try:
            line.sendall(packed)
        except OSError:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)  # so that it finds out

    # ---- what is read, by the hub's own thread

    def _run(self) -> None:
        backoff = Backoff()
        while not self._closing.is_set():
            try:
                self._open()
                backoff.reset()
                self._read()
            except Overrun:
                self._lost(BrokerUnavailable("the connection was closed: the listener has no room"))
            except _FAILURES as error:
                self._lost(self._connection.failed(error))
                self._closing.wait(backoff.next())
        self._drop()

    def _open(self) -> None:
        line = self._connection.line()
        with self._lock:
            self._socket = line
            self._error = None
            self._asked.clear()
            self._ask(self._every_topic())

    def _drop(self) -> None:
        with self._lock:
            line, self._socket = self._socket, None
        if line is not None:
            self._connection.hang_up(line)

    def _lost(self, error: BrokerError) -> None:
        self._drop()
        with self._lock:
            if self._error is not None or self._closing.is_set():
                return
            self._error = error
            for topic in self._every_topic():
                if topic.confirmed:
                    topic.confirmed, topic.heard_until = False, self.heard_at
            sinks = [sink for topic in self._every_topic() for sink in topic.sinks]
        for sink in sinks:  # without the lock: one that has a hub of its own may wait here for room
            sink.away(error)

    def _every_topic(self) -> list[_Topic]:
        return [topic for topics in self._topics.values() for topic in topics.values()]

    def _read(self) -> None:
        line, topics = self._socket, self._topics
        heard, is_asked = time.monotonic(), False
        while not self._closing.is_set():
            if not line.can_read(timeout=_LOOK_SECONDS):
                silence = time.monotonic() - heard
                if silence > 2 * _SILENCE_SECONDS:
                    raise RedisConnectionError("the server has given no sign of life")
                if silence > _SILENCE_SECONDS and not is_asked:
                    is_asked = True
                    with self._lock:
                        self._send([(b"PING",)], [None])
                continue
            try:
                frame = line.read_response(disable_decoding=True)
            except ResponseError as error:
                self._answered(None, self._connection.failed(error))
                continue
            heard, is_asked = time.monotonic(), False
            self.heard_at = time.time()
            if (found := topics.get(frame[0])) is None:
                self._answered(frame, None)
            elif (topic := found.get(frame[1])) is not None and topic.confirmed:  # else it is of one that has ended
                for sink in topic.sinks:
                    sink.take(frame[-2], frame[-1])

    def _answered(self, frame: list[Any] | None, error: BrokerError | None) -> None:
        """Take the reply to the first command that waits for one."""
        with self._lock:
            due = self._asked[0] if self._asked else None
            if frame is not None and frame[0] == b"sunsubscribe" and frame[1] != due:  # nobody has asked for it
                moved = BrokerUnavailable("the slot of a channel has moved to another node")
                self._refused(self._topics[b"smessage"].get(frame[1]), moved)
                return
            topic = self._asked.popleft() if self._asked else None
            if error is not None:
                self._refused(topic, error)
            elif isinstance(topic, _Topic) and topic.sinks:
                topic.confirmed = True
                for sink in topic.sinks:
                    sink.joined(topic.heard_until)

    def _refused(self, topic: _Topic | bytes | None, error: BrokerError) -> None:
        if not isinstance(topic, _Topic) or self._topics[topic.kind.value[2]].get(topic.name) is not topic:
            return
        del self._topics[topic.kind.value[2]][topic.name]
        for sink in topic.sinks:
            sink.refused(error)
