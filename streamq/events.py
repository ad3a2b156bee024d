"""Events: what happens to tasks and workers, told on Pub/Sub as it happens.

What is told is not stored: an event that nobody hears is gone, and none is even made while nobody listens, unless the
app has ``durable_events``, which are also kept for those who come late (streamq/broker/event_log.py). A listener
subscribes by pattern, so that the server sends little more than what is wanted, and to one channel that all listeners
share, so that it can be asked whether there are any: others, too, may be subscribed by patterns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from streamq.broker import reads
from streamq.config import Settings
from streamq.errors import BrokerError, BrokerRefused, ConfigError

TASK_EVENTS = (
    *("queued", "delayed", "held", "started", "progress", "retried", "reclaimed"),
    *("succeeded", "failed", "dead", "cancelled", "expired"),
)
WORKER_EVENTS = ("online", "heartbeat", "offline")
TYPES = (*(f"task.{event}" for event in TASK_EVENTS), *(f"worker.{event}" for event in WORKER_EVENTS))


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        type: one of `TYPES`; a newer version may send others.
        time: when it happened, by the clock of Redis or, for ``task.started`` and workers, of the worker's host.
        queue: the task's queue.
        task: the task's registered name; empty if its message could not be read.
        id: the task's id.
        worker: the worker process that runs or ran the task, or that the event is about.
        details: what else is told, such as ``reason``, ``deaths``, ``fraction``; ``due`` is a datetime.
    """

    type: str
    time: datetime
    queue: str | None = None
    task: str | None = None
    id: str | None = None
    worker: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """Return it as one flat dict that JSON can carry: times in ISO 8601, and only what the event has."""
        known = {name: getattr(self, name) for name in ("type", "time", *_TEXTS)}
        flat = {**known, **{name: value for name, value in self.details.items() if name not in known}}
        return {
            name: value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else value
            for name, value in flat.items()
            if value is not None
        }


_TEXTS = ("queue", "task", "id", "worker")


@dataclass(frozen=True, slots=True)
class Connected:
    """The server sends events from now on; `again` after a `Lost`."""

    again: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """The server is away; what happens until `Connected` will not be heard of."""

    error: BrokerError


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something on a channel of events that is no event."""

    channel: str
    reason: str


def read_event(data: bytes) -> Event:
    """Read one event.

    Raises:
        ValueError: it is none.
    """
    try:
        told: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    match told:
        case {"event": str(kind), "time": int(ms) | float(ms), **more}:
            texts: dict[str, Any] = {name: more.pop(name, None) for name in _TEXTS}
        case _:
            raise ValueError("it has no event or no time")
    if wrong := [name for name, text in texts.items() if not isinstance(text, str | None)]:
        raise ValueError(f"its {wrong[0]} is not text")
    if isinstance(due := more.get("due"), int | float):
        more["due"] = _moment(due)
    return Event(kind, _moment(ms), **texts, details={str(name): value for name, value in more.items()})


def _moment(ms: float) -> datetime:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{ms} is no time in ms") from None


@dataclass(frozen=True)
class Wanted:
    """Which events to hear; all of them if nothing is said. Words may hold ``*`` and ``?``.

    Attributes:
        types: such as ``task.failed``, ``failed``, ``worker`` or ``worker.*``.
        tasks: names of tasks; events of workers are left out.
        queues: names of queues; events of workers are left out.

    Raises:
        ConfigError: there are no such events.
    """

    types: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for word in self.types:
            if not any(fnmatchcase(known, _whole_type(word)) for known in TYPES):
                raise ConfigError(f"there are no events of type {word!r}; there are {', '.join(TYPES)}")
        if not any(self._has_type(known) for known in TYPES):
            raise ConfigError(f"events of type {', '.join(self.types)} have no task and no queue to choose by")

    def _has_type(self, kind: str) -> bool:
        if (self.tasks or self.queues) and not kind.startswith("task."):
            return False
        return not self.types or any(fnmatchcase(kind, _whole_type(word)) for word in self.types)

    def __contains__(self, event: Event) -> bool:
        return self._has_type(event.type) and _matches(event.task, self.tasks) and _matches(event.queue, self.queues)

    def channels(self) -> dict[str, str]:
        """Return patterns that let the server leave out most of what is not wanted, as `reads.listen` takes them.

        One subscription has one pattern, since an event that two patterns match would come twice. So several words of
        a kind become ``*``, and what comes has still to be looked at.
        """
        kinds, events = zip(*(_whole_type(word).split(".", 1) for word in self.types or ("*",)), strict=True)
        if set(kinds) == {"worker"}:
            return {"queue": "worker", "event": _pattern(events)}
        return {"queue": _pattern(self.queues), "task": _pattern(self.tasks), "event": _pattern(events)}


def _whole_type(word: str) -> str:
    if word in {"task", "worker"}:
        return f"{word}.*"
    return word if "." in word else f"*.{word}"


def _matches(name: str | None, words: tuple[str, ...]) -> bool:
    return not words or any(fnmatchcase(name or "", word) for word in words)


def _pattern(words: tuple[str, ...]) -> str:
    # Redis and fnmatch agree on the meaning of * and ?, but not on that of brackets and backslashes.
    return words[0] if len(set(words)) == 1 and not set(words[0]) & set("[]\\") else "*"


def listen(settings: Settings, wanted: Wanted | None = None) -> Iterator[Event | Connected | Lost | Unreadable]:
    """Listen for events, for ever; when the server was away, listen again.

    Args:
        settings: of which the URL and the namespace count. Pub/Sub knows no database numbers: events of all
            databases of the server are heard, so apps that share a server should have namespaces of their own.
        wanted: which to hear; all if not given.

    Yields:
        `Connected` when it begins, then events; between `Lost` and the next `Connected` some may be missing.

    Raises:
        ConfigError: the URL cannot be used.
        BrokerError: the server could not be reached to begin with.
        BrokerRefused: the server refuses, to begin with or later.
    """
    wanted = wanted or Wanted()
    begun = away = False
    for message in reads.listen(settings, **wanted.channels()):
        if message is None:
            yield Connected(again=begun)
            begun, away = True, False
        elif isinstance(message, BrokerError):
            if not begun or isinstance(message, BrokerRefused):
                raise message
            if not away:
                yield Lost(message)
            away = True
        else:
            channel, data = message
            try:
                event = read_event(data)
            except ValueError as error:
                yield Unreadable(channel, str(error))
            else:
                if event in wanted:
                    yield event
