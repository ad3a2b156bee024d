"""Which streams a worker reads, and in which order."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

from streamq._redis.keys import QueueKeys
from streamq.config import DEFAULT_LEVEL, LEVELS

T = TypeVar("T")

_random = random.Random()  # noqa: S311 - it divides work, and hides nothing


def shuffled(items: Sequence[T], weights: Sequence[float]) -> list[T]:
    """Bring items into a random order in which each is the first of what is left in proportion to its weight.

    The rule is that of Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006).
    """
    lots = [_random.random() ** (1 / weight) for weight in weights]
    return [items[position] for position in sorted(range(len(items)), key=lots.__getitem__, reverse=True)]


class Order:
    """The streams of some queues: those that are in use, and the order in which to read them.

    What was returned comes first in its queue, then a larger level before a smaller, and a queue before those that are
    named after it. Weights, where there are some, choose anew for each fetch who comes first.

    Args:
        queues: those that the worker serves.
        queue_weights: one for each of them; none: strictly in their order.
        level_weights: one for each level from 0; none: strictly by level.

    Attributes:
        streams: the keys of all streams in use, also of queues that are paused, each with the name of its queue.
    """

    def __init__(
        self, queues: Sequence[QueueKeys], queue_weights: Sequence[int] = (), level_weights: Sequence[int] = ()
    ) -> None:
        self._queues = tuple(queues)
        self._queue_weights = dict(zip((queue.name for queue in queues), queue_weights, strict=False))
        self._level_weights = level_weights
        self._levels = {queue.name: {DEFAULT_LEVEL} for queue in queues}
        self._paused: set[str] = set()
        self._arrange()

    def _arrange(self) -> None:
        self.streams = {
            stream: queue.name
            for queue in self._queues
            for stream in (
                queue.returned,
                *(queue.levels[level] for level in reversed(LEVELS) if self._has(queue, level)),
            )
        }
        self._read = [queue for queue in self._queues if queue.name not in self._paused]
        self._strict = [group for queue in self._read for group in self._by_level(queue)]

    def _has(self, queue: QueueKeys, level: int) -> bool:
        return level in self._levels[queue.name]

    def learn(self, queue: str, levels: Iterable[int], *, paused: bool) -> bool:
        """Note which levels of a queue are in use, and whether it is paused; tells whether that is news."""
        found = {DEFAULT_LEVEL, *levels}
        if found == self._levels[queue] and paused == (queue in self._paused):
            return False
        self._levels[queue] = found
        (self._paused.add if paused else self._paused.discard)(queue)
        self._arrange()
        return True

    def groups(self) -> list[dict[str, str]]:
        """Say what to read now: streams that may be read at once, and the names of their queues; the most urgent first.

        There is none if all queues are paused.
        """
        if len(self._strict) < 2 or not (self._queue_weights or self._level_weights):  # noqa: PLR2004 - no choice
            return self._strict
        queues = self._read
        if self._queue_weights:
            queues = shuffled(queues, [self._queue_weights[queue.name] for queue in queues])
        return [group for queue in queues for group in self._by_level(queue)]

    def _by_level(self, queue: QueueKeys) -> list[dict[str, str]]:
        levels = sorted(self._levels[queue.name], reverse=True)
        if self._level_weights:
            levels = shuffled(levels, [self._level_weights[level] for level in levels])
        first, *others = [{queue.levels[level]: queue.name} for level in levels]
        return [{queue.returned: queue.name} | first, *others]
