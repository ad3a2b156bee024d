"""streamq: a task queue on Redis Streams. A task runs at least once; its outcome is committed at most once."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamq.agent.agent import Agent
    from streamq.agent.claims import Claim
    from streamq.agent.presence import AgentInfo, Joined, Left, agents, presence
    from streamq.app import StreamQ
    from streamq.channels.channel import Channel
    from streamq.channels.envelope import Envelope
    from streamq.channels.gaps import Gap
    from streamq.context import Context, current
    from streamq.decorator import task
    from streamq.errors import (
        ArgumentError,
        BrokerError,
        BrokerOutOfMemory,
        BrokerRefused,
        BrokerReset,
        BrokerUnavailable,
        ChannelError,
        ChunksLost,
        ConfigError,
        EncodeError,
        MissingExtra,
        NoCurrentTask,
        NotDurable,
        PayloadError,
        PayloadTooLarge,
        RemoteError,
        RequestTimeout,
        ResultDecodeError,
        ResultEncodeError,
        ResultError,
        ResultTimeout,
        ResultTooLarge,
        RetryRequested,
        SlowListener,
        StreamqError,
        TaskCancelled,
        TaskExpired,
        TaskFailed,
        TaskNameClash,
        TaskRejected,
        TaskTimeout,
        UnknownTaskId,
        WorkerDied,
    )
    from streamq.lifecycle import State
    from streamq.limits import Limit
    from streamq.results import AsyncResult
    from streamq.retry import Retry
    from streamq.schedule.rules import cron, every
    from streamq.streams import Chunk, ResultStream, Yields
    from streamq.tasks import Signature, Task
    from streamq.timetable import Schedule
    from streamq.uniqueness import by

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "AgentInfo",
    "ArgumentError",
    "AsyncResult",
    "BrokerError",
    "BrokerOutOfMemory",
    "BrokerRefused",
    "BrokerReset",
    "BrokerUnavailable",
    "Channel",
    "ChannelError",
    "Chunk",
    "ChunksLost",
    "Claim",
    "ConfigError",
    "Context",
    "EncodeError",
    "Envelope",
    "Gap",
    "Joined",
    "Left",
    "Limit",
    "MissingExtra",
    "NoCurrentTask",
    "NotDurable",
    "PayloadError",
    "PayloadTooLarge",
    "RemoteError",
    "RequestTimeout",
    "ResultDecodeError",
    "ResultEncodeError",
    "ResultError",
    "ResultStream",
    "ResultTimeout",
    "ResultTooLarge",
    "Retry",
    "RetryRequested",
    "Schedule",
    "Signature",
    "SlowListener",
    "State",
    "StreamQ",
    "StreamqError",
    "Task",
    "TaskCancelled",
    "TaskExpired",
    "TaskFailed",
    "TaskNameClash",
    "TaskRejected",
    "TaskTimeout",
    "UnknownTaskId",
    "WorkerDied",
    "Yields",
    "agents",
    "by",
    "cron",
    "current",
    "every",
    "presence",
    "task",
]

_HOMES = {
    "Channel": "channels.channel",
    "Envelope": "channels.envelope",
    "Gap": "channels.gaps",
    "Agent": "agent.agent",
    "AgentInfo": "agent.presence",
    "Claim": "agent.claims",
    "Joined": "agent.presence",
    "Left": "agent.presence",
    "agents": "agent.presence",
    "presence": "agent.presence",
    "AsyncResult": "results",
    "Chunk": "streams",
    "ResultStream": "streams",
    "Retry": "retry",
    "Context": "context",
    "Schedule": "timetable",
    "Limit": "limits",
    "Signature": "tasks",
    "State": "lifecycle",
    "StreamQ": "app",
    "Task": "tasks",
    "Yields": "streams",
    "by": "uniqueness",
    "cron": "schedule.rules",
    "current": "context",
    "every": "schedule.rules",
    "task": "decorator",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command line and the supervisor need none of them."""
    if name not in __all__:
        raise AttributeError(f"module 'streamq' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"streamq.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value
