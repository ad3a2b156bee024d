"""`Queues`: what waits in the queues of an app, and what can be done with a queue as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from streamq.broker import calls, moving, pausing, reads
from streamq.broker.caller import Broker
from streamq.broker.moving import Moved
from streamq.broker.walking import Steps, acomplete, complete
from streamq.checks import is_number
from streamq.config import check_name
from streamq.errors import ConfigError


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """One queue at one moment.

    Attributes:
        name: the queue's name.
        length: messages that wait for a worker.
        levels: of these, how many wait on each priority level; levels without any are left out.
        returned: of these, how many were handed back or reclaimed; they come before all levels.
        pending: messages that workers have and that have not ended.
        delayed: tasks whose time has not come.
        held: tasks that wait for their turn: for a place of a limit, or behind others of their key.
        dead: dead letters.
        moving: messages on their way to another queue: more than none only while, or because, a move was interrupted.
        oldest_age: seconds since the oldest message, waiting or pending, came to its stream; None if there is none.
        paused: no worker fetches from it.
        enqueued_rate: messages a second that came to its streams, new or when their time had come; None if there was
            but one look.
        ended_rate: messages a second that left them, because they had ended or were put back for later; None as above.
    """

    name: str
    length: int
    levels: Mapping[int, int]
    returned: int
    pending: int
    delayed: int
    held: int
    dead: int
    moving: int
    oldest_age: float | None
    paused: bool
    enqueued_rate: float | None = None
    ended_rate: float | None = None


Infos = list[QueueInfo]


class Queues:
    """The queues of an app. Made by ``app.queues``.

    Every method has a sync form and an ``a`` form, and raises `BrokerError` if Redis does not do what is asked.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def list(self, *, over: float | None = None) -> Infos:
        """Look at all known queues, by name; each as it was at one moment.

        Args:
            over: look twice, so many seconds apart, and say how many messages came and went meanwhile, a second.

        Raises:
            ConfigError: that is no time.
        """
        return complete(self._broker.sync, self._look(over))

    async def alist(self, *, over: float | None = None) -> Infos:
        """Look at all known queues, as `list` does."""
        return await acomplete(self._broker.on_loop, self._look(over))

    def pause(self, name: str) -> bool:
        """Have workers fetch no more from a queue, until it is resumed.

        They see it within a second. What they have fetched goes on, tasks whose time comes are put on their streams,
        and new ones can be enqueued. The pause outlives restarts, of Redis too as far as that keeps its data.

        Args:
            name: the queue's name; it need not have been used yet.

        Returns:
            False if it was paused already.

        Raises:
            ConfigError: there can be no such queue.
        """
        return complete(self._broker.sync, self._pause(name))

    async def apause(self, name: str) -> bool:
        """Have workers fetch no more from a queue, as `pause` does."""
        return await acomplete(self._broker.on_loop, self._pause(name))

    def resume(self, name: str) -> bool:
        """Have workers fetch again from a queue that is paused; they see it within a second.

        Returns:
            False if it was not paused.

        Raises:
            ConfigError: there can be no such queue.
        """
        return complete(self._broker.sync, self._resume(name))

    async def aresume(self, name: str) -> bool:
        """Have workers fetch again from a queue that is paused, as `resume` does."""
        return await acomplete(self._broker.on_loop, self._resume(name))

    def move(self, source: str, target: str, *, on_progress: Callable[[int], object] | None = None) -> Moved:
        """Move to another queue all messages that no worker has, also those whose time has not come.

        They keep id, priority, due time, attempts and place in the order. Who waits for their results, and knows the
        old queue alone, still gets them, for a week after the task was due. Messages that come to the old queue
        meanwhile, what runs, what waits for its turn, and dead letters stay. Limits, the order of one ordering key and
        the uniqueness of calls hold within a queue: for what was moved they begin anew at the other one.

        No message is lost or doubled if this is interrupted, at whatever step: what was under way arrives when it is
        called again or, within a second, if a worker of the old queue runs.

        Args:
            source: the queue to take from.
            target: the queue to put on.
            on_progress: called with the number of messages that are moved so far, after each hundred.

        Returns:
            How many were moved, and how many stay because their id is that of another task of the other queue.

        Raises:
            ConfigError: there can be no such queues, or they are the same.
            BrokerOutOfMemory: Redis is full. The messages that are left stay where they are.
        """
        return complete(self._broker.sync, self._move(source, target, on_progress))

    async def amove(self, source: str, target: str, *, on_progress: Callable[[int], object] | None = None) -> Moved:
        """Move to another queue all messages that no worker has, as `move` does."""
        return await acomplete(self._broker.on_loop, self._move(source, target, on_progress))

    # ---- what both forms share

    def _look(self, over: float | None) -> Steps[Infos]:
        if over is not None and not (is_number(over) and 0 < over < math.inf):
            raise ConfigError(f"over must be more than 0 seconds, not {over!r}")
        keys = self._broker.keys
        names = yield calls.queue_names(keys)
        queues = [keys.queue(name) for name in names]
        look = [reads.measure(queue) for queue in queues]
        before: Sequence[reads.Depth | None] = [None] * len(names)
        if over is not None:
            before = yield look
            yield over
        now = yield look
        rooms = yield [reads.rooms(queue) for queue in queues]
        held = yield [reads.held(queue, members) for queue, members in zip(queues, rooms, strict=True)]
        return [_info(*one) for one in zip(now, before, held, strict=True)]

    def _pause(self, name: str) -> Steps[bool]:
        queue = self._broker.keys.queue(check_name("queue", name))
        was_new: bool = yield pausing.pause(queue)
        yield calls.register_queues(self._broker.keys, [name])
        return was_new

    def _resume(self, name: str) -> Steps[bool]:
        was_paused: bool = yield pausing.resume(self._broker.keys.queue(check_name("queue", name)))
        return was_paused

    def _move(self, source: str, target: str, on_progress: Callable[[int], object] | None) -> Steps[Moved]:
        if check_name("queue", source) == check_name("queue", target):
            raise ConfigError(f"messages of queue {source!r} cannot be moved to the same queue")
        keys = self._broker.keys
        return (yield from moving.move(keys, keys.queue(source), target, on_progress))


def _info(depth: reads.Depth, before: reads.Depth | None, held: int) -> QueueInfo:
    came = went = None
    if before is not None:
        seconds = max(1, depth.now_ms - before.now_ms) / 1000
        # A stream that was deleted by hand meanwhile counts from the beginning.
        added = max(0, depth.added - before.added)
        came, went = added / seconds, max(0, added + before.entries - depth.entries) / seconds
    return QueueInfo(
        name=depth.queue,
        length=sum(depth.waiting.values()),
        levels={level: length for level, length in sorted(depth.waiting.items(), key=str) if level is not None},
        returned=depth.waiting.get(None, 0),
        pending=depth.pending,
        delayed=depth.delayed,
        held=held,
        dead=depth.dead,
        moving=depth.moving,
        oldest_age=None if depth.oldest_ms is None else max(0, depth.now_ms - depth.oldest_ms) / 1000,
        paused=depth.paused,
        enqueued_rate=came,
        ended_rate=went,
    )
