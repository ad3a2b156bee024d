"""The broker as those see it who only look: calls that change nothing, and the channels of events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from streamq._redis.connections import AsyncConnection, SyncConnection
from streamq._redis.keys import GROUP, Keys, QueueKeys
from streamq._redis.scripts import Call
from streamq._redis.subscriptions import messages
from streamq.broker import calls
from streamq.broker.records import UNKNOWN, Record
from streamq.config import Settings
from streamq.errors import BrokerError
from streamq.lifecycle import State


class Depth(NamedTuple):
    """How much there is of everything in one queue.

    Attributes:
        queue: the queue's name.
        entries: messages in its streams, those counted that workers have.
        pending: messages that workers have and that have not ended.
        delayed: tasks whose time has not come.
        dead: dead letters.
        oldest_ms: Redis time at which the oldest message came to its stream, ms; None: the streams are empty.
    """

    queue: str
    entries: int
    pending: int
    delayed: int
    dead: int
    oldest_ms: int | None


def length(stream: str) -> Call[int]:
    """Count the entries of a stream; 0 if there is none."""
    return Call(("XLEN", stream), int)


def oldest(stream: str) -> Call[int | None]:
    """Find when the oldest entry of a stream was added, Redis time in ms; None if there is no entry."""

    def read(reply: list[Any]) -> int | None:
        return int(reply[0][0].partition(b"-")[0]) if reply else None

    return Call(("XRANGE", stream, "-", "+", "COUNT", 1), read)


def pending(stream: str) -> Call[int]:
    """Count the pending entries of a stream that exists; 0 if it has no group, for which XPENDING would fail."""

    def read(reply: list[list[Any]]) -> int:
        groups = [dict(zip(group[::2], group[1::2], strict=True)) for group in reply]
        return sum(group[b"pending"] for group in groups if group[b"name"] == GROUP.encode())

    return Call(("XINFO", "GROUPS", stream), read)


def delayed(queue: QueueKeys) -> Call[int]:
    """Count the tasks whose time has not come."""
    return Call(("ZCARD", queue.delayed), int)


def now() -> Call[int]:
    """Ask for the server's time, ms."""
    return Call(("TIME",), lambda reply: int(reply[0]) * 1000 + int(reply[1]) // 1000)


async def depths(settings: Settings) -> tuple[int, list[Depth]]:
    """Measure all known queues in three round trips, however many there are.

    Returns:
        Redis time in ms, and the queues by name.

    Raises:
        BrokerError: Redis cannot be asked.
    """
    keys = Keys(settings.namespace)
    connection = AsyncConnection(settings.url)
    try:
        queues = [keys.queue(name) for name in await connection.run(calls.queue_names(keys))]
        asked = [call for queue in queues for call in _sizes(queue)]
        time_ms, *sizes = await connection.run_together(now(), *asked)
        each = len(asked) // len(queues) if queues else 1
        by_queue = dict(zip(queues, zip(*[iter(sizes)] * each, strict=True), strict=True))
        # Only streams that have entries are asked for those pending: one that does not exist would be an error.
        streams = [
            stream
            for queue, found in by_queue.items()
            for stream, entries in zip(queue.streams, found, strict=False)
            if entries
        ]
        held = await connection.run_together(*map(pending, streams)) if streams else []
    finally:
        await connection.close()
    pending_in = dict(zip(streams, held, strict=True))
    return time_ms, [_depth(queue, found, pending_in) for queue, found in by_queue.items()]


def _sizes(queue: QueueKeys) -> list[Call[Any]]:
    return [*map(length, queue.streams), *map(oldest, queue.streams), delayed(queue), length(queue.dead)]


def _depth(queue: QueueKeys, found: tuple[Any, ...], pending_in: dict[str, int]) -> Depth:
    returned, ready, oldest_returned, oldest_ready, waiting_for_time, dead = found
    return Depth(
        queue=queue.name,
        entries=returned + ready,
        pending=sum(pending_in.get(stream, 0) for stream in queue.streams),
        delayed=waiting_for_time,
        dead=dead,
        oldest_ms=min((ms for ms in (oldest_returned, oldest_ready) if ms is not None), default=None),
    )


def find_record(connection: SyncConnection, keys: Keys, task_id: str) -> tuple[str | None, Record]:
    """Look through all known queues for the record of a task, over a connection that is open; as `find`."""
    for name in connection.run(calls.queue_names(keys)):
        record = connection.run(calls.look(keys.queue(name), task_id))
        if record.state is not State.UNKNOWN:
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
        return find_record(connection, Keys(settings.namespace), task_id)
    finally:
        connection.close()


def listen(
    settings: Settings, *, queue: str = "*", task: str = "*", event: str = "*"
) -> Iterator[tuple[str, bytes] | BrokerError | None]:
    """Listen to the channels of events that match these patterns, for ever.

    Yields:
        As `subscriptions.messages`.
    """
    connection = SyncConnection(settings.url)
    try:
        yield from messages(connection, Keys(settings.namespace).events(queue=queue, task=task, event=event))
    finally:
        connection.close()
