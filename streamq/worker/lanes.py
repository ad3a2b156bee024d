"""How many runs of each kind may go on, and so how many messages a worker should fetch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from streamq.worker.holdings import Run

# What is fetched ahead must start within this many seconds at the pace of late, so that a task does not wait in the
# memory of one worker while another is idle.
_AHEAD_SECONDS = 0.05
AHEAD_MOST = 300
_HOARD_MOST = 16  # messages that may wait for places of one kind, while there are places of another


class Pace:
    """How many runs end in a second, of late."""

    def __init__(self) -> None:
        self.ended = 0
        self._before = 0
        self._since = time.monotonic()
        self._rate = 0.0

    def ahead(self) -> int:
        """Return how many messages may wait in memory."""
        elapsed = time.monotonic() - self._since
        if elapsed >= _AHEAD_SECONDS:
            self._rate = self.ended / elapsed
            self._before += self.ended
            self.ended = 0
            self._since += elapsed
        return min(AHEAD_MOST, int(self._rate * _AHEAD_SECONDS))

    @property
    def total(self) -> int:
        """How many runs have ended in all."""
        return self._before + self.ended


@dataclass
class Lane:
    """Runs of one kind.

    Attributes:
        size: how many may run at a time.
        start: starts one.
        running: how many run.
        waiting: those that wait for a place.
        on_trial: those that wait, and before that for `Trial` to let them begin.
    """

    size: int
    start: Callable[[Run], None]
    running: int = 0
    waiting: deque[Run] = field(default_factory=deque)
    on_trial: deque[Run] = field(default_factory=deque)

    @property
    def free(self) -> int:
        """How many more may run."""
        return self.size - self.running

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self.waiting) + len(self.on_trial)


def free_places(expected: Sequence[Lane], on_loop: Lane) -> int:
    """Count the free places, whatever kind of task comes next.

    Args:
        expected: the lanes that messages may be for.
        on_loop: that of async tasks, which is so wide that nothing is fetched while it is full.
    """
    least = min(lane.free for lane in expected)
    if least > 0:
        return least
    full = [lane for lane in expected if lane.free <= 0]
    if on_loop in full or len(full) == len(expected):
        return 0
    # Go on for the sake of other kinds, but not until memory is full of what waits for a place.
    if any(lane.queued >= min(lane.size, _HOARD_MOST) for lane in full):
        return 0
    most = min(lane.free for lane in expected if lane.free > 0)
    return min(most, 1 + sum(lane.queued for lane in full))
