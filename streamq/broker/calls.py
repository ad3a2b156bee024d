"""Builds the call of each script. Pure: nothing is sent here.

The order of keys and arguments is that of the header of the script of the same name in ``_redis/lua``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from streamq._redis.keys import GROUP, Keys, QueueKeys
from streamq._redis.scripts import Call, Word, load, nothing
from streamq.broker.records import Record, read_record
from streamq.config import DEFAULT_LEVEL
from streamq.lifecycle import Park, State
from streamq.message import Delivery, Malformed, Message, read_entry

_ENQUEUE = load("enqueue")
_DUE = load("due")
_PROMOTE = load("promote")
_FINISH = load("finish")
_BURY = load("bury")
_GIVE_BACK = load("give_back")
_PARK = load("park")
_RENEW = load("renew")
_RETIRE = load("retire")
_WATCH = load("watch")
_LOOK = load("look")
_FORGET = load("forget")
_ANNOUNCE = load("announce")
_CREATE_GROUP = load("create_group")
_REGISTER_QUEUES = load("register_queues")


class Enqueued(NamedTuple):
    """What an enqueue found.

    Attributes:
        to_note: the queue's name is to be noted: its stream was not there before; or a message was there already,
            because the reply that said that the queue is new may have got lost.
        known: positions of the messages whose id had a record already; they were left as they are.
    """

    to_note: bool
    known: list[int]


class Settlement(NamedTuple):
    """The outcome of one delivery, ready to be committed."""

    delivery: Delivery
    state: State
    body: bytes


class Due(NamedTuple):
    """What a look at a queue found.

    Attributes:
        task_ids: delayed tasks whose time has come.
        next_ms: the ms until the next task or room is due, if there is one.
        levels: those whose streams are there.
        paused: nobody is to fetch from the queue.
        moving: messages are on their way to another queue.
        outbox: something has to be done for flows.
        rooms: those where tasks wait for their turn, and which are to be looked at.
    """

    task_ids: list[str]
    next_ms: int | None
    levels: list[int]
    paused: bool
    moving: bool
    outbox: bool
    rooms: list[str]


def enqueue(queue: QueueKeys, messages: Iterable[Message], level: int = DEFAULT_LEVEL) -> Call[Enqueued]:
    """Put messages on a queue, all of one level; those with a known id are left alone."""
    keys = [queue.levels[level], queue.delayed]
    args: list[Word] = [GROUP, queue.events, queue.name]
    for message in messages:
        keys.append(queue.record(message.id))
        args += (message.id, message.task, message.args, message.delay_ms, message.options)
    keys.append(queue.log or keys[0])
    return Call(("EVALSHA", _ENQUEUE.digest, len(keys), *keys, *args), _read_enqueued, _ENQUEUE)


def _read_enqueued(reply: int | list[int]) -> Enqueued:
    if isinstance(reply, int):
        return Enqueued(reply == 1, [])
    return Enqueued(to_note=True, known=reply[1:])


def due(queue: QueueKeys, limit: int) -> Call[Due]:
    """Look for at most `limit` delayed tasks, and as many rooms, whose time has come."""

    def read(reply: list[Any]) -> Due:
        next_ms, paused, moving, outbox, levels, *found = reply
        tasks, rooms = ([member.decode() for member in some] for some in found)
        return Due(tasks, None if next_ms < 0 else next_ms, levels, bool(paused), bool(moving), bool(outbox), rooms)

    keys = [queue.delayed, queue.rooms, queue.paused, queue.moving, queue.outbox, *queue.levels]
    return Call(("EVALSHA", _DUE.digest, len(keys), *keys, limit), read, _DUE)


def promote(queue: QueueKeys, task_ids: Sequence[str]) -> Call[int]:
    """Move delayed tasks to the streams of their levels, those that are due; returns how many."""
    keys = [queue.delayed, *queue.levels, *map(queue.record, task_ids)]
    keys.append(queue.log or keys[0])
    args = (GROUP, queue.events, queue.name, *task_ids)
    return Call(("EVALSHA", _PROMOTE.digest, len(keys), *keys, *args), int, _PROMOTE)


def create_group(stream: str) -> Call[None]:
    """Create a stream and its group."""
    return Call(("EVALSHA", _CREATE_GROUP.digest, 1, stream, GROUP), nothing, _CREATE_GROUP)


def fetch(streams: dict[str, str], consumer: str, count: int, block_ms: int) -> Call[list[Delivery | Malformed]]:
    """Read new messages of `streams` (key to queue name), at most `count` from each, most urgent stream first."""

    def read(reply: list[Any] | None) -> list[Delivery | Malformed]:
        found = []
        for key, entries in reply or ():
            stream = key.decode()
            queue = streams[stream]
            found += [read_entry(queue, stream, entry, fields) for entry, fields in entries]
        return found

    words: list[Word] = ["XREADGROUP", "GROUP", GROUP, consumer, "COUNT", count]
    if block_ms:
        words += ["BLOCK", block_ms]
    return Call([*words, "STREAMS", *streams, *[">"] * len(streams)], read)


def held_by(queue: QueueKeys, stream: str, consumer: str, count: int) -> Call[list[Delivery | Malformed]]:
    """Read at most `count` entries that are pending under `consumer`."""

    def read(reply: list[Any] | None) -> list[Delivery | Malformed]:
        return [read_entry(queue.name, stream, entry, fields) for _, found in reply or () for entry, fields in found]

    return Call(("XREADGROUP", "GROUP", GROUP, consumer, "COUNT", count, "STREAMS", stream, "0"), read)


class Claimed(NamedTuple):
    """What a step of a sweep over the pending entries took, and where the next step begins."""

    cursor: bytes
    deliveries: list[Delivery | Malformed]
    bodies_lost: int


def claim(queue: QueueKeys, stream: str, consumer: str, *, lease_ms: int, cursor: bytes, count: int) -> Call[Claimed]:
    """Take over entries whose owner gave no sign of life for a lease, looking at a bounded number."""

    def read(reply: list[Any]) -> Claimed:
        found = [read_entry(queue.name, stream, entry, fields) for entry, fields in reply[1]]
        return Claimed(reply[0], found, len(reply[2]) if len(reply) > 2 else 0)  # noqa: PLR2004 - third part

    words = ("XAUTOCLAIM", stream, GROUP, consumer, lease_ms, cursor, "COUNT", count)
    return Call(words, read)


def finish(
    queue: QueueKeys, stream: str, settlements: Sequence[Settlement], *, done: str, worker: str, ttl_ms: int
) -> Call[list[int]]:
    """Commit outcomes of deliveries that all came from `stream`; returns the positions of the refused ones."""
    keys = [stream]
    args: list[Word] = [GROUP, queue.events, queue.name, done, worker, ttl_ms]
    for (message, _, entry, fence, *_), state, body in settlements:
        keys.append(queue.record(message.id))
        args += (entry, fence, state.value, body, message.id, message.task)
    keys.append(queue.log or keys[0])
    return Call(("EVALSHA", _FINISH.digest, len(keys), *keys, *args), list, _FINISH)


def bury(
    queue: QueueKeys,
    what: Delivery | Malformed,
    reason: str,
    error: bytes,
    *,
    done: str,
    worker: str,
    ttl_ms: int,
) -> Call[bool]:
    """Move one entry to the dead letters and end its task; False if it is another's by now."""
    keys = [what.stream, queue.dead, queue.outbox]
    args: list[Word] = [GROUP, queue.events, queue.name, done, worker, ttl_ms, what.entry, reason, error]
    if isinstance(what, Delivery):
        keys.append(queue.record(what.message.id))
        args += (what.fence, what.message.id, what.message.task)
    elif what.task_id:
        keys.append(queue.record(what.task_id))
        args += ("", what.task_id, "")
    keys.append(queue.log or keys[0])
    return Call(("EVALSHA", _BURY.digest, len(keys), *keys, *args), bool, _BURY)


class Owner(NamedTuple):
    """Whose deliveries are given back, and why.

    Attributes:
        consumer: the name under which they are pending.
        died: how it died under them; empty: it did not, or had not begun.
        max_deaths: so many deaths are too many for a message.
        error: the stored error of a task that had so many.
    """

    consumer: str
    died: str = ""
    max_deaths: int = 0
    error: bytes = b""


class GivenBack(NamedTuple):
    """How many deliveries were given back to the fleet, and how many went to the dead letters."""

    given: int
    buried: int


def give_back(
    queue: QueueKeys, stream: str, owner: Owner, deliveries: Sequence[Delivery], *, done: str, ttl_ms: int
) -> Call[GivenBack]:
    """Give deliveries that `owner` still holds back to the fleet."""
    keys = [stream, queue.returned, queue.dead, queue.outbox]
    args: list[Word] = [GROUP, queue.events, queue.name, done, ttl_ms, *owner]
    for delivery in deliveries:
        keys.append(queue.record(delivery.message.id))
        args += (delivery.entry, delivery.message.id)
    keys.append(queue.log or keys[0])
    return Call(("EVALSHA", _GIVE_BACK.digest, len(keys), *keys, *args), lambda reply: GivenBack(*reply), _GIVE_BACK)


def park(queue: QueueKeys, stream: str, parked: Sequence[tuple[Delivery, Park]], *, worker: str) -> Call[list[int]]:
    """Put deliveries that all came from `stream` back for later; returns the positions of the refused ones."""
    keys = [stream, queue.delayed]
    args: list[Word] = [GROUP, queue.events, queue.name, worker]
    for delivery, step in parked:
        keys.append(queue.record(delivery.message.id))
        wait_ms = round(step.seconds * 1000)
        args += (delivery.entry, delivery.fence, delivery.message.id, wait_ms, step.reason, step.attempt, step.error)
    keys.append(queue.log or keys[0])
    return Call(("EVALSHA", _PARK.digest, len(keys), *keys, *args), list, _PARK)


def renew(stream: str, owner: str, entries: Sequence[bytes], *, group: str = GROUP) -> Call[list[bytes]]:
    """Start the lease of entries anew; returns those that `owner` has no longer."""
    return Call(("EVALSHA", _RENEW.digest, 1, stream, group, owner, *entries), list, _RENEW)


class Consumer(NamedTuple):
    """A consumer of a stream's group: what is pending under its name, and the ms since it last asked for anything."""

    name: str
    pending: int
    idle_ms: int


def consumers(stream: str) -> Call[list[Consumer]]:
    """List the consumers of a stream that exists."""

    def read(reply: list[list[Any]]) -> list[Consumer]:
        found = (dict(zip(one[::2], one[1::2], strict=True)) for one in reply)
        return [Consumer(one[b"name"].decode(), one[b"pending"], one[b"idle"]) for one in found]

    return Call(("XINFO", "CONSUMERS", stream, GROUP), read)


def retire(stream: str, consumer: str, *, group: str = GROUP) -> Call[bool]:
    """Remove a consumer that has nothing pending; False if it has."""
    return Call(("EVALSHA", _RETIRE.digest, 1, stream, group, consumer), bool, _RETIRE)


def watch(queue: QueueKeys, task_id: str, client: str) -> Call[Record]:
    """Read a task's record, which goes if its message is gone; `client` will be woken if the task has not ended."""
    keys = [queue.record(task_id), *queue.all_streams]
    return Call(("EVALSHA", _WATCH.digest, len(keys), *keys, client), read_record, _WATCH)


def look(queue: QueueKeys, task_id: str) -> Call[Record]:
    """Read a task's record, and find out whether a worker has it."""

    def read(reply: list[Any]) -> Record:
        record = read_record(reply[0])
        if len(reply) > 1 and record.state is State.QUEUED:
            return replace(record, state=State.RUNNING, worker=reply[1][1].decode())
        return record

    keys = [queue.record(task_id), *queue.all_streams]
    return Call(("EVALSHA", _LOOK.digest, len(keys), *keys, GROUP), read, _LOOK)


def forget(queue: QueueKeys, task_id: str) -> Call[bool | str]:
    """Delete a record, now or when its task ends; False if there is none, a queue's name if the task is there now."""
    keys = [queue.chunks(task_id), queue.outbox, queue.flows, *queue.flow(task_id)]
    words: tuple[Word, ...] = ("EVALSHA", _FORGET.digest, len(keys), *keys, task_id)
    return Call(words, lambda reply: reply.decode() if isinstance(reply, bytes) else bool(reply), _FORGET)


def announce(log: str | None, events: Iterable[tuple[str, bytes]]) -> Call[None]:
    """Publish events, given as channel and text, and keep them if there is a log."""
    keys = [] if log is None else [log]
    words = [word for event in events for word in event]
    return Call(("EVALSHA", _ANNOUNCE.digest, len(keys), *keys, *words), nothing, _ANNOUNCE)


def register_queues(keys: Keys, names: Iterable[str]) -> Call[None]:
    """Note the names of queues, for those who look at all of them."""
    return Call(("EVALSHA", _REGISTER_QUEUES.digest, 1, keys.queues, *names), nothing, _REGISTER_QUEUES)


def queue_names(keys: Keys) -> Call[list[str]]:
    """All queues that are known."""
    return Call(("SMEMBERS", keys.queues), lambda reply: sorted(name.decode() for name in reply))
