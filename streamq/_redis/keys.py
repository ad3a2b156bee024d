"""Every key and channel, built in one place.

All keys of a queue carry the hash tag ``{queue}``, so that each script touches one slot of a Redis Cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from streamq.config import DEFAULT_LEVEL, LEVELS

GROUP = "workers"
FLOW_PARTS = ("states", "waits", "graph", "results", "todo", "sends")


class QueueKeys:
    """The keys and channels of one queue.

    Attributes:
        name: the queue's name.
        levels: for each priority level, from 0, the stream of its messages in the order of enqueueing.
        ready: the stream of the level that most messages have.
        returned: stream of messages that were handed back or reclaimed; it is read first.
        delayed: sorted set of the ids whose time has not come; the score is the due time, Redis time in ms.
        signals: channel on which the workers of the queue are told what comes sooner than they know, and what was
            cancelled. It has the name of `delayed`, so that the script that puts something there knows it.
        dead: stream of dead letters.
        paused: is there while nobody is to fetch from the queue.
        moving: sorted set of the ids that are on their way to another queue; the score is the due time there.
        timetable: of schedules: a sorted set of the names of those that are not paused, by the next instant, Redis time
            in ms; and hashes by name: what they are, the last instant that was fired, and which workers' code it is.
        rooms: sorted set of what tasks wait for when it is not their turn: members such as ``limit:NAME:KEY``,
            ``order:KEY`` and ``fair``; the score is when to look, Redis time in ms. See `room`.
        outbox: sorted set of what has still to be done for flows: ``flow:ID`` for a flow of this queue, ``end:ID`` for
            a task of this queue whose flow is to be told that it has ended; the score is when that was noted, or seen
            to, Redis time in ms.
        flows: sorted set of the flows of this queue; the score is until when they are kept.
        events: prefix of the channels of the queue's task events.
        log: stream in which these events are kept; None: they are not. Scripts that make events have it as their last
            key, or if it is None their first key once more, which is there anyway and in the right slot.
        record: gives the key of a task's record, a hash, from the task's id.
        chunks: gives the key of what a task has emitted, a stream, from the task's id.
        lock: gives the key of a lock, a hash, from its name: a task's, and a digest of the arguments that count.
    """

    def __init__(self, namespace: str, name: str, *, durable_events: bool = False) -> None:
        base = f"{namespace}:{{{name}}}"
        self.name = name
        self.levels = tuple(f"{base}:stream:{level}" for level in LEVELS)
        self.ready = self.levels[DEFAULT_LEVEL]
        self.returned = f"{base}:stream:returned"
        self.delayed = self.signals = f"{base}:delayed"
        self.dead = f"{base}:dead"
        self.paused = f"{base}:paused"
        self.moving = f"{base}:moving"
        self.timetable = (
            f"{base}:schedule",
            f"{base}:schedules",
            f"{base}:schedules:fired",
            f"{base}:schedules:declared",
        )
        self.rooms = f"{base}:rooms"
        self.outbox = f"{base}:outbox"
        self.flows = f"{base}:flows"
        self.events = f"{namespace}:events:{name}:"
        self.log = f"{base}:events" if durable_events else None
        self.record: Callable[[str], str] = f"{base}:task:".__add__
        self.chunks: Callable[[str], str] = f"{base}:chunks:".__add__
        self.lock: Callable[[str], str] = f"{base}:unique:".__add__
        self._base = base

    @property
    def all_streams(self) -> tuple[str, ...]:
        """The streams that may be there: that of returned messages, then those of the levels from 0."""
        return (self.returned, *self.levels)

    def stream(self, name: str) -> str:
        """The stream that a record calls `name`: most messages are in that of the level that most have."""
        return self.returned if name == "returned" else self.levels[int(name or DEFAULT_LEVEL)]

    @property
    def named_streams(self) -> tuple[tuple[str, str], ...]:
        """What records call the streams, and the streams: first those from which messages go to others."""
        names = ("", *(str(level) for level in LEVELS if level != DEFAULT_LEVEL), "returned")
        return tuple((name, self.stream(name)) for name in names)

    def room(self, member: str) -> tuple[str, str, str, str]:
        """The keys of one member of the rooms: its rule, its rate, who has places, and who waits.

        Two hashes with a string between them, and a sorted set of ids; ``fair`` has a hash of the times of keys in
        place of the rate.
        """
        base = f"{self._base}:{member}"
        return (f"{base}:rule", f"{base}:rate", f"{base}:places", f"{base}:room")

    def flow(self, flow_id: str) -> tuple[str, ...]:
        """The seven keys of a flow, the first of which is its record; `streamq.broker.flows` says what they hold."""
        base = f"{self._base}:flow:{flow_id}"
        return (self.record(flow_id), *(f"{base}:{part}" for part in FLOW_PARTS))


class ChannelKeys:
    """The keys and the channel of one channel of the user's.

    Attributes:
        name: its name, or a pattern of names.
        channel: where its messages are published.
        shard_channel: where they are if it is sharded: in the slot of its keys.
        log: stream of the messages of one that is durable.
        numbers: hash of how many messages were ever put there, and, as ``g:GROUP``, of the last that a group has got.
        sent: gives the key of the last that a session has put there, from the session; it has a time to live.
    """

    def __init__(self, namespace: str, name: str) -> None:
        base = f"{namespace}:channel:{{{name}}}"
        self.name = name
        self.channel = f"{namespace}:channel:{name}"
        self.shard_channel = base
        self.log = f"{base}:log"
        self.numbers = f"{base}:numbers"
        self.sent: Callable[[str], str] = f"{base}:sent:".__add__

    def told(self, *, sharded: bool) -> str:
        """Where its messages are published."""
        return self.shard_channel if sharded else self.channel


class Keys:
    """The keys and channels of one namespace.

    Attributes:
        namespace: first part of all of them.
        queues: set of the names of the queues.
        done: prefix of the channels on which clients are told that tasks have ended.
        beacon: channel to which all are subscribed who listen to events, so that the server knows whether anybody does;
            nothing is ever published on it. Scripts know its name.
        worker_log: stream in which the events of workers are kept; None: no events are kept.
        presence: of agents: sorted set of instances by the time until which they are there, Redis time in ms; hash of
            who they are; and hash of how many changes of that were told.
        claim: gives the key of a claim from its name; it has a time to live.
    """

    def __init__(self, namespace: str, *, durable_events: bool = False) -> None:
        self.namespace = namespace
        self.queues = f"{namespace}:queues"
        self.done = f"{namespace}:done:"
        self.beacon = f"{namespace}:events:listening"
        self.worker_log = f"{namespace}:worker-events" if durable_events else None
        self.queue = lru_cache(maxsize=1024)(self._queue)

        self.channels = f"{namespace}:channels"
        self.channel = lru_cache(maxsize=1024)(self._channel)
        base = f"{namespace}:agents:{{presence}}"
        self.presence = (f"{base}:seen", f"{base}:info", f"{base}:told")
        self.claim: Callable[[str], str] = f"{namespace}:claim:".__add__

    def _channel(self, name: str) -> ChannelKeys:
        return ChannelKeys(self.namespace, name)

    def _queue(self, name: str) -> QueueKeys:
        return QueueKeys(self.namespace, name, durable_events=self.worker_log is not None)

    def worker_event(self, worker: str, event: str) -> str:
        """Channel of one kind of event of one worker."""
        return f"{self.namespace}:events:worker:{worker}:{event}"

    def events(self, *, queue: str = "*", task: str = "*", event: str = "*") -> str:
        """Pattern of the channels that carry these events; a worker's events have the queue ``worker``."""
        return f"{self.namespace}:events:{queue}:{task}:{event}"
