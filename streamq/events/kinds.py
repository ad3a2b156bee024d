"""What happens to tasks and workers: a class for each type of event."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json

from streamq.events.event import TEXTS, Event, TaskEvent

_NUMBERS = (int, float)


class TaskQueued(TaskEvent):
    """A task is on its queue, for workers to fetch."""

    __slots__ = ()
    TYPE = "task.queued"


class TaskDelayed(TaskEvent):
    """A task waits for its time."""

    __slots__ = ()
    TYPE = "task.delayed"

    @property
    def due(self) -> datetime | None:
        """When its time comes."""
        return self._told("due", datetime)

    @property
    def reason(self) -> str | None:
        """Why a worker has put it off; None: it was enqueued so."""
        return self._told("reason", str)


class TaskHeld(TaskEvent):
    """A task waits for its turn."""

    __slots__ = ()
    TYPE = "task.held"

    @property
    def reason(self) -> str | None:
        """What it waits for, such as ``limit:NAME:KEY``, ``order:KEY`` or ``fair``."""
        return self._told("reason", str)


class TaskStarted(TaskEvent):
    """A worker has a task, and begins it."""

    __slots__ = ()
    TYPE = "task.started"

    @property
    def deliveries(self) -> int | None:
        """How often its message was handed to a worker, this time counted."""
        return self._told("deliveries", int)


class TaskProgress(TaskEvent):
    """A task has said how far it is."""

    __slots__ = ()
    TYPE = "task.progress"

    @property
    def fraction(self) -> float:
        """From 0 to 1."""
        return float(self._told("fraction", float) or self._told("fraction", int) or 0)

    @property
    def text(self) -> str:
        """For people; may be empty."""
        return self._told("text", str) or ""


class TaskRetried(TaskEvent):
    """An attempt has failed, and there will be another."""

    __slots__ = ()
    TYPE = "task.retried"

    @property
    def due(self) -> datetime | None:
        """When the next attempt is to begin."""
        return self._told("due", datetime)

    @property
    def attempt(self) -> int | None:
        """Which attempt will be the next."""
        return self._told("attempt", int)

    @property
    def error(self) -> str | None:
        """The class of the error with which the last one failed."""
        return self._told("error", str)


class TaskReclaimed(TaskEvent):
    """A task was taken back from a worker that died, and is on its queue again."""

    __slots__ = ()
    TYPE = "task.reclaimed"

    @property
    def deaths(self) -> int | None:
        """How many workers have died under it."""
        return self._told("deaths", int)


class TaskSucceeded(TaskEvent):
    """A task has ended, and its result is stored."""

    __slots__ = ()
    TYPE = "task.succeeded"


class TaskFailed(TaskEvent):
    """A task has ended with an error, which is stored."""

    __slots__ = ()
    TYPE = "task.failed"

    @property
    def error(self) -> str | None:
        """The class of the error."""
        return self._told("error", str)


class TaskDead(TaskEvent):
    """The message of a task has been moved to the dead letters."""

    __slots__ = ()
    TYPE = "task.dead"

    @property
    def reason(self) -> str | None:
        """Why."""
        return self._told("reason", str)

    @property
    def deaths(self) -> int | None:
        """How many workers have died under it, if that is why."""
        return self._told("deaths", int)


class TaskCancelled(TaskEvent):
    """A task was cancelled."""

    __slots__ = ()
    TYPE = "task.cancelled"


class TaskExpired(TaskEvent):
    """The time of a task was over before it began."""

    __slots__ = ()
    TYPE = "task.expired"


class WorkerEvent(Event):
    """Something that happened to a worker process."""

    __slots__ = ()
    TYPE = "worker.*"

    @property
    def pid(self) -> int | None:
        """Its process id, on its host."""
        return self._told("pid", int)

    @property
    def queues(self) -> tuple[str, ...]:
        """The names of the queues it serves."""
        names: list[Any] = self._told("queues", list) or []
        return tuple(name for name in names if isinstance(name, str))

    @property
    def running(self) -> int:
        """How many tasks it runs."""
        return self._told("running", int) or 0


class WorkerOnline(WorkerEvent):
    """A worker process is there."""

    __slots__ = ()
    TYPE = "worker.online"


class WorkerHeartbeat(WorkerEvent):
    """A worker process lives."""

    __slots__ = ()
    TYPE = "worker.heartbeat"


class WorkerOffline(WorkerEvent):
    """A worker process goes, in order."""

    __slots__ = ()
    TYPE = "worker.offline"


_CLASSES: dict[str, type[Event]] = {
    kind.TYPE: kind
    for kind in (
        *(TaskQueued, TaskDelayed, TaskHeld, TaskStarted, TaskProgress, TaskRetried, TaskReclaimed),
        *(TaskSucceeded, TaskFailed, TaskDead, TaskCancelled, TaskExpired),
        *(WorkerOnline, WorkerHeartbeat, WorkerOffline),
    )
}

TYPES = tuple(_CLASSES)


def class_of(kind: str) -> type[Event]:
    """Return the class of events of a type; `Event` itself of one that is not known."""
    return _CLASSES.get(kind, Event)


def read_event(data: bytes) -> Event:
    """Read one event.

    Raises:
        ValueError: it is none.
    """
    try:
        told: Any = from_json(data)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    fields: dict[str, Any] = told if isinstance(told, dict) else {}
    kind, ms = fields.pop("event", None), fields.pop("time", None)
    if not (isinstance(kind, str) and isinstance(ms, _NUMBERS)):
        raise ValueError("it has no event or no time")  # noqa: TRY004 - as all that is none
    queue, task, task_id, worker = texts = [fields.pop(name, None) for name in TEXTS]
    for name, text in zip(TEXTS, texts, strict=True):
        if text is not None and not isinstance(text, str):
            raise ValueError(f"its {name} is not text")
    if isinstance(due := fields.get("due"), _NUMBERS):
        fields["due"] = moment_of(due)
    return class_of(kind)(kind, moment_of(ms), queue, task, task_id, worker, fields)


def moment_of(ms: float) -> datetime:
    """Make a time of Unix time, ms.

    Raises:
        ValueError: it is none.
    """
    try:
        return datetime.fromtimestamp(ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{ms} is no time in ms") from None
