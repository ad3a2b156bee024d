"""How a measured process tells its figures: one line of JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from statistics import quantiles

from benchmarks.machine import Figure

WARM_UP = 50
HOPS = 50  # in a chain
FEW = 10  # members of a chord, to warm up
DEPTH, WIDTH = 6, 10  # of chords in each other


def say(figure: Figure) -> None:
    """Tell a rate and the CPU time."""
    print(json.dumps(figure))


def say_latency(count: int, once: Callable[[], object]) -> None:
    """Tell the median and the 99th percentile of what `once` takes, in ms."""
    for _ in range(WARM_UP):
        once()
    took = []
    for _ in range(count):
        start = time.perf_counter()
        once()
        took.append((time.perf_counter() - start) * 1000)
    say_times(took)


def say_times(took: list[float]) -> None:
    """Tell the median and the 99th percentile of some times, in ms."""
    steps = quantiles(took, n=100)
    print(json.dumps((steps[49], steps[98])))


def say_hops(chains: Iterable[Sequence[float]]) -> None:
    """Tell the median and the 99th percentile of the times, in ms, between when the parts of chains began, in s."""
    say_times([(after - before) * 1000 for starts in chains for before, after in pairwise(starts)])
