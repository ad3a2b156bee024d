"""Every error that streamq raises, in one tree.

StreamqError
├── ConfigError                 a setting, name or URL that cannot be used
│   ├── TaskNameClash           two functions under one task name
│   └── MissingExtra            an optional dependency that the call needs is not installed
├── PayloadError                a call that cannot be sent; nothing was sent
│   ├── EncodeError             an argument that does not fit into JSON
│   ├── FlowError               a graph that cannot be run
│   └── PayloadTooLarge         arguments, or a message of a channel, over the size limit
├── BrokerError                 Redis did not do what was asked
│   ├── BrokerUnavailable       it cannot be reached, or not in time
│   ├── BrokerRefused           it refuses for good: password, permissions, version
│   ├── BrokerOutOfMemory       it has reached maxmemory; nothing was enqueued
│   ├── NotDurable              enqueued, but not confirmed to be as safe as asked for
│   └── BrokerReset             a stream or its group has vanished, or is something else
├── ResultError                 the outcome of a task cannot be had
│   ├── UnknownTaskId           no record under this id: never enqueued, expired or forgotten
│   ├── ResultTimeout           not ended within the time given
│   ├── ResultDecodeError       the stored result, or a chunk, does not fit the annotation
│   ├── ChunksLost              some of what the task has emitted is not there any more
│   └── TaskFailed              the task ended with an error
│       ├── TaskCancelled       it was cancelled
│       └── TaskExpired         it had not begun when its ``expires`` was over
├── ChannelError                a message between processes did not do what it should
│   ├── SlowListener            a listener that was to be disconnected when it falls behind, has
│   ├── RequestTimeout          an agent has not answered in time
│   └── RemoteError             an agent has answered with an error
└── NoCurrentTask               ``streamq.current()`` outside a task

Raised inside a task, so that callers see them as the type of a ``TaskFailed``:

StreamqError
├── ArgumentError               stored arguments do not fit the function's annotations
├── ResultEncodeError           the returned or emitted value does not fit into JSON
├── ResultTooLarge              the returned or emitted value is over the size limit
├── TaskTimeout                 the task ran longer than its ``timeout`` or ``hard_timeout``
├── WorkerDied                  the process that ran the task died under it once too often
├── RetryRequested              raised by ``context.retry()``: run again later
├── TaskReplaced                made by ``context.replace()``, to be raised: something else runs in its place
└── TaskRejected                raised by ``context.reject()``: to the dead letters
"""

from __future__ import annotations

_MOST_OF_A_PATH = 10  # names that are shown


class StreamqError(Exception):
    """The root of all errors of streamq."""


class ConfigError(StreamqError):
    """A setting, name or URL cannot be used; the message says which and why."""


class TaskNameClash(ConfigError):
    """Two functions claim one task name."""


class MissingExtra(ConfigError):
    """An optional dependency is needed; the message says which extra to install."""


class PayloadError(StreamqError):
    """A call cannot be sent. Nothing was sent."""


class EncodeError(PayloadError):
    """An argument does not fit into JSON; the message names the argument."""


class PayloadTooLarge(PayloadError):
    """The arguments of a call are over ``max_payload`` bytes, or a message of a channel is over ``max_message``."""


class FlowError(PayloadError):
    """A graph that cannot be run; the message says where in it. Nothing was sent."""


class BrokerError(StreamqError):
    """Redis did not do what was asked."""


class BrokerUnavailable(BrokerError):
    """Redis cannot be reached, or did not answer in time.

    After a failed enqueue the outcome is unknown; sending again with the same ``task_id`` is safe.
    """


class BrokerRefused(BrokerError):
    """Redis refuses for good: wrong password, missing permission, or a server too old."""


class BrokerOutOfMemory(BrokerError):
    """Redis has reached ``maxmemory``. Nothing was enqueued."""


class NotDurable(BrokerError):
    """The messages are in Redis, but it did not confirm in time that they are as safe as ``durability`` asks.

    Sending again with the same ``task_id`` is safe, and waits for the confirmation again.
    """


class BrokerReset(BrokerError):
    """A stream or its consumer group has vanished, or the key holds something else."""


class ResultError(StreamqError):
    """The outcome of a task cannot be had."""


class UnknownTaskId(ResultError):
    """No record under this id: never enqueued, expired, forgotten, or its message was deleted by hand."""


class ResultTimeout(ResultError):
    """The task did not end, or its stream did not go on, within the time given. It goes on."""


class ResultDecodeError(ResultError):
    """The stored result, or a chunk, does not fit the function's return annotation."""


class ChunksLost(ResultError):
    """Some of what the task has emitted is not there any more: it has expired, or was lost with the server's data."""


class TaskFailed(ResultError):
    """The task ended with an error.

    Attributes:
        task_id: the id of the failed task.
        type_name: the remote exception's type, such as ``ValueError`` or ``shop.errors.OutOfStock``.
        message: the remote exception's message.
        traceback: the remote traceback as text; may be empty.
        path: of a task of a flow: its name, and those of what could not run because of it, up to what was asked for;
            a group is called ``group``.
    """

    def __init__(
        self, task_id: str, type_name: str, message: str, traceback: str = "", path: tuple[str, ...] = ()
    ) -> None:
        super().__init__(task_id, type_name, message, traceback, path)
        self.task_id = task_id
        self.type_name = type_name
        self.message = message
        self.traceback = traceback
        self.path = path

    def __str__(self) -> str:
        """One line, then the remote traceback."""
        names = [name.rpartition(".")[2] for name in self.path]
        if len(names) > _MOST_OF_A_PATH:
            names[_MOST_OF_A_PATH // 2 : -_MOST_OF_A_PATH // 2] = ["…"]
        way = f"; {' -> '.join(names)}" if names else ""
        head = f"{self.type_name}: {self.message} (task {self.task_id}{way})"
        return f"{head}\n\n{self.traceback}" if self.traceback else head


class TaskCancelled(TaskFailed):
    """The task was cancelled, by ``cancel()``, ``cancel_all()`` or ``streamq cancel``."""


class TaskExpired(TaskFailed):
    """The task had not begun when its ``expires`` was over; it has not run."""


class ChannelError(StreamqError):
    """A message between processes did not do what it should."""


class SlowListener(ChannelError):
    """A listener with ``when_full="disconnect"`` fell behind, and hears no more; the message says by how much."""


class RequestTimeout(ChannelError):
    """An agent has not answered in time; the message names it. Whether it has had the request is not known."""


class RemoteError(ChannelError):
    """An agent has answered with an error.

    Attributes:
        agent: which one.
        type_name: the remote exception's type, such as ``ValueError`` or ``shop.errors.OutOfStock``.
        message: the remote exception's message.
        traceback: the remote traceback as text; may be empty.
    """

    def __init__(self, agent: str, type_name: str, message: str, traceback: str = "") -> None:
        super().__init__(agent, type_name, message, traceback)
        self.agent = agent
        self.type_name = type_name
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        """One line, then the remote traceback."""
        head = f"{self.type_name}: {self.message} (agent {self.agent})"
        return f"{head}\n\n{self.traceback}" if self.traceback else head


class NoCurrentTask(StreamqError):
    """``streamq.current()`` was called where no task is running."""


class ArgumentError(StreamqError):
    """Stored arguments do not fit the function's annotations."""


class ResultEncodeError(StreamqError):
    """The value that the task returned or emitted does not fit into JSON."""


class ResultTooLarge(StreamqError):
    """The value that the task returned or emitted is over ``max_result`` bytes, or all of a run over ``max_stream``."""


class TaskTimeout(StreamqError):
    """The task ran longer than its ``timeout`` or its ``hard_timeout`` seconds."""


class WorkerDied(StreamqError):
    """The process that ran the task died under it ``max_deaths`` times; the message is in the dead letters."""


class RetryRequested(StreamqError):
    """Raised by ``context.retry()``: the task is to be run again later, as its retry policy allows.

    Attributes:
        countdown: seconds to wait; None: as long as the policy says.
    """

    def __init__(self, countdown: float | None = None, reason: str = "the task asked to be run again") -> None:
        super().__init__(reason)
        self.countdown = countdown


class TaskReplaced(StreamqError):
    """Made by ``context.replace()``, to be raised: a signature is to be run in place of the task.

    Attributes:
        step: the signature, chain, group or graph.
    """

    def __init__(self, step: object) -> None:
        super().__init__(step)
        self.step = step


class TaskRejected(StreamqError):
    """Raised by ``context.reject()``: the message is to go to the dead letters, and not to be run again."""
