"""How messages are moved to another queue, which may lie in another slot of a cluster. Pure: nothing is sent here.

Each is in one of three places, and each step can be made again: on its own queue; departed, in a set of that queue,
where no worker runs it; and, when the other queue has it, there. Whoever finds a departed message can go on: the mover,
the next mover, or a worker of the queue.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from streamq._redis.keys import GROUP, Keys, QueueKeys
from streamq._redis.scripts import Call, Word, load, nothing
from streamq.broker import calls, reads
from streamq.broker.gathering import gather
from streamq.broker.records import Record
from streamq.broker.walking import Steps
from streamq.lifecycle import State
from streamq.message import Delivery, Malformed, read_entry

_DEPART = load("depart")
_DEPART_LATER = load("depart_later")
_DEPARTING = load("departing")
_ARRIVE = load("arrive")
_FORWARD = load("forward")

_FORWARD_MS = 7 * 24 * 3600 * 1000  # for so long after it was due, the old queue knows where a task went


class Moved(NamedTuple):
    """What became of the messages that were to be moved.

    Attributes:
        moved: they are on the other queue, or will be as soon as somebody goes on.
        conflicts: their id is there that of another task; they stay where they were.
    """

    moved: int = 0
    conflicts: int = 0


def last_delivered(stream: str) -> Call[bytes]:
    """Find the entry of a stream that exists up to which workers have read."""

    def read(reply: list[list[Any]]) -> bytes:
        groups = [dict(zip(group[::2], group[1::2], strict=True)) for group in reply]
        return next((group[b"last-delivered-id"] for group in groups if group[b"name"] == GROUP.encode()), b"0-0")

    return Call(("XINFO", "GROUPS", stream), read)


def entries(queue: QueueKeys, stream: str, after: bytes, last: bytes) -> Call[list[Delivery | Malformed]]:
    """Read a page of entries, those after the one that is given."""

    def read(reply: list[Any]) -> list[Delivery | Malformed]:
        return [read_entry(queue.name, stream, entry, fields) for entry, fields in reply]

    return reads.page(stream, b"(" + after, last, read)


def members(key: str, first: int = 0) -> Call[list[tuple[str, bytes]]]:
    """Read a page of a sorted set of ids, each with its due time."""

    def read(reply: list[bytes]) -> list[tuple[str, bytes]]:
        return [(one.decode(), due) for one, due in zip(reply[::2], reply[1::2], strict=True)]

    return Call(("ZRANGE", key, first, first + reads.PAGE - 1, "WITHSCORES"), read)


def count(key: str) -> Call[int]:
    """Count the members of a sorted set."""
    return Call(("ZCARD", key), int)


def depart(queue: QueueKeys, stream: str, target: str, messages: Iterable[Delivery]) -> Call[int]:
    """Take messages that no worker has off their stream, to be put on `target`; returns how many."""
    keys = [stream, queue.moving]
    args: list[Word] = [GROUP, target]
    for one in messages:
        keys.append(queue.record(one.message.id))
        number = int(one.entry.partition(b"-")[2])  # that of the entry in its ms, to keep their order
        args += (one.entry, one.message.id, f"{one.enqueued_ms + min(number, 4095) / 4096:.6f}")
    return Call(("EVALSHA", _DEPART.digest, len(keys), *keys, *args), int, _DEPART)


def depart_later(queue: QueueKeys, target: str, task_ids: Sequence[str]) -> Call[int]:
    """Take delayed messages off their queue, to be put on `target`; returns how many."""
    keys = [queue.delayed, queue.moving, *map(queue.record, task_ids)]
    return Call(("EVALSHA", _DEPART_LATER.digest, len(keys), *keys, target, *task_ids), int, _DEPART_LATER)


def departing(queue: QueueKeys, task_ids: Sequence[str]) -> Call[list[list[bytes]]]:
    """Read the records of the first of some departed messages, each as names and values in turn; one at least."""
    keys = [*map(queue.record, task_ids)]
    return Call(("EVALSHA", _DEPARTING.digest, len(keys), *keys, reads.PAGE_BYTES), list, _DEPARTING)


def arrive(queue: QueueKeys, source: str, messages: Iterable[tuple[str, bytes, Sequence[bytes]]]) -> Call[list[int]]:
    """Put messages, given by id, due time and record, on a queue; returns the positions of those that cannot be."""
    keys = [queue.delayed]
    args: list[Word] = [queue.events, queue.name, source]
    for task_id, due, words in messages:
        keys.append(queue.record(task_id))
        args += (task_id, due, len(words), *words)
    keys.append(queue.log or keys[0])
    return Call(("EVALSHA", _ARRIVE.digest, len(keys), *keys, *args), list, _ARRIVE)


def forward(queue: QueueKeys, departed: Iterable[tuple[str, bool]]) -> Call[None]:
    """End the departure of messages, given by id and whether they have arrived."""
    keys = [queue.moving, queue.delayed]
    args: list[Word] = [_FORWARD_MS]
    for task_id, has_arrived in departed:
        keys.append(queue.record(task_id))
        args += (task_id, int(has_arrived))
    return Call(("EVALSHA", _FORWARD.digest, len(keys), *keys, *args), nothing, _FORWARD)


def carry(keys: Keys, source: QueueKeys) -> Steps[Moved]:
    """Bring all that has departed from a queue to where it is to go."""
    done = Moved()
    while found := (yield members(source.moving)):
        records = yield departing(source, [task_id for task_id, _ in found])
        by_target: defaultdict[bytes, list[tuple[str, bytes, Sequence[bytes]]]] = defaultdict(list)
        ends: list[tuple[str, bool]] = []
        for (task_id, due), words in zip(found, records, strict=False):
            known = dict(zip(words[::2], words[1::2], strict=True))
            if known.get(b"state") == b"delayed" and b"moving_to" in known:
                by_target[known[b"moving_to"]].append((task_id, due, words))
            else:  # somebody else went on, or the record was deleted
                ends.append((task_id, True))
        for target, messages in by_target.items():
            conflicts = set((yield arrive(keys.queue(target.decode()), source.name, messages)))
            yield calls.register_queues(keys, [target.decode()])
            ends += [(task_id, position not in conflicts) for position, (task_id, *_) in enumerate(messages)]
            done = Moved(done.moved + len(messages) - len(conflicts), done.conflicts + len(conflicts))
        yield forward(source, ends)
    return done


def move(keys: Keys, source: QueueKeys, target: str, on_progress: Callable[[int], object] | None) -> Steps[Moved]:
    """Move all messages of a queue that no worker has, those of the moment of the call."""
    done = yield from carry(keys, source)

    def add(taken: int, brought: Moved) -> int:
        """Count the messages of a page; returns how many have left the queue."""
        nonlocal done
        # The reply that told of some may have got lost, and a worker may have brought some.
        moved = max(brought.moved, taken - brought.conflicts)
        done = Moved(done.moved + moved, done.conflicts + brought.conflicts)
        if on_progress:
            on_progress(done.moved)
        return moved

    # First those that are delayed: what cannot arrive comes to them.
    left, stay = (yield count(source.delayed)), 0
    while left > 0 and (found := (yield members(source.delayed, stay))):
        taken = yield depart_later(source, target, [task_id for task_id, _ in found])
        moved = add(taken, (yield from carry(keys, source)))
        left, stay = left - len(found), stay + len(found) - moved
    for stream in source.all_streams:
        last = yield reads.newest(stream)
        after = (yield last_delivered(stream)) if last else b""
        while last and (page := (yield entries(source, stream, after, last))):
            after = page[-1].entry
            taken = yield depart(source, stream, target, [one for one in page if isinstance(one, Delivery)])
            add(taken, (yield from carry(keys, source)))
    return done


def look_there(keys: Keys, queue: str, task_id: str) -> Steps[Record]:
    """Read a record, there where the task is now."""
    while True:
        record: Record = yield calls.look(keys.queue(queue), task_id)
        if record.moved_to is None:
            return record
        queue = record.moved_to


def watch_there(keys: Keys, queue: str, task_id: str, client: str) -> Steps[Record]:
    """Read a record, there where the task is now, and have a client woken when the task ends.

    If it is a flow whose value is that of several tasks, this is put together when it has succeeded.

    Raises:
        UnknownTaskId: it was deleted meanwhile.
    """
    while True:
        record: Record = yield calls.watch(keys.queue(queue), task_id, client)
        if record.moved_to is None:
            break
        queue = record.moved_to
    if record.state is State.SUCCEEDED and record.out is not None and not record.body:
        record = replace(record, body=(yield from gather(keys.queue(queue), task_id, record.out)))
    return record


def forget_there(keys: Keys, queue: str, task_id: str) -> Steps[bool]:
    """Delete a record, there where the task is now; returns False if there is none."""
    while True:
        found: bool | str = yield calls.forget(keys.queue(queue), task_id)
        if isinstance(found, bool):
            return found
        queue = found
