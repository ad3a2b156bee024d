"""Every key and channel, built in one place.

All keys of a queue carry the hash tag ``{queue}``, so that each script touches one slot of a Redis Cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

GROUP = "workers"
_DEFAULT_LEVEL = "5"  # priorities go from 0 to 9; most messages have the middle one


class QueueKeys:
    """The keys and channels of one queue.

    Attributes:
        name: the queue's name.
        ready: stream of messages in the order of enqueueing.
        returned: stream of messages that were handed back or reclaimed; it is read first.
        delayed: sorted set of the ids whose time has not come; the score is the due time, Redis time in ms.
        signals: channel on which the workers of the queue are told what comes sooner than they know, and what was
            cancelled. It has the name of `delayed`, so that the script that puts something there knows it.
        dead: stream of dead letters.
        events: prefix of the channels of the queue's task events.
        record: gives the key of a task's record from the task's id.
    """

    def __init__(self, namespace: str, name: str) -> None:
        base = f"{namespace}:{{{name}}}"
        self.name = name
        self.ready = f"{base}:stream:{_DEFAULT_LEVEL}"
        self.returned = f"{base}:stream:returned"
        self.delayed = self.signals = f"{base}:delayed"
        self.dead = f"{base}:dead"
        self.events = f"{namespace}:events:{name}:"
        self.record: Callable[[str], str] = f"{base}:task:".__add__

    @property
    def streams(self) -> tuple[str, str]:
        """The streams to read, most urgent first."""
        return (self.returned, self.ready)

    def stream(self, name: str) -> str:
        """The stream that a record calls `name`; most do not call theirs anything."""
        return self.returned if name == "returned" else self.ready

    @property
    def named_streams(self) -> tuple[tuple[str, str], ...]:
        """What records call the streams, and the streams: first those from which messages go to others."""
        return tuple((name, self.stream(name)) for name in ("", "returned"))


class Keys:
    """The keys and channels of one namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.queues = f"{namespace}:queues"
        self.done = f"{namespace}:done:"
        self.queue = lru_cache(maxsize=1024)(self._queue)

    def _queue(self, name: str) -> QueueKeys:
        return QueueKeys(self.namespace, name)

    def worker_event(self, worker: str, event: str) -> str:
        """Channel of one kind of event of one worker."""
        return f"{self.namespace}:events:worker:{worker}:{event}"

    def events(self, *, queue: str = "*", task: str = "*", event: str = "*") -> str:
        """Pattern of the channels that carry these events; a worker's events have the queue ``worker``."""
        return f"{self.namespace}:events:{queue}:{task}:{event}"
