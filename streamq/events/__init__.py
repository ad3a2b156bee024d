"""Events: what happens to tasks and workers, told on Pub/Sub as it happens.

What is told is not stored: an event that nobody hears is gone, and none is even made while nobody listens, unless the
app has ``durable_events``, which are also kept for those who come late (streamq/broker/event_log.py). A listener
subscribes by patterns, so that the server sends little more than what is wanted, and to one channel that all listeners
share, so that it can be asked whether there are any: others, too, may be subscribed by patterns.

Some classes are called as errors are: ``from streamq import events``, and then ``events.TaskFailed``.
"""

from __future__ import annotations

from streamq.events.event import Event, TaskEvent
from streamq.events.kinds import (
    TYPES,
    TaskCancelled,
    TaskDead,
    TaskDelayed,
    TaskExpired,
    TaskFailed,
    TaskHeld,
    TaskProgress,
    TaskQueued,
    TaskReclaimed,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    WorkerEvent,
    WorkerHeartbeat,
    WorkerOffline,
    WorkerOnline,
    read_event,
)
from streamq.events.listening import Events
from streamq.events.wanted import Wanted

__all__ = [
    "TYPES",
    "Event",
    "Events",
    "TaskCancelled",
    "TaskDead",
    "TaskDelayed",
    "TaskEvent",
    "TaskExpired",
    "TaskFailed",
    "TaskHeld",
    "TaskProgress",
    "TaskQueued",
    "TaskReclaimed",
    "TaskRetried",
    "TaskStarted",
    "TaskSucceeded",
    "Wanted",
    "WorkerEvent",
    "WorkerHeartbeat",
    "WorkerOffline",
    "WorkerOnline",
    "read_event",
]
