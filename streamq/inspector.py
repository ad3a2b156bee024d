"""What operators read: single tasks, dead letters. Nothing here changes anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from streamq.broker import reads
from streamq.broker.letters import Letter
from streamq.codec import decode_plain
from streamq.config import Settings
from streamq.errors import ResultDecodeError
from streamq.lifecycle import State
from streamq.message import Delivery, Malformed
from streamq.progress import Progress

_LAST_MS = 253_402_300_799_999  # the end of the year 9999, where datetime ends


@dataclass(frozen=True, slots=True)
class TaskError:
    """Why a task failed or is dead.

    Attributes:
        type: the exception's type, such as ``ValueError`` or ``shop.errors.OutOfStock``.
        message: the exception's message.
        traceback: the traceback as text; may be empty.
    """

    type: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What is stored of one task.

    Attributes:
        id: the task's id.
        state: where it is in its life; `State.UNKNOWN`: there is no record of this id.
        queue: where it was enqueued.
        task: its registered name.
        attempt: which attempt runs, is next, or was the last.
        deaths: how many workers died under it.
        worker: who runs it, while it runs.
        ended: when it ended, by the clock of Redis.
        result: what it returned, when it has succeeded.
        error: why it has failed, is dead, was cancelled or has expired.
        failure: why its last attempt before this one failed; None if this is the first.
        progress: how far it has last said to be; None: it has said nothing.
    """

    id: str
    state: State
    queue: str | None = None
    task: str = ""
    attempt: int = 1
    deaths: int = 0
    worker: str | None = None
    ended: datetime | None = None
    result: Any = None
    error: TaskError | None = None
    failure: TaskError | None = None
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message in the dead letters.

    Attributes:
        queue: the queue it was on.
        letter_id: the id of the letter, such as ``mails:1795402736378-0``: its queue, and its entry in that queue's
            stream of dead letters.
        time: when it died, by the clock of Redis.
        task_id: the id of its task; None if it cannot be read.
        task: the registered name; empty if it cannot be read.
        reason: why it is here.
        error: the error that its task ended with.
        worker: which worker put it here.
        attempt: which run that counts was, or would have been, its next.
        deaths: how many workers died under it.
        enqueued_at: when it was first enqueued; None if that cannot be read.
        unreadable: why it is no message and cannot be redriven; None if it can.
        raw_args: the arguments as they were sent.
        fields: all that the message held, as pairs of name and value; names may occur again.
    """

    queue: str
    letter_id: str
    time: datetime
    task_id: str | None
    task: str
    reason: str
    error: TaskError
    worker: str
    attempt: int
    deaths: int
    enqueued_at: datetime | None
    unreadable: str | None
    raw_args: bytes = field(repr=False)
    fields: tuple[tuple[bytes, bytes], ...] = field(repr=False)

    @property
    def entry(self) -> bytes:
        """The id of its entry."""
        return self.letter_id.rpartition(":")[2].encode()

    @property
    def args(self) -> Any:
        """The arguments as plain JSON values: a list of positional ones or a dict of named ones; bytes if no JSON."""
        try:
            return decode_plain(self.raw_args)
        except ResultDecodeError:
            return self.raw_args


def task(settings: Settings, task_id: str) -> TaskInfo:
    """Look through all known queues for a task, by its id alone.

    Raises:
        ConfigError: the URL cannot be used.
        ResultDecodeError: what is stored is not JSON.
        BrokerError: Redis cannot be asked; it is asked once, and not again.
    """
    queue, record = reads.find(settings, task_id)
    return TaskInfo(
        id=task_id,
        state=record.state,
        queue=queue,
        task=record.task,
        attempt=record.attempt,
        deaths=record.deaths,
        worker=record.worker,
        ended=None if record.ended_ms is None else datetime.fromtimestamp(record.ended_ms / 1000, UTC),
        result=decode_plain(record.body) if record.state is State.SUCCEEDED and record.body else None,
        error=_error(record.body) if record.state.ended and record.state is not State.SUCCEEDED else None,
        failure=_error(record.failure) if record.failure else None,
        progress=record.progress,
    )


def _error(body: bytes) -> TaskError:
    stored: dict[str, Any] = decode_plain(body)
    return TaskError(stored["type"], stored["message"], stored["traceback"])


def dead_letter(queue: str, letter: Letter) -> DeadLetter:
    """Make a dead letter of what was read; anything may stand in it."""
    match letter.message:
        case Delivery(message=message) as delivery:
            task_id: str | None = message.id
            attempt, deaths, unreadable = delivery.attempt, delivery.deaths, None
            enqueued_at: datetime | None = _moment(delivery.enqueued_ms)
        case Malformed(reason=reason, task_id=task_id):
            attempt, deaths, unreadable, enqueued_at = 1, 0, reason, None
    fields = tuple(zip(letter.fields[::2], letter.fields[1::2], strict=False))
    known = dict(fields)
    return DeadLetter(
        queue=queue,
        letter_id=f"{queue}:{letter.entry.decode()}",
        time=_moment(int(letter.entry.partition(b"-")[0])),
        task_id=task_id,
        task=_text(known.get(b"task", b"")),
        reason=_text(letter.reason),
        error=_letter_error(letter.error),
        worker=_text(letter.worker),
        attempt=attempt,
        deaths=deaths,
        enqueued_at=enqueued_at,
        unreadable=unreadable,
        raw_args=known.get(b"args", b""),
        fields=fields,
    )


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(min(max(ms, 0), _LAST_MS) / 1000, UTC)


def _letter_error(stored: bytes) -> TaskError:
    try:
        error: Any = decode_plain(stored)
        return TaskError(str(error["type"]), str(error["message"]), str(error["traceback"]))
    except (ResultDecodeError, KeyError, TypeError):
        return TaskError("", _text(stored), "")
