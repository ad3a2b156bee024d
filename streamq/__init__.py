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
        FlowError,
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
        TaskReplaced,
        TaskTimeout,
        UnknownTaskId,
        WorkerDied,
    )
    from streamq.flow_results.group import GroupResult
    from streamq.flow_results.node import NodeResult
    from streamq.flow_results.result import FlowResult
    from streamq.flow_results.statuses import FlowProgress, NodeStatus
    from streamq.lifecycle import State
    from streamq.limits import Limit
    from streamq.nodes import Failure
    from streamq.results import AsyncResult
    from streamq.retry import Retry
    from streamq.schedule.rules import cron, every
    from streamq.streams import Chunk, ResultStream, Yields
    from streamq.tasks import Task
    from streamq.timetable import Schedule
    from streamq.uniqueness import by
    from streamq.workflows.chain import chain
    from streamq.workflows.flow import Flow
    from streamq.workflows.group import chord, group
    from streamq.workflows.signature import Partial, Signature

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
    "Failure",
    "Flow",
    "FlowError",
    "FlowProgress",
    "FlowResult",
    "Gap",
    "GroupResult",
    "Joined",
    "Left",
    "Limit",
    "MissingExtra",
    "NoCurrentTask",
    "NodeResult",
    "NodeStatus",
    "NotDurable",
    "Partial",
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
    "TaskReplaced",
    "TaskTimeout",
    "UnknownTaskId",
    "WorkerDied",
    "Yields",
    "agents",
    "by",
    "chain",
    "chord",
    "cron",
    "current",
    "every",
    "group",
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
    "Failure": "nodes",
    "Flow": "workflows.flow",
    "FlowProgress": "flow_results.statuses",
    "FlowResult": "flow_results.result",
    "GroupResult": "flow_results.group",
    "NodeResult": "flow_results.node",
    "NodeStatus": "flow_results.statuses",
    "Partial": "workflows.signature",
    "Signature": "workflows.signature",
    "State": "lifecycle",
    "StreamQ": "app",
    "Task": "tasks",
    "Yields": "streams",
    "by": "uniqueness",
    "chain": "workflows.chain",
    "chord": "workflows.group",
    "group": "workflows.group",
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
