"""The calls of those who look after dead letters, and how a letter is read. Pure: nothing is sent here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from streamq._redis.keys import GROUP, QueueKeys
from streamq._redis.scripts import Call, Word, load
from streamq.broker import reads
from streamq.message import Delivery, Malformed, read_entry

_REDRIVE = load("redrive")

_OURS = [b"reason", b"worker", b"entry", b"error"]


class Letter(NamedTuple):
    """One dead letter.

    Attributes:
        entry: its id in the stream of dead letters.
        reason: why it is there.
        worker: who put it there.
        error: the stored form of the error.
        message: what it was when it was read last; malformed if that is no message.
        fields: names and values of the message, in turn, as they were.
    """

    entry: bytes
    reason: bytes
    worker: bytes
    error: bytes
    message: Delivery | Malformed
    fields: list[bytes]


def read_letter(queue: QueueKeys, entry: bytes, found: list[bytes]) -> Letter:
    """Make a letter of an entry of the stream of dead letters, whatever it holds."""
    if found[:8:2] != _OURS:
        return Letter(entry, b"", b"", b"", Malformed(queue.name, queue.dead, entry, "is none of ours", None), found)
    reason, worker, source, error = found[1:8:2]
    fields = _unpacked(found[8:])
    return Letter(entry, reason, worker, error, read_entry(queue.name, queue.dead, source, fields), fields)


def _unpacked(fields: list[bytes]) -> list[bytes]:
    """Give the fields of a message that had so many that they were put into one, as JSON."""
    if len(fields) != 2 or fields[0] != b"fields":  # noqa: PLR2004 - a name and a value
        return fields
    try:
        words = json.loads(fields[1].decode("utf-8", "surrogateescape"))
        return [word.encode("utf-8", "surrogateescape") for word in words]
    except (ValueError, RecursionError, TypeError, AttributeError):
        return fields  # written by somebody else


class Redriven(NamedTuple):
    """How many letters were moved, and how many stay because their id is that of a task that is not dead."""

    moved: int
    conflicts: int


def letters(queue: QueueKeys, first: bytes, last: bytes) -> Call[list[Letter]]:
    """Read dead letters from `first` to `last`, a bounded number; none if there are no more."""

    def read(reply: list[Any]) -> list[Letter]:
        return [read_letter(queue, entry, found) for entry, found in reply]

    return reads.page(queue.dead, first, last, read)


def redrive(queue: QueueKeys, entries: Sequence[tuple[bytes, str]], *, reset: bool) -> Call[Redriven]:
    """Move letters, given by their entry and the id that their task is to have, back to the streams of their levels."""
    keys = [queue.dead, *queue.levels]
    args: list[Word] = [GROUP, queue.events, queue.name, "reset" if reset else "keep"]
    for entry, task_id in entries:
        keys.append(queue.record(task_id))
        args += (entry, task_id)
    keys.append(queue.log or keys[0])
    words = ("EVALSHA", _REDRIVE.digest, len(keys), *keys, *args)
    return Call(words, lambda reply: Redriven(*reply), _REDRIVE)


def purge(queue: QueueKeys, entries: Sequence[bytes]) -> Call[int]:
    """Delete dead letters; returns how many were there."""
    return Call(("XDEL", queue.dead, *entries), int)
