"""The streamq side of flows, through its public API.

``python -m benchmarks.flows JOB COUNT SERVER_PID``
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from benchmarks.machine import Meter
from benchmarks.report import DEPTH, FEW, HOPS, WIDTH, say, say_hops, say_latency
from benchmarks.tasks import app, follow, mark, marks, noop
from streamq import FlowResult, chain, chord
from streamq.config import DEFAULT_QUEUE
from streamq.workflows.group import Chord


def hops(count: int, _server: int) -> None:
    """Have chains run one after the other, and ask when their parts began."""
    marked = chain(mark.s(), *(mark.s() for _ in range(HOPS)), marks.s())
    marked.delay().get(timeout=30)
    say_hops([marked.delay().get(timeout=30) for _ in range(count)])


def latency(count: int, _server: int) -> None:
    """Start a chain of two, and wait for the result."""
    say_latency(count, lambda: chain(noop.s(), follow.s()).delay().get(timeout=30))


def _chord(members: int) -> FlowResult[Any]:
    return chord([noop.s() for _ in range(members)], follow.s()).delay()


def start(count: int, server: int) -> None:
    """Start a chord that nobody runs yet; tells what is there in the server when it has ended, too."""
    _chord(FEW)
    meter = Meter(os.getpid(), server)
    result = _chord(count)
    print(json.dumps((meter.stop(count), _record(result))))


def whole(count: int, _server: int) -> None:
    """Start a chord, and wait for the body's result."""
    _chord(FEW).get(timeout=30)
    meter = Meter(None, None)
    _chord(count).get(timeout=300)
    say(meter.stop(count))


def nest(_count: int, _server: int) -> None:
    """Start chords that are in each other; tells what is there in the server when they have ended."""
    nested: Chord[None] = chord([noop.s() for _ in range(WIDTH)], follow.s())
    for _ in range(DEPTH - 1):
        nested = chord([*(noop.s() for _ in range(WIDTH)), nested], follow.s())
    print(json.dumps(_record(nested.delay())))


def _record(result: FlowResult[Any]) -> str:
    return app.broker.keys.queue(DEFAULT_QUEUE).record(result.id)


if __name__ == "__main__":
    jobs = {one.__name__: one for one in (hops, latency, start, whole, nest)}
    with app:
        jobs[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
