"""`Event`: something that happened, and what all events of tasks tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, TypeAlias, TypeVar

from streamq.nodes import node_ids
from streamq.refs import read_refs

T = TypeVar("T")
Kind: TypeAlias = type[T]  # in the class below ``type`` is a field

TEXTS = ("queue", "task", "id", "worker")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. Each type that is known has a class of its own; others are of this one.

    Attributes:
        type: one of `TYPES`; a newer version may send others.
        time: when it happened, by the clock of Redis or, for ``task.started`` and workers, of the worker's host.
        queue: the task's queue.
        task: the task's registered name; empty if its message could not be read.
        id: the task's id.
        worker: the worker process that runs or ran the task, or that the event is about.
        details: what else is told, such as ``reason``, ``deaths``, ``fraction``; ``due`` is a datetime.
    """

    TYPE: ClassVar[str] = "*"

    type: str
    time: datetime
    queue: str | None = None
    task: str | None = None
    id: str | None = None
    worker: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """Return it as one flat dict that JSON can carry: times in ISO 8601, and only what the event has."""
        known = {name: getattr(self, name) for name in ("type", "time", *TEXTS)}
        flat = {**known, **{name: value for name, value in self.details.items() if name not in known}}
        return {
            name: value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else value
            for name, value in flat.items()
            if value is not None
        }

    def _told(self, name: str, kind: Kind[T]) -> T | None:
        """Look up a detail; what is of another type than it has today counts as not told."""
        value = self.details.get(name)
        return value if isinstance(value, kind) and not isinstance(value, bool) else None


class TaskEvent(Event):
    """Something that happened to a task."""

    __slots__ = ()
    TYPE = "task.*"

    @property
    def flow_id(self) -> str | None:
        """The id of the flow that the task is a part of; None: it is in none, or this event does not say so."""
        return self._of_flow("id", str)

    @property
    def root_id(self) -> str | None:
        """The id of the outermost flow."""
        return self._of_flow("root", str) or self.flow_id

    @property
    def parent_ids(self) -> tuple[str, ...]:
        """The ids of the tasks that come right before it in its flow; when it is queued, delayed or started."""
        return self._nodes("parents")

    @property
    def child_ids(self) -> tuple[str, ...]:
        """The ids of the tasks that may come right after it; when it is queued, delayed or started."""
        return self._nodes("children")

    def _of_flow(self, name: str, kind: Kind[T]) -> T | None:
        flow = self.details.get("flow")
        value = flow.get(name) if isinstance(flow, Mapping) else None
        return value if isinstance(value, kind) else None

    def _nodes(self, name: str) -> tuple[str, ...]:
        try:
            refs = read_refs(self._of_flow(name, list) or [])
        except ValueError:
            return ()
        return node_ids(self.flow_id or "", refs)
