"""streamq: a task queue on Redis Streams. A task runs at least once; its outcome is committed at most once."""

from streamq.app import StreamQ, task
from streamq.context import Context, current
from streamq.errors import (
    ArgumentError,
    BrokerError,
    BrokerOutOfMemory,
    BrokerRefused,
    BrokerReset,
    BrokerUnavailable,
    ConfigError,
    EncodeError,
    MissingExtra,
    NoCurrentTask,
    PayloadError,
    PayloadTooLarge,
    ResultDecodeError,
    ResultEncodeError,
    ResultError,
    ResultTimeout,
    ResultTooLarge,
    StreamqError,
    TaskFailed,
    TaskNameClash,
    TaskTimeout,
    UnknownTaskId,
)
from streamq.lifecycle import State
from streamq.results import AsyncResult
from streamq.task import Signature, Task

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "AsyncResult",
    "BrokerError",
    "BrokerOutOfMemory",
    "BrokerRefused",
    "BrokerReset",
    "BrokerUnavailable",
    "ConfigError",
    "Context",
    "EncodeError",
    "MissingExtra",
    "NoCurrentTask",
    "PayloadError",
    "PayloadTooLarge",
    "ResultDecodeError",
    "ResultEncodeError",
    "ResultError",
    "ResultTimeout",
    "ResultTooLarge",
    "Signature",
    "State",
    "StreamQ",
    "StreamqError",
    "Task",
    "TaskFailed",
    "TaskNameClash",
    "TaskTimeout",
    "UnknownTaskId",
    "current",
    "task",
]
