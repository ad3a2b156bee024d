"""What operators read: queues, and single tasks. Nothing here changes anything."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from streamq.broker import reads
from streamq.codec import decode_plain
from streamq.config import Settings
from streamq.lifecycle import State


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """One queue at one moment.

    Attributes:
        name: the queue's name.
        length: messages that wait for a worker.
        pending: messages that workers have and that have not ended.
        delayed: tasks whose time has not come.
        dead: dead letters.
        oldest_age: seconds since the oldest message, waiting or pending, came to its stream; None if there is none.
    """

    name: str
    length: int
    pending: int
    delayed: int
    dead: int
    oldest_age: float | None


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
        error: why it has failed or is dead.
        failure: why its last attempt before this one failed; None if this is the first.
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


def queues(settings: Settings) -> list[QueueInfo]:
    """Look at all known queues, by name. Not for use on an event loop: there, await `aqueues`.

    Raises:
        ConfigError: the URL cannot be used.
        BrokerError: Redis cannot be asked; it is asked once, and not again.
    """
    return asyncio.run(aqueues(settings))


async def aqueues(settings: Settings) -> list[QueueInfo]:
    """Look at all known queues, as `queues` does."""
    now_ms, depths = await reads.depths(settings)
    return [
        QueueInfo(
            name=depth.queue,
            # The two numbers come from two moments, between which a worker may have taken some.
            length=max(0, depth.entries - depth.pending),
            pending=depth.pending,
            delayed=depth.delayed,
            dead=depth.dead,
            oldest_age=None if depth.oldest_ms is None else max(0, now_ms - depth.oldest_ms) / 1000,
        )
        for depth in depths
    ]


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
        result=decode_plain(record.body) if record.state is State.SUCCEEDED else None,
        error=_error(record.body) if record.state in {State.FAILED, State.DEAD} else None,
        failure=_error(record.failure) if record.failure else None,
    )


def _error(body: bytes) -> TaskError:
    stored: dict[str, Any] = decode_plain(body)
    return TaskError(stored["type"], stored["message"], stored["traceback"])
