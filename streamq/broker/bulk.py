"""Many messages on their way to their queues: how they are divided into calls, and what came of them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from streamq._redis.keys import Keys
from streamq._redis.scripts import Call
from streamq.broker import calls
from streamq.config import DEFAULT_LEVEL
from streamq.message import Message
from streamq.sending import level_of

_BULK = 250  # messages in one script; more would hold up other clients for over a millisecond
CONFIRMED_TOGETHER = 8  # scripts: an fsync can take a second, so that one for each would make a bulk slow


class Part(NamedTuple):
    """Some messages that go to one queue by one call.

    Attributes:
        queue: the queue's name.
        positions: where each of them stands among all.
        call: the call.
    """

    queue: str
    positions: Sequence[int]
    call: Call[calls.Enqueued]


def divide(keys: Keys, messages: Sequence[Message], together: int) -> Iterator[list[Part]]:
    """Divide messages into calls, in the order given for each queue and level.

    Args:
        keys: those of the namespace.
        messages: the messages.
        together: so many calls are to be sent in one round trip.
    """
    parts = _divide(keys, messages)
    while some := list(islice(parts, together)):
        yield some


def _divide(keys: Keys, messages: Sequence[Message]) -> Iterator[Part]:
    groups: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for position, message in enumerate(messages):
        level = level_of(message.options) if message.options else DEFAULT_LEVEL
        groups[message.queue, level].append(position)
    for (queue, level), group in groups.items():
        for start in range(0, len(group), _BULK):
            positions = group[start : start + _BULK]
            some = [messages[position] for position in positions]
            yield Part(queue, positions, calls.enqueue(keys.queue(queue), some, level))


def by_queue(messages: Sequence[Message]) -> Iterator[list[int]]:
    """Divide messages into parts of one queue, in their order; gives their positions."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for position, message in enumerate(messages):
        groups[message.queue].append(position)
    for positions in groups.values():
        for start in range(0, len(positions), _BULK):
            yield positions[start : start + _BULK]


def read(parts: Iterable[Part], found: Iterable[calls.Enqueued]) -> tuple[set[int], set[str]]:
    """Read replies: the positions of messages that were there already, and the queues whose names are to be noted."""
    known, to_note = set(), set()
    for part, one in zip(parts, found, strict=True):
        known |= {part.positions[position] for position in one.known}
        if one.to_note:
            to_note.add(part.queue)
    return known, to_note
