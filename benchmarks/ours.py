"""The streamq side, through its public API.

``python -m benchmarks.ours JOB COUNT SERVER_PID``
"""

from __future__ import annotations

import os
import sys

from benchmarks.machine import Meter
from benchmarks.report import WARM_UP, say, say_latency
from benchmarks.tasks import app, noop, noop_in_thread
from streamq.broker import calls
from streamq.config import DEFAULT_QUEUE

_CHUNK = 10_000
_STEP = 100  # as in the promoter of a worker


def enqueue(count: int, server: int) -> None:
    """Call `delay` one by one."""
    for _ in range(WARM_UP):
        noop.delay()
    meter = Meter(os.getpid(), server)
    for _ in range(count):
        noop.delay()
    say(meter.stop(count))


def enqueue_many(count: int, server: int) -> None:
    """Make signatures and enqueue them in one call."""
    noop.delay()
    meter = Meter(os.getpid(), server)
    app.enqueue_many(noop.s() for _ in range(count - 1))
    say(meter.stop(count - 1))


def fill_for_threads(count: int, _server: int) -> None:
    """Enqueue calls of a sync task."""
    app.enqueue_many(noop_in_thread.s() for _ in range(count))


def fill_delayed(count: int, _server: int) -> None:
    """Enqueue calls whose time comes tomorrow."""
    for start in range(0, count, _CHUNK):
        app.enqueue_many(noop.using(countdown=86_400).s() for _ in range(min(_CHUNK, count - start)))


def promotion(count: int, server: int) -> None:
    """Move tasks whose time has come to their stream, as the promoter of a worker does."""
    app.enqueue_many(noop.using(countdown=0.001).s() for _ in range(count))
    queue, run = app.broker.keys.queue(DEFAULT_QUEUE), app.broker.sync.run
    moved = 0
    meter = Meter(os.getpid(), server)
    while found := run(calls.due(queue, _STEP)).task_ids:
        moved += run(calls.promote(queue, found))
    say(meter.stop(moved))


def latency(count: int, _server: int) -> None:
    """Call `delay` and wait for the result."""
    say_latency(count, lambda: noop.delay().get(timeout=30))


if __name__ == "__main__":
    jobs = {
        "enqueue": enqueue,
        "enqueue_many": enqueue_many,
        "fill_for_threads": fill_for_threads,
        "fill_delayed": fill_delayed,
        "promotion": promotion,
        "latency": latency,
    }
    with app:
        jobs[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
