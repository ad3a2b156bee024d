"""One queue on an empty server, and its scripts, each called alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from streamq._redis.connections import SyncConnection
from streamq._redis.keys import GROUP, Keys
from streamq._redis.scripts import Call
from streamq.broker import calls, server
from streamq.lifecycle import Park, State
from streamq.message import Delivery, Malformed, Message
from streamq.sending import Steering
from tests.graphs import Flows
from tests.workers import until

T = TypeVar("T")
ERROR = b'{"type":"ValueError","message":"no tea","args":[],"traceback":""}'


class Bench:
    """The scripts of one queue, and what they find and leave in Redis."""

    def __init__(self, connection: SyncConnection) -> None:
        self.connection = connection
        self.keys = Keys("sq")
        self.queue = self.keys.queue("q")
        self.ready = self.queue.ready
        self.returned = self.queue.returned

    def run(self, call: Call[T]) -> T:
        return self.connection.run(call)

    def redis(self, *words: Any) -> Any:
        return self.connection.client.execute_command(*words)

    # ---- steps on the way to what is tested

    def enqueue(self, *ids: str, delay_ms: int = 0, level: int = 5) -> calls.Enqueued:
        options = Steering(level=None if level == 5 else level).encode()
        messages = [Message(one, "shop.buy", "q", b'["%b"]' % one.encode(), delay_ms, options) for one in ids]
        return self.run(calls.enqueue(self.queue, messages, level))

    def fetch(self, consumer: str = "w-1", *, stream: str | None = None) -> list[Any]:
        """Read all new entries, those of the stream of returned messages first."""
        streams = (self.returned, self.ready) if stream is None else (stream,)
        for key in streams:
            if not self.redis("EXISTS", key):
                self.run(calls.create_group(key))
        return self.run(calls.fetch(dict.fromkeys(streams, "q"), consumer, 100, 0))

    def deliver(self, *ids: str, consumer: str = "w-1", level: int = 5) -> list[Delivery]:
        """Enqueue messages and have a consumer read them."""
        self.enqueue(*ids, level=level)
        return self.fetch(consumer, stream=None if level == 5 else self.queue.levels[level])

    def add(self, *fields: bytes | str) -> bytes:
        """Write an entry by hand."""
        return self.redis("XADD", self.ready, "*", *fields)

    def make_due(self, *ids: str) -> None:
        """Have the time of delayed tasks come."""
        for one in ids:
            self.redis("ZADD", self.queue.delayed, "XX", 1, one)

    # ---- the calls, with what does not matter to most tests filled in

    def finish(
        self, *deliveries: Delivery, state: State = State.SUCCEEDED, body: bytes = b"1", ttl_ms: int = 60_000
    ) -> list[int]:
        settlements = [calls.Settlement(one, state, body) for one in deliveries]
        stream = deliveries[0].stream
        call = calls.finish(self.queue, stream, settlements, done=self.keys.done, worker="w-1", ttl_ms=ttl_ms)
        return self.run(call)

    def bury(self, what: Delivery | Malformed) -> bool:
        call = calls.bury(self.queue, what, "why", ERROR, done=self.keys.done, worker="w-1", ttl_ms=60_000)
        return self.run(call)

    def give_back(self, *deliveries: Delivery, owner: str = "w-1", died: str = "", max_deaths: int = 3) -> Any:
        by = calls.Owner(owner, died, max_deaths, ERROR)
        call = calls.give_back(self.queue, deliveries[0].stream, by, deliveries, done=self.keys.done, ttl_ms=60_000)
        return self.run(call)

    def park(
        self, *deliveries: Delivery, seconds: float = 60.0, attempt: int | None = None, error: bytes = b""
    ) -> list[int]:
        """Put deliveries back: for the next attempt if there is an error, else for the same."""
        parked = [(one, Park(seconds, "why", attempt or one.attempt + (error != b""), error)) for one in deliveries]
        return self.run(calls.park(self.queue, deliveries[0].stream, parked, worker="w-1"))

    # ---- what is there

    def record(self, task_id: str = "1") -> dict[str, str]:
        words = [word.decode() for word in self.redis("HGETALL", self.queue.record(task_id))]
        return dict(zip(words[::2], words[1::2], strict=True))

    def ttl_ms(self, task_id: str = "1") -> int:
        """Return the ms after which the record goes; -1: never, -2: it is gone."""
        return self.redis("PTTL", self.queue.record(task_id))

    def entries(self, stream: str) -> list[dict[str, str]]:
        """Return the entries of a stream, in order, each with its fields."""
        found = self.redis("XRANGE", stream, "-", "+")
        texts = [[word.decode() for word in fields] for _, fields in found]
        return [dict(zip(words[::2], words[1::2], strict=True)) for words in texts]

    def pending(self, stream: str) -> dict[str, str]:
        """Return the owners of the pending entries."""
        found = self.redis("XPENDING", stream, GROUP, "-", "+", 100)
        return {entry.decode(): owner.decode() for entry, owner, _, _ in found}

    def delayed(self) -> dict[str, int]:
        words = self.redis("ZRANGE", self.queue.delayed, 0, -1, "WITHSCORES")
        return {words[n].decode(): int(words[n + 1]) for n in range(0, len(words), 2)}

    def has_listeners(self) -> bool:
        return self.run(server.listeners(self.keys.beacon))

    def now(self) -> int:
        seconds, micros = self.redis("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    def everything(self) -> dict[bytes, bytes]:
        """Return the whole content of the server, to see whether something has changed."""
        return {key: self.redis("DUMP", key) for key in sorted(self.redis("KEYS", "*"))}

    @contextmanager
    def listening(self, *channels: str, pattern: bool = False, beacon: bool = True) -> Iterator[Any]:
        """Subscribe, and give a function that returns the next message as channel and text.

        By a pattern it is as a listener to events does, unless without the beacon.
        """
        pubsub = self.connection.client.pubsub()

        def next_message() -> tuple[str, bytes]:
            message = until(lambda: pubsub.get_message(timeout=1), seconds=5, why="no message")
            return message["channel"].decode(), message["data"]

        try:
            if pattern and beacon:
                pubsub.subscribe(self.keys.beacon)
                next_message()
            (pubsub.psubscribe if pattern else pubsub.subscribe)(*channels)
            for _ in channels:
                next_message()
            yield next_message
        finally:
            pubsub.close()


@pytest.fixture
def q(any_server, connection) -> Bench:
    """Give the scripts of a queue on each server."""
    return Bench(connection)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> None:
    """Scripts leave no threads; sockets are looked for once, at the end."""


@pytest.fixture
def flows(q) -> Flows:
    """Give the scripts of flows of that queue."""
    return Flows(q.connection)
