"""Messages: one call of a task on its way, and one hand-over of it to a worker.

A message is a stream entry with the fields ``id``, ``task`` and ``args``, with ``options`` if workers are to heed some,
and after a return to the queue also ``fence`` (how often it was returned), ``at`` (ms, when it was first enqueued),
``attempt`` (which run that counts is next), ``since`` (ms, when the first of them could begin) and ``deaths`` (how many
workers died under it). The field ``v`` is there only if its version is another than 1. Unknown fields are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

# Names and values together. Scripts pass the fields of an entry on, and can do so with some thousand words.
_MOST_WORDS = 200
_MOST_DIGITS = 15
VERSION = 1


class Lock(NamedTuple):
    """What keeps a call from being enqueued a second time.

    Attributes:
        name: the last part of the lock's key: the task's name and a digest of the arguments that count.
        rule: until when its holder has it: ``queued`` until a worker has begun with it, ``running`` until it has ended,
            ``done`` until `ttl_ms` have passed; and ``delayed`` until its time has come: till then another call's
            arguments and time replace its own.
        ttl_ms: when the lock ends at the latest, ms from the enqueue on.
        renews: those who find it held set `ttl_ms` anew.
        longest_ms: for how long the time of a delayed holder can be put off, ms from its enqueue on.
    """

    name: str
    rule: Literal["queued", "running", "done", "delayed"]
    ttl_ms: int
    renews: bool = False
    longest_ms: int | None = None


class Share(NamedTuple):
    """Whose turns a call takes.

    Attributes:
        key: calls with different ones take turns.
        weight: how many turns the key has for one of others.
    """

    key: str
    weight: float = 1.0


class Terms(NamedTuple):
    """On which terms a message is enqueued; most have none.

    Attributes:
        lock: what it has to take.
        order: the key of the line in which it has its place.
        share: whose turns it takes.
    """

    lock: Lock | None = None
    order: str | None = None
    share: Share | None = None


class Message(NamedTuple):
    """One call of a task.

    Attributes:
        id: unique for as long as the task's record lives.
        task: the registered name of the function.
        queue: where it waits.
        args: the arguments as `codec` encodes them.
        delay_ms: how long it waits, from the enqueue on, before a worker may have it; below 0: the negative of the
            Redis time at which a worker may, ms.
        options: what else of its enqueue workers are to heed, as `sending` encodes it; most messages have none.
        terms: what its enqueue itself has to heed; None of what was read from a stream.
    """

    id: str
    task: str
    queue: str
    args: bytes
    delay_ms: int = 0
    options: bytes = b""
    terms: Terms | None = None


class Delivery(NamedTuple):
    """One hand-over of a message to a worker.

    Attributes:
        message: what was handed over.
        stream: the key of the stream it was read from.
        entry: the entry's id in that stream.
        fence: the number an outcome must carry; each later hand-over has a larger one.
        enqueued_ms: Redis time of the first enqueue, ms.
        attempt: which run that counts this is, from 1; one whose worker died, or was stopped, does not count.
        deaths: how many workers died under it.
        since_ms: Redis time at which the first attempt could begin, ms.
        version: of the message; workers run none that is newer than they are.
    """

    message: Message
    stream: str
    entry: bytes
    fence: int
    enqueued_ms: int
    attempt: int = 1
    deaths: int = 0
    since_ms: int = 0
    version: int = VERSION

    @property
    def deliveries(self) -> int:
        """How many hand-overs there were, this one counted."""
        return self.fence + 1


class Malformed(NamedTuple):
    """An entry that is not a message; `task_id` is there when at least that could be read."""

    queue: str
    stream: str
    entry: bytes
    reason: str
    task_id: str | None


def read_entry(queue: str, stream: str, entry: bytes, fields: Sequence[bytes] | None) -> Delivery | Malformed:
    """Make a delivery of one stream entry, whose `fields` alternate between name and value."""
    added = entry.partition(b"-")[0]
    try:
        match fields:
            case [b"id", task_id, b"task", task, b"args", args]:  # as enqueued, and never returned since
                message = Message(task_id.decode("ascii"), task.decode(), queue, args)
                return Delivery(message, stream, entry, 0, int(added), 1, 0, int(added))
            case [*_] if len(fields) > _MOST_WORDS:
                return Malformed(queue, stream, entry, f"has {len(fields) // 2} fields", None)
        named = dict(zip((fields or ())[::2], (fields or ())[1::2], strict=False))
        version = _number(named, b"v", VERSION)
        needed = (b"id", b"task", b"args") if version <= VERSION else (b"id",)  # what else it has may have changed
        if missing := [name.decode() for name in needed if name not in named]:
            return Malformed(queue, stream, entry, f"has no {', '.join(missing)}", _readable(named.get(b"id")))
        task_id = named[b"id"]
        message = Message(
            task_id.decode("ascii"),
            named.get(b"task", b"").decode(),
            queue,
            named.get(b"args", b""),
            options=named.get(b"options", b""),
        )
        return Delivery(
            message,
            stream,
            entry,
            fence=_number(named, b"fence", 0),
            enqueued_ms=_number(named, b"at", int(added)),
            attempt=_number(named, b"attempt", 1),
            deaths=_number(named, b"deaths", 0),
            since_ms=_number(named, b"since", int(added)),
            version=version,
        )
    except ValueError as error:
        found = dict(zip((fields or ())[::2], (fields or ())[1::2], strict=False)).get(b"id")
        return Malformed(queue, stream, entry, f"cannot be read: {error}", _readable(found))


def _number(named: dict[bytes, bytes], name: bytes, default: int) -> int:
    """Read a number as scripts do, who know no underscores, signs or foreign digits as `int` does."""
    value = named.get(name)
    if value is None:
        return default
    if not value.isdigit() or len(value) > _MOST_DIGITS:
        raise ValueError(f"{name.decode()} is no number")
    return int(value)


def _readable(task_id: bytes | None) -> str | None:
    return task_id.decode("ascii") if task_id and task_id.isascii() else None
