"""The calls of those who set up schedules and of those who fire them. Pure: nothing is sent here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from streamq._redis.keys import Keys, QueueKeys
from streamq._redis.scripts import Call, Word, load
from streamq.broker.batch import Put, enqueue_all
from streamq.message import Message

_DUE = load("due_schedules")
_FIRE = load("fire")
_DEFINE = load("define_schedule")
_READ = load("read_schedules")
_RESUME = load("resume_schedule")
_REMOVE = load("remove_schedule")

# A declaration in code that no worker repeats for so long no longer stands in the way of another.
STALE_MS = 5 * 60 * 1000


class Declaration(NamedTuple):
    """That a schedule is declared in code.

    Attributes:
        stored: as it is in Redis.
        repeated_ms: when a worker last said so, Redis time, ms.
    """

    stored: bytes
    repeated_ms: int


class DueSchedule(NamedTuple):
    """A schedule whose time has come.

    Attributes:
        name: its name.
        due_ms: its oldest instant that has not been dealt with, Redis time, ms.
        definition: what it is, as it is stored.
        declaration: None: it was added at run time.
    """

    name: str
    due_ms: int
    definition: bytes
    declaration: Declaration | None


class DueSchedules(NamedTuple):
    """Schedules whose time has come, Redis time, and the ms until the next one is due (None: there is none)."""

    now_ms: int
    next_ms: int | None
    due: list[DueSchedule]


class StoredSchedule(NamedTuple):
    """What is stored of a schedule.

    Attributes:
        definition: what it is; empty: there is no such schedule.
        next_ms: when it is due next, Redis time, ms; None: it is paused.
        fired_ms: the last instant that was fired; None: none was.
        declaration: None: it was added at run time.
    """

    definition: bytes
    next_ms: int | None
    fired_ms: int | None
    declaration: Declaration | None


class StoredSchedules(NamedTuple):
    """Redis time in ms, and schedules, in the order in which they were asked for."""

    now_ms: int
    schedules: list[StoredSchedule]


def due_schedules(queue: QueueKeys, passed_over: int, limit: int) -> Call[DueSchedules]:
    """Look for at most `limit` schedules whose time has come, after the first so many."""

    def read(reply: list[Any]) -> DueSchedules:
        now_ms, next_ms, *found = reply
        due = [DueSchedule(_text(name), round(float(at)), what, _declaration(by)) for name, at, what, by in found]
        return DueSchedules(now_ms, None if next_ms < 0 else next_ms, due)

    keys = queue.timetable
    return Call(("EVALSHA", _DUE.digest, len(keys), *keys, passed_over, limit), read, _DUE)


def fire(
    keys: Keys,
    queue: QueueKeys,
    one: DueSchedule,
    messages: Sequence[Message],
    *,
    next_ms: int,
    last: str,
    before: Put | None = None,
) -> Call[Put | None]:
    """Enqueue messages of a schedule, which is due next at `next_ms`; None if another has dealt with it.

    Args:
        keys: of the namespace.
        queue: those of the queue.
        one: the schedule as it was seen.
        messages: of its instants.
        next_ms: when it is due next.
        last: the last of the instants, Redis time in ms; empty if there is none.
        before: what came of the same call before, if locks are to be looked up; see `batch.enqueue_all`.
    """
    inner = enqueue_all(keys, messages, before)
    number = int(inner.words[2])
    of_all, args = inner.words[3 : 3 + number], inner.words[3 + number :]
    touched = (*of_all, *queue.timetable[:3])
    words = (*args, one.name, one.definition, one.due_ms, next_ms, last)

    def read(reply: Any) -> Put | None:
        return inner.parse(reply) if reply else None

    return Call(("EVALSHA", _FIRE.digest, len(touched), *touched, *words), read, _FIRE)


def define_schedule(
    queue: QueueKeys, name: str, definition: bytes, next_ms: int, since_ms: int | None = None
) -> Call[int]:
    """Say what a schedule is; `since_ms`: when the worker was started whose code declares it.

    The reply is 1 if that is new, 0 if it is not, -1 if a schedule of the other kind has the name.
    """
    keys = queue.timetable
    since = "" if since_ms is None else since_ms
    words: tuple[Word, ...] = (name, definition, next_ms, since, STALE_MS)
    return Call(("EVALSHA", _DEFINE.digest, len(keys), *keys, *words), int, _DEFINE)


def read_schedules(queue: QueueKeys, names: Sequence[str]) -> Call[StoredSchedules]:
    """Read schedules, also those that are not there."""

    def read(reply: list[Any]) -> StoredSchedules:
        now_ms, *found = reply
        return StoredSchedules(
            now_ms,
            [StoredSchedule(what, _number(at), _number(fired), _declaration(by)) for what, at, fired, by in found],
        )

    keys = queue.timetable
    return Call(("EVALSHA", _READ.digest, len(keys), *keys, *names), read, _READ)


def schedule_names(queue: QueueKeys) -> Call[list[str]]:
    """Name all schedules of a queue."""
    return Call(("HKEYS", queue.timetable[1]), lambda reply: sorted(map(_text, reply)))


def pause_schedule(queue: QueueKeys, name: str) -> Call[bool]:
    """Have a schedule not be due any more; False if it is paused or not there."""
    return Call(("ZREM", queue.timetable[0], name), bool)


def resume_schedule(queue: QueueKeys, name: str, next_ms: int) -> Call[bool]:
    """Have a paused schedule be due again; False if it is not paused or not there."""
    keys = queue.timetable[:2]
    return Call(("EVALSHA", _RESUME.digest, len(keys), *keys, name, next_ms), bool, _RESUME)


def remove_schedule(queue: QueueKeys, name: str, declaration: Declaration | None = None) -> Call[bool]:
    """Remove a schedule; False if it is not there, or if its declaration is another by now."""
    keys = queue.timetable
    declared = declaration.stored if declaration else b""
    return Call(("EVALSHA", _REMOVE.digest, len(keys), *keys, name, declared), bool, _REMOVE)


def _text(name: bytes) -> str:
    return name.decode(errors="replace")  # nobody but somebody's hand writes what is no UTF-8


def _number(stored: bytes) -> int | None:
    return round(float(stored)) if stored else None


def _declaration(stored: bytes) -> Declaration | None:
    repeated = stored.rpartition(b" ")[2]
    return Declaration(stored, int(repeated) if repeated.isdigit() else 0) if stored else None
