"""The broker as those see it who only look: calls that change nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from streamq._redis.connections import SyncConnection
from streamq._redis.keys import GROUP, Keys, QueueKeys
from streamq._redis.scripts import Call, load
from streamq.broker import calls
from streamq.broker.records import UNKNOWN, Record
from streamq.broker.walking import Steps, complete
from streamq.config import LEVELS, Settings
from streamq.lifecycle import State

T = TypeVar("T")

_MEASURE = load("measure")
_HELD = load("held")
_PAGE = load("page")

PAGE = 100  # messages that are read, moved or deleted in one step; more would hold up other clients
PAGE_BYTES = 1024 * 1024  # a page ends with the message that goes past this

_MOST_ROOMS = 10_000  # that are looked into


class Depth(NamedTuple):
    """How much there is of everything in one queue.

    Attributes:
        queue: the queue's name.
        now_ms: Redis time of this look, ms.
        waiting: messages that no worker has, by the level of their stream; None: those that were returned.
        pending: messages that workers have and that have not ended.
        delayed: tasks whose time has not come.
        dead: dead letters.
        paused: nobody is to fetch from it.
        moving: messages on their way to another queue.
        added: messages that ever came to the streams of its levels.
        oldest_ms: Redis time at which the oldest message came to its stream, ms; None: the streams are empty.
    """

    queue: str
    now_ms: int
    waiting: dict[int | None, int]
    pending: int
    delayed: int
    dead: int
    paused: bool
    moving: int
    added: int
    oldest_ms: int | None

    @property
    def entries(self) -> int:
        """How many messages are in its streams."""
        return self.pending + sum(self.waiting.values())


def measure(queue: QueueKeys) -> Call[Depth]:
    """Find out how much there is of everything in a queue."""

    def read(reply: list[Any]) -> Depth:
        now_ms, delayed, dead, paused, moving, *streams = reply
        found = {level: one for level, one in zip((None, *LEVELS), streams, strict=True) if one}
        firsts = [int(first.partition(b"-")[0]) for *_, first in found.values() if first]
        return Depth(
            queue=queue.name,
            now_ms=now_ms,
            waiting={level: length - pending for level, (length, pending, *_) in found.items() if length > pending},
            pending=sum(pending for _, pending, *_ in found.values()),
            delayed=delayed,
            dead=dead,
            paused=bool(paused),
            moving=moving,
            added=sum(added for level, (_, _, added, _) in found.items() if level is not None),
            oldest_ms=min(firsts, default=None),
        )

    keys = [queue.delayed, queue.dead, queue.paused, queue.moving, *queue.all_streams]
    return Call(("EVALSHA", _MEASURE.digest, len(keys), *keys, GROUP), read, _MEASURE)


def rooms(queue: QueueKeys) -> Call[list[str]]:
    """List what tasks of a queue wait for when it is not their turn."""
    return Call(("ZRANGE", queue.rooms, 0, _MOST_ROOMS - 1), lambda reply: [member.decode() for member in reply])


def held(queue: QueueKeys, members: Sequence[str]) -> Call[int]:
    """Count the tasks that wait for their turn in these rooms."""
    keys = [queue.room(member)[3] for member in members]
    return Call(("EVALSHA", _HELD.digest, len(keys), *keys), int, _HELD)


def newest(stream: str) -> Call[bytes | None]:
    """Find the id of the last entry of a stream; None if there is none."""
    return Call(("XREVRANGE", stream, "+", "-", "COUNT", 1), lambda reply: reply[0][0] if reply else None)


def page(stream: str, first: bytes, last: bytes, read: Callable[[list[Any]], T]) -> Call[T]:
    """Read entries from `first` to `last`, a bounded number; `read` makes something of them."""
    return Call(("EVALSHA", _PAGE.digest, 1, stream, first, last, PAGE, PAGE_BYTES), read, _PAGE)


def now() -> Call[int]:
    """Ask for the server's time, ms."""
    return Call(("TIME",), lambda reply: int(reply[0]) * 1000 + int(reply[1]) // 1000)


def find_record(keys: Keys, task_id: str) -> Steps[tuple[str | None, Record]]:
    """Look through all known queues for the record of a task; returns what `find` does."""
    for name in (yield calls.queue_names(keys)):
        record = yield calls.look(keys.queue(name), task_id)
        if record.state is not State.UNKNOWN and not record.moved_to:
            return name, record
    return None, UNKNOWN


def find(settings: Settings, task_id: str) -> tuple[str | None, Record]:
    """Look through all known queues for the record of a task.

    Returns:
        The queue's name and the record; None and one of state unknown if there is no record.

    Raises:
        BrokerError: Redis cannot be asked.
    """
    connection = SyncConnection(settings.url)
    try:
        return complete(connection, find_record(Keys(settings.namespace), task_id))
    finally:
        connection.close()
