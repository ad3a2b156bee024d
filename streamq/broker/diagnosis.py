"""What the doctor asks a server: what it says of itself, how it is set up, and what we may do there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from streamq._redis.connections import AsyncConnection
from streamq._redis.keys import FLOW_PARTS, GROUP, Keys, QueueKeys
from streamq._redis.scripts import Call, Word, load
from streamq._redis.urls import EMBEDDED
from streamq.broker import calls, server
from streamq.config import Settings
from streamq.errors import BrokerError

T = TypeVar("T")

_FORBIDDEN = load("forbidden")

# What INFO does not tell.
_CONFIG = ("appendfsync", "client-output-buffer-limit", "save", "timeout")

# What the scripts do, by one example each; a word that names a key or channel stands for that of a queue.
_IN_SCRIPTS = [
    line.split()
    for line in (
        "EXISTS stream",
        "XACK stream group 0-1",
        "XADD stream * id 1",
        "XADD dead * id 1",
        "XCLAIM stream group consumer 0 0-1 JUSTID",
        "XDEL stream 0-1",
        "XLEN stream",
        "XGROUP CREATE stream group 0 MKSTREAM",
        "XGROUP DELCONSUMER stream group consumer",
        "XPENDING stream group - + 1",
        "XRANGE stream 0-1 0-1",
        "DEL record",
        "HDEL record waiters",
        "HEXISTS record state",
        "HGET record state",
        "HGETALL record",
        "HMGET record state",
        "HSET record state queued",
        "GET rate",
        "HKEYS places",
        "HLEN places",
        "HVALS places",
        "SET rate 1",
        "TYPE record",
        "PEXPIRE record 1000",
        "ZADD delayed 0 id",
        "ZCARD room",
        "ZRANGE room 0 1",
        "ZRANGEBYSCORE delayed -inf 0",
        "ZREM delayed id",
        "ZSCORE delayed id",
        "PUBLISH event {}",
        "PUBLISH done id",
        "PUBLISH signals 1",
        "PUBSUB NUMSUB beacon",
        "SADD queues name",
        "PERSIST graph",
        "HINCRBY record left 1",
        "HSTRLEN results 0",
        "GETRANGE states 0 1",
        "SETRANGE states 0 w",
        "LINDEX todo 0",
        "LLEN sends",
        "LPOP todo",
        "LRANGE sends 0 1",
        "LREM sends 1 0",
        "LSET todo 0 1",
        "RPUSH todo 1",
        "ZREMRANGEBYSCORE flows -inf 0",
        "TIME",
    )
]


class Answers(NamedTuple):
    """What a server said.

    Attributes:
        settings: of the app that is to use it.
        info: the fields of INFO.
        config: settings by name; or why it does not tell.
        forbidden: commands that streamq needs and may not run, as text; or why that is not known.
        clock_ahead: seconds by which its clock is certainly ahead of ours; negative: behind.
    """

    settings: Settings
    info: Mapping[str, str]
    config: Mapping[str, str] | BrokerError
    forbidden: Sequence[str] | BrokerError
    clock_ahead: float = 0.0

    @property
    def embedded(self) -> bool:
        """It is a server of ``embedded://``."""
        return self.settings.url.startswith(EMBEDDED)


def info() -> Call[dict[str, str]]:
    """Ask for all that INFO tells by default, which also servers before 7.0 understand."""
    return Call(("INFO",), server.read_info)


def config() -> Call[dict[str, str]]:
    """Ask for the settings that INFO does not tell."""

    def read(reply: list[bytes]) -> dict[str, str]:
        words = [word.decode() for word in reply]
        return dict(zip(words[::2], words[1::2], strict=True))

    return Call(("CONFIG", "GET", *_CONFIG), read)


def forbidden(keys: Keys, queues: Iterable[str]) -> Call[list[str]]:
    """Ask which of the commands that streamq needs to serve `queues` may not be run."""
    needed = [words for name in queues for words in _needed(keys, keys.queue(name))]

    def read(reply: list[int]) -> list[str]:
        return [" ".join(map(str, needed[position])) for position in reply]

    return Call(("EVALSHA", _FORBIDDEN.digest, 0, *map(json.dumps, needed)), read, _FORBIDDEN)


def _needed(keys: Keys, queue: QueueKeys) -> list[Sequence[Word]]:
    plain: list[Call[Any]] = [
        calls.fetch(dict.fromkeys(queue.all_streams, queue.name), "consumer", 1, 1),
        calls.claim(queue, queue.ready, "consumer", lease_ms=1, cursor=b"0-0", count=1),
        calls.consumers(queue.ready),
        server.client_id(),
        server.unblock(0),
        server.listeners(keys.beacon),
        calls.enqueue(queue, []),
    ]
    sent = [[word.decode() if isinstance(word, bytes) else word for word in call.words] for call in plain]
    _, rate, places, room = queue.room("limit:name")
    ours = {
        "stream": queue.ready,
        "queues": keys.queues,
        "dead": queue.dead,
        "record": queue.record("id"),
        "delayed": queue.delayed,
        "signals": queue.signals,
        "rate": rate,
        "places": places,
        "outbox": queue.outbox,
        "flows": queue.flows,
        **dict(zip(FLOW_PARTS, queue.flow("id")[1:], strict=True)),
        "room": room,
        "group": GROUP,
        "event": queue.events + "task:event",
        "done": keys.done + "client",
        "beacon": keys.beacon,
    }
    sent += [["SUBSCRIBE", ours["done"]], ["SUBSCRIBE", ours["signals"]]]
    sent += [["XADD", keys.worker_log, "*", "e", "{}"]] if keys.worker_log else []
    return [*sent, *([ours.get(word, word) for word in line] for line in _IN_SCRIPTS)]


async def ask(settings: Settings, queues: Iterable[str]) -> Answers:
    """Ask a server all that in three round trips, over a connection of its own.

    Args:
        settings: say where the server is, and the namespace.
        queues: names of the queues for which permissions are looked at.

    Raises:
        ConfigError: the URL cannot be used.
        BrokerError: the server cannot be reached, or does not even say what it is.
    """
    keys = Keys(settings.namespace, durable_events=settings.durable_events)
    connection = AsyncConnection(settings.url)
    try:
        before = time.time()
        said = await connection.run(info())
        after = time.time()
        setup = await _ask(connection, config())
        lacking = await _ask(connection, forbidden(keys, queues))
        return Answers(settings, said, setup, lacking, _clock_ahead(said, before, after))
    finally:
        await connection.close()


async def _ask(connection: AsyncConnection, call: Call[T]) -> T | BrokerError:
    try:
        return await connection.run(call)
    except BrokerError as error:
        return error


def _clock_ahead(said: Mapping[str, str], before: float, after: float) -> float:
    """Compare the clocks: it was read between two looks at ours, which may lie far apart."""
    theirs = int(said.get("server_time_usec", "0")) / 1_000_000 or before
    return min(0.0, theirs - before) + max(0.0, theirs - after)
