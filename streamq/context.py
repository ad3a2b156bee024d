"""What a running task can know about itself."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from streamq.errors import NoCurrentTask
from streamq.message import Delivery


@dataclass(frozen=True, slots=True)
class Context:
    """The run that is going on.

    Attributes:
        id: the task's id.
        name: the task's registered name.
        queue: the queue it came from.
        attempt: which run that counts this is, from 1; runs whose worker died do not count.
        deliveries: how often it was handed to a worker, this time counted; 0 in a plain call.
        enqueued_at: when it was first enqueued, by the server's clock.
        state: what the app's ``lifespan`` yielded in this worker process; None without one.
    """

    id: str
    name: str
    queue: str
    attempt: int
    deliveries: int
    enqueued_at: datetime
    state: Any = None


# The delivery, and not the context, because most tasks never ask.
running: ContextVar[tuple[Delivery, Any]] = ContextVar("streamq_running")


def context_of(delivery: Delivery, state: Any) -> Context:
    """Make the context of a delivery's run."""
    message = delivery.message
    enqueued_at = datetime.fromtimestamp(delivery.enqueued_ms / 1000, UTC)
    return Context(message.id, message.task, message.queue, delivery.attempt, delivery.deliveries, enqueued_at, state)


def current() -> Context:
    """Return the context of the task that runs here.

    Raises:
        NoCurrentTask: none does.
    """
    try:
        return context_of(*running.get())
    except LookupError:
        raise NoCurrentTask("streamq.current() was called outside a running task") from None
