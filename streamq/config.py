"""Settings of an app and of a worker, and the rules for names. Checked once, when they are made."""

from __future__ import annotations

import math
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from streamq.checks import is_whole
from streamq.errors import ConfigError
from streamq.limits import Limit, check_queue_limits

DEFAULT_URL = "redis://localhost:6379/0"
DEFAULT_QUEUE = "default"
LEVELS = range(10)  # priorities; larger ones come first
DEFAULT_LEVEL = 5  # most messages have the middle one
CENTURY_SECONDS = 100 * 365.25 * 24 * 3600  # more than anybody waits, and exact as a number of ms

Durability = Literal["async", "replica", "fsync"]

# Names become parts of keys, channels and consumer names: no braces (they are cluster hash tags), no colon
# (it separates the parts), nothing that a Pub/Sub pattern gives a meaning.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_TASK_ID = re.compile(r"[\x21-\x7e]{1,200}")


def check_name(kind: str, name: str) -> str:
    """Return `name` if it can be part of a key; `kind` (such as ``"queue"``) is for the message.

    Raises:
        ConfigError: it is empty, too long, or has characters other than letters, digits, ``_``, ``.``, ``-``.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{kind} name {name!r} cannot be used: 1 to 128 letters, digits, '_', '.' or '-', not '.' or '-' first"
        )
    return name


def check_task_id(task_id: str) -> str:
    """Return `task_id` if it can be used.

    Raises:
        ConfigError: it is empty, over 200 characters, or not printable ASCII without spaces.
    """
    if not isinstance(task_id, str) or not _TASK_ID.fullmatch(task_id):
        raise ConfigError(f"task id {task_id!r} cannot be used: 1 to 200 printable ASCII characters without spaces")
    return task_id


# Parts of a channel's name are separated by colons; what names cannot have, neither can they.
_CHANNEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_.-]+)*")
_CHANNEL_PATTERN = re.compile(r"[A-Za-z0-9_.:*?-]+")
_LONGEST_CHANNEL = 256


def is_pattern(name: str) -> bool:
    """Tell whether a name is a pattern of names of channels."""
    return not set("*?").isdisjoint(name)


def check_channel(name: str, *, pattern: bool = False) -> str:
    """Return `name` if a channel can have it; with `pattern` it may also hold ``*`` and ``?``.

    Raises:
        ConfigError: it is empty, too long, or has other characters.
    """
    form = _CHANNEL_PATTERN if pattern else _CHANNEL
    if not isinstance(name, str) or len(name) > _LONGEST_CHANNEL or not form.fullmatch(name):
        also = ", and '*' and '?' in a pattern" if pattern else ""
        raise ConfigError(
            f"channel name {name!r} cannot be used: parts of letters, digits, '_', '.' or '-', joined by ':'{also},"
            f" at most {_LONGEST_CHANNEL} characters"
        )
    return name


def check_durability(durability: str) -> Durability:
    """Return `durability` if there is such a one.

    Raises:
        ConfigError: it is none of ``async``, ``replica`` and ``fsync``.
    """
    if durability not in get_args(Durability):
        raise ConfigError(f"durability must be one of {', '.join(get_args(Durability))}, not {durability!r}")
    return cast("Durability", durability)


def check_priority(priority: int) -> int:
    """Return `priority` if there is such a level.

    Raises:
        ConfigError: it is no whole number from 0 to 9.
    """
    if not is_whole(priority) or priority not in LEVELS:
        raise ConfigError(f"priority must be a whole number from 0 to {LEVELS[-1]}, larger first, not {priority!r}")
    return priority


def display_url(url: str) -> str:
    """Return `url` without its password; also one that cannot be parsed, because the password was not escaped."""
    if re.search(r"[?&]\w*password=[^&]*@", url):  # where the password ends cannot be told
        return re.sub(r"^(\w[\w+]*://)?.*", r"\1***", url, flags=re.DOTALL)
    shown = re.sub(r"^([^@]*?://)?([^:@/]*):.*@", r"\1\2:***@", url, flags=re.DOTALL)
    return re.sub(r"([?&]\w*password=)[^&]*", r"\1***", shown)


def _check_number(name: str, value: object, *, least: float, whole: bool) -> None:
    kinds = (int,) if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value < math.inf:
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"{name} must be {kind} of {least:g} or more, not {value!r}")


@dataclass(frozen=True)
class Settings:
    """What every process of an app has to agree on.

    Attributes:
        url: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://`` or ``embedded://DIR``.
        namespace: first part of every key and channel.
        result_ttl: seconds for which the record of an ended task is kept.
        max_payload: bytes that the encoded arguments of one call may have.
        max_result: bytes that an encoded result, or one chunk of a stream, may have.
        max_stream: bytes that all chunks of one run may have; each counts as 16 more than its JSON has.
        durability: what an enqueue waits for: ``async`` for Redis itself, ``replica`` for one of its replicas,
            ``fsync`` for its disk.
        max_deaths: so many times a worker may die under a task, then its message goes to the dead letters.
        unknown_task_ttl: seconds for which a message that no worker can run is put back, before it goes there too.
        queue_limits: limits of whole queues, by their names.
        fairness_weights: how many turns fairness keys have for one of others.
        events_url: where channels and agents are, if not at `url`; it may also be ``redis+cluster://``.
        max_message: bytes that an encoded message of a channel may have.
        durable_events: the events of tasks and workers of the last hour are kept, up to some 100,000 of each queue.
    """

    url: str = field(default_factory=lambda: os.environ.get("STREAMQ_URL") or DEFAULT_URL)
    namespace: str = "sq"
    result_ttl: float = 3600.0
    max_payload: int = 1024 * 1024
    max_result: int = 1024 * 1024
    max_stream: int = 16 * 1024 * 1024
    durability: Durability = "async"
    max_deaths: int = 3
    unknown_task_ttl: float = 24 * 3600.0
    queue_limits: Mapping[str, Limit] = field(default_factory=dict)
    fairness_weights: Mapping[str, float] = field(default_factory=dict)
    events_url: str | None = None
    max_message: int = 64 * 1024
    durable_events: bool = False

    def __post_init__(self) -> None:
        check_name("namespace", self.namespace)
        _check_number("result_ttl", self.result_ttl, least=0.001, whole=False)
        _check_number("max_payload", self.max_payload, least=1, whole=True)
        _check_number("max_result", self.max_result, least=1, whole=True)
        _check_number("max_message", self.max_message, least=1, whole=True)
        _check_number("max_stream", self.max_stream, least=1, whole=True)
        check_durability(self.durability)
        _check_number("max_deaths", self.max_deaths, least=1, whole=True)
        _check_number("unknown_task_ttl", self.unknown_task_ttl, least=0, whole=False)
        check_queue_limits(self.queue_limits)
        for key, weight in self.fairness_weights.items():
            _check_number(f"the fairness weight of {key!r}", weight, least=0.001, whole=False)


def _host_name() -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname()).lstrip(".-")
    return name[:64] or "worker"


@dataclass(frozen=True)
class WorkerSettings:
    """How one worker runs. Times are seconds.

    Attributes:
        queues: names of the queues it serves, in order: a queue is read when those before it are empty.
        queue_weights: for each queue, how often it comes first, compared with the others; none: that order.
        level_weights: for each priority level from 0, how often it comes first; none: a larger one always does.
        concurrency: async tasks that run at a time in each child process.
        threads: sync tasks that run at a time in each child process.
        processes: child processes.
        name: what logs and events call this worker.
        lease: after so long without a sign of life a worker's tasks go to others.
        grace: how long running tasks may go on after a SIGTERM.
        log_level: as in `logging`.
        log_format: ``text`` or ``json``.
        pool_processes: tasks of ``pool="process"`` that run at a time in each child process.
        cancel_lost: async tasks that lost their lease are cancelled.
        stuck_after: a task that cannot be ended for so long after its time limit, or an event loop that is blocked
            for so long, costs its child process.
        max_tasks_per_child: after so many tasks a child process is replaced; None: never.
        max_memory_per_child: a child process that has had more MiB than this in memory is replaced; None: never.
        health_port: port of the HTTP server for probes and metrics, 0: any that is free; None: there is none.
        health_host: the address on which it listens; None: all of them.
    """

    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    queue_weights: tuple[int, ...] = ()
    level_weights: tuple[int, ...] = ()
    concurrency: int = 100
    threads: int = 16
    processes: int = 1
    name: str = field(default_factory=_host_name)
    lease: float = 15.0
    grace: float = 25.0
    log_level: str = "INFO"
    log_format: str = "text"
    pool_processes: int = field(default_factory=lambda: min(4, os.cpu_count() or 1))
    cancel_lost: bool = True
    stuck_after: float = 60.0
    max_tasks_per_child: int | None = None
    max_memory_per_child: float | None = None
    health_port: int | None = None
    health_host: str | None = None

    def __post_init__(self) -> None:
        check_name("worker", self.name)
        for queue in self.queues:
            check_name("queue", queue)
        if not self.queues or len(set(self.queues)) != len(self.queues):
            raise ConfigError(f"queues must be one or more different names, not {','.join(self.queues)!r}")
        for name, some in (("queue_weights", self.queues), ("level_weights", LEVELS)):
            weights = getattr(self, name)
            if weights and len(weights) != len(some):
                raise ConfigError(f"{name} must be {len(some)} numbers, or none, not {weights!r}")
            for weight in weights:
                _check_number(f"each of {name}", weight, least=1, whole=True)
        for name in ("concurrency", "threads", "processes", "pool_processes"):
            _check_number(name, getattr(self, name), least=1, whole=True)
        _check_number("lease", self.lease, least=0.1, whole=False)
        _check_number("grace", self.grace, least=0, whole=False)
        _check_number("stuck_after", self.stuck_after, least=0.1, whole=False)
        if self.max_tasks_per_child is not None:
            _check_number("max_tasks_per_child", self.max_tasks_per_child, least=1, whole=True)
        if self.max_memory_per_child is not None:
            _check_number("max_memory_per_child", self.max_memory_per_child, least=1, whole=False)
        if self.health_port is not None:
            _check_number("health_port", self.health_port, least=0, whole=True)
