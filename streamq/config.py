"""Settings of an app and of a worker, and the rules for names. Checked once, when they are made."""

from __future__ import annotations

import math
import os
import re
import socket
from dataclasses import dataclass, field

from streamq.errors import ConfigError

DEFAULT_URL = "redis://localhost:6379/0"
DEFAULT_QUEUE = "default"

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


def display_url(url: str) -> str:
    """Return `url` without its password; also one that cannot be parsed, because the password was not escaped."""
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
        url: ``redis://``, ``rediss://``, ``unix://`` or ``embedded://DIR``.
        namespace: first part of every key and channel.
        result_ttl: seconds for which the record of an ended task is kept.
        max_payload: bytes that the encoded arguments of one call may have.
        max_result: bytes that an encoded result may have.
    """

    url: str = field(default_factory=lambda: os.environ.get("STREAMQ_URL") or DEFAULT_URL)
    namespace: str = "sq"
    result_ttl: float = 3600.0
    max_payload: int = 1024 * 1024
    max_result: int = 1024 * 1024

    def __post_init__(self) -> None:
        check_name("namespace", self.namespace)
        _check_number("result_ttl", self.result_ttl, least=0.001, whole=False)
        _check_number("max_payload", self.max_payload, least=1, whole=True)
        _check_number("max_result", self.max_result, least=1, whole=True)


def _host_name() -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname()).lstrip(".-")
    return name[:64] or "worker"


@dataclass(frozen=True)
class WorkerSettings:
    """How one worker runs. Times are seconds.

    Attributes:
        queues: names of the queues it serves.
        concurrency: async tasks that run at a time in each child process.
        threads: sync tasks that run at a time in each child process.
        processes: child processes.
        name: what logs and events call this worker.
        lease: after so long without a sign of life a worker's tasks go to others.
        grace: how long running tasks may go on after a SIGTERM.
        log_level: as in `logging`.
        log_format: ``text`` or ``json``.
    """

    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    concurrency: int = 100
    threads: int = 16
    processes: int = 1
    name: str = field(default_factory=_host_name)
    lease: float = 15.0
    grace: float = 25.0
    log_level: str = "INFO"
    log_format: str = "text"

    def __post_init__(self) -> None:
        check_name("worker", self.name)
        for queue in self.queues:
            check_name("queue", queue)
        if not self.queues or len(set(self.queues)) != len(self.queues):
            raise ConfigError(f"queues must be one or more different names, not {','.join(self.queues)!r}")
        for name in ("concurrency", "threads", "processes"):
            _check_number(name, getattr(self, name), least=1, whole=True)
        _check_number("lease", self.lease, least=0.1, whole=False)
        _check_number("grace", self.grace, least=0, whole=False)
