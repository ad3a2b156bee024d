"""The calls for what tasks say while they run: chunks, and how far they are. Pure: nothing is sent here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from streamq._redis.keys import Keys, QueueKeys
from streamq._redis.scripts import Call, Word, load
from streamq.broker.records import Record, read_record
from streamq.broker.walking import Steps
from streamq.message import Delivery
from streamq.progress import Progress

_EMIT = load("emit")
_PROGRESS = load("progress")
_READ_CHUNKS = load("read_chunks")

_PAGE = 500  # chunks that are read in one step; more would hold up other clients
_PAGE_BYTES = 1024 * 1024  # a page ends with the chunk that goes past this
_LEAST_TTL_MS = 3600 * 1000


class Place(NamedTuple):
    """Which chunk is meant: the delivery whose run emitted it, and its number in it, from 0."""

    delivery: int
    number: int


BEGIN = Place(0, -1)


class Page(NamedTuple):
    """Some of the chunks of a task's last delivery.

    Attributes:
        record: the task's record, without the result.
        last: the place of the last chunk that there is; its number is -1 if the delivery has none.
        chunks: the places and the values, as JSON, of those that come after the one that was given.
    """

    record: Record
    last: Place = BEGIN
    chunks: Sequence[tuple[Place, bytes]] = ()


def emit(
    queue: QueueKeys, delivery: Delivery, first: int, chunks: Sequence[bytes], *, done: str, ttl_ms: int
) -> Call[bool]:
    """Add chunks, of which the first has the index `first`, to those of a run; False if its task is another's by now.

    They are kept for as long as records are, but at least for an hour: that is the time to read them in.
    """
    message = delivery.message
    keys = (queue.record(message.id), queue.chunks(message.id))
    about = (done, message.id, delivery.entry, delivery.fence, max(ttl_ms, _LEAST_TTL_MS), first)
    return Call(("EVALSHA", _EMIT.digest, len(keys), *keys, *about, *chunks), bool, _EMIT)


def progress(queue: QueueKeys, task_id: str, said: Progress, fence: int | None = None) -> Call[bool | str]:
    """Note how far a task is, if it is the one of this fence; False if it has ended, is not known, or is another's.

    Returns the name of the queue where the task is now, if it was moved.
    """

    def read(reply: int | bytes) -> bool | str:
        return reply.decode() if isinstance(reply, bytes) else bool(reply)

    record = queue.record(task_id)
    about = (queue.events, queue.name, task_id, "" if fence is None else fence, said.encode())
    return Call(("EVALSHA", _PROGRESS.digest, 2, record, queue.log or record, *about), read, _PROGRESS)


def read_chunks(queue: QueueKeys, task_id: str, client: str, after: Place) -> Call[Page]:
    """Read chunks that come after one, and the record; `client` will be woken if there are more, and at the end."""

    def read(reply: list[Any]) -> Page:
        record = read_record(reply[0])
        if len(reply) == 1:
            return Page(record)
        _, delivery, last, entries = reply
        return Page(record, Place(delivery, last), [(_place(entry), fields[1]) for entry, fields in entries])

    keys = [queue.record(task_id), *queue.all_streams, queue.chunks(task_id)]
    about: list[Word] = [client, *after, _PAGE, _PAGE_BYTES]
    return Call(("EVALSHA", _READ_CHUNKS.digest, len(keys), *keys, *about), read, _READ_CHUNKS)


def _place(entry: bytes) -> Place:
    delivery, _, number = entry.partition(b"-")
    return Place(int(delivery), int(number))


def read_chunks_there(keys: Keys, queue: str, task_id: str, client: str, after: Place) -> Steps[Page]:
    """Read chunks, there where the task is now."""
    while True:
        page: Page = yield read_chunks(keys.queue(queue), task_id, client, after)
        if page.record.moved_to is None:
            return page
        queue = page.record.moved_to


def progress_there(keys: Keys, queue: str, task_id: str, said: Progress) -> Steps[bool]:
    """Note how far a task is, there where it is now; returns False if it has ended or is not known."""
    while True:
        found: bool | str = yield progress(keys.queue(queue), task_id, said)
        if isinstance(found, bool):
            return found
        queue = found
