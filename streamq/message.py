"""Messages: one call of a task on its way, and one hand-over of it to a worker.

A message is a stream entry with the fields ``id``, ``task`` and ``args``, and after a return to the queue also
``fence`` (how often it was returned) and ``at`` (ms, when it was first enqueued). Unknown fields are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# Names and values together. Scripts pass the fields of an entry on, and can do so with some thousand words.
_MOST_WORDS = 200


class Message(NamedTuple):
    """One call of a task.

    Attributes:
        id: unique for as long as the task's record lives.
        task: the registered name of the function.
        queue: where it waits.
        args: the arguments as `codec` encodes them.
        delay_ms: how long it waits, from the enqueue on, before a worker may have it.
    """

    id: str
    task: str
    queue: str
    args: bytes
    delay_ms: int = 0


class Delivery(NamedTuple):
    """One hand-over of a message to a worker.

    Attributes:
        message: what was handed over.
        stream: the key of the stream it was read from.
        entry: the entry's id in that stream.
        fence: the number an outcome must carry; each later hand-over has a larger one.
        enqueued_ms: Redis time of the first enqueue, ms.
    """

    message: Message
    stream: str
    entry: bytes
    fence: int
    enqueued_ms: int

    @property
    def deliveries(self) -> int:
        """How many hand-overs there were, this one counted."""
        return self.fence + 1

    @property
    def attempt(self) -> int:
        """Which run that counts this is. Nothing is retried yet, and a run whose worker died does not count."""
        return 1


class Malformed(NamedTuple):
    """An entry that is not a message; `task_id` is there when at least that could be read."""

    queue: str
    stream: str
    entry: bytes
    reason: str
    task_id: str | None


def read_entry(queue: str, stream: str, entry: bytes, fields: Sequence[bytes] | None) -> Delivery | Malformed:
    """Make a delivery of one stream entry, whose `fields` alternate between name and value."""
    match fields:
        case [b"id", task_id, b"task", task, b"args", args]:  # as enqueued, and never returned since
            fence, enqueued = b"0", entry.partition(b"-")[0]
        case [*_] if len(fields) > _MOST_WORDS:
            return Malformed(queue, stream, entry, f"has {len(fields) // 2} fields", None)
        case _:
            named = dict(zip((fields or ())[::2], (fields or ())[1::2], strict=False))
            missing = [name for name in (b"id", b"task", b"args") if name not in named]
            if missing:
                reason = "has no " + ", ".join(name.decode() for name in missing)
                return Malformed(queue, stream, entry, reason, _readable(named.get(b"id")))
            task_id, task, args = named[b"id"], named[b"task"], named[b"args"]
            fence, enqueued = named.get(b"fence", b"0"), named.get(b"at", entry.partition(b"-")[0])
    try:
        message = Message(task_id.decode("ascii"), task.decode(), queue, args)
        return Delivery(message, stream, entry, int(fence), int(enqueued))
    except ValueError as error:
        return Malformed(queue, stream, entry, f"cannot be read: {error}", _readable(task_id))


def _readable(task_id: bytes | None) -> str | None:
    return task_id.decode("ascii") if task_id and task_id.isascii() else None
