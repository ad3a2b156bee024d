"""What a worker process tells its supervisor. Imports nothing of streamq: the supervisor is small."""

from __future__ import annotations

import contextlib
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

EXIT_BLOCKED = 70  # the exit code of a process that ends because its event loop has been blocked for too long


class Counters(dict[tuple[str, str], int]):
    """Numbers that only grow, by what is counted and of what: ``counters["succeeded", "shop.buy"] += 1``.

    Each of them has one writer, the event loop or one thread; any thread may copy them. An increment takes 0.15 µs.

    What is counted, by the label that goes with it:

    - by task name: ``succeeded``, ``failed``, ``retried``, ``dead``, ``expired``, ``cancelled`` (while this worker had
      it), ``handed_back`` (not ended here, and given to the others) and ``fenced`` (its outcome was refused, as it was
      another's by then);
    - by the empty string: ``fetched``, ``reclaimed`` (from workers that gave no sign of life), ``leases_lost``,
      ``outages`` (of Redis), ``loop_blocked`` (times that the event loop was blocked) and ``loop_blocked_ms``.
    """

    def __missing__(self, key: tuple[str, str]) -> int:
        return 0


@dataclass
class Vitals:
    """How a child process is.

    Attributes:
        running: tasks that it runs now.
        capacity: tasks that it can run at a time.
        silence: seconds since it last read from Redis; None if it never has.
        lag: seconds that its event loop took to come round of late.
        blocked: seconds for which its event loop has been blocked; 0 when it is not.
        stuck: tasks past their time limit that cannot be ended.
    """

    running: int
    capacity: int
    silence: float | None
    lag: float
    blocked: float
    stuck: int


def peak_memory() -> float:
    """Return how many MiB of this process were in memory at a time, at most.

    On Linux ``ru_maxrss`` begins with the peak of the process that started this one (getrusage(2) of a program that
    was executed goes on from before), so there it is read elsewhere.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)
