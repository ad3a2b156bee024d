"""Celery's side of flows, with its own best documented settings; it runs on a Python of its own.

``python -m benchmarks.celery_flows JOB COUNT SERVER_PID``
"""

# mypy: disable-error-code="import-not-found,untyped-decorator"
# Celery is not there where types are checked.

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from celery import Celery, chain, chord, signals

from benchmarks.machine import Meter
from benchmarks.report import DEPTH, FEW, HOPS, WIDTH, say, say_hops, say_latency

_PREFIX = {"global_keyprefix": "bench:celery:"}
_URL = os.environ["BENCHMARK_URL"].replace("unix://", "redis+socket://", 1)

app: Any = Celery("benchmarks.celery_flows", broker=_URL, backend=_URL)
app.conf.update(
    broker_transport_options=_PREFIX,
    result_backend_transport_options=_PREFIX,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=128,
    worker_disable_rate_limits=True,
    result_expires=3600,
)
_starts: list[float] = []


@app.task
def noop() -> None:
    """Do nothing."""


@app.task
def follow(_value: object) -> None:
    """Do nothing, after something else."""


@app.task(ignore_result=True)
def pass_on(_value: object = None) -> None:
    """Do nothing, where nobody asks for the result: the next in the chain has it from the worker."""


@app.task(ignore_result=True)
def mark(_value: object = None) -> None:
    """Do nothing, and remember when that began."""
    _starts.append(time.perf_counter())


@app.task
def marks(_value: object = None) -> list[float]:
    """Return when each `mark` in this process began since this was last asked."""
    starts = _starts.copy()
    _starts.clear()
    return starts


@signals.worker_ready.connect
def _say_so(**_about: object) -> None:
    print("the worker is ready", flush=True)


def hops(count: int, _server: int) -> None:
    """Have chains run one after the other, and ask when their parts began."""

    def once() -> list[float]:
        starts: list[float] = chain(*(mark.s() for _ in range(HOPS + 1)), marks.s()).delay().get(timeout=60)
        return starts

    once()
    say_hops([once() for _ in range(count)])


def latency(count: int, _server: int) -> None:
    """Start a chain of two, and wait for the result."""
    say_latency(count, lambda: chain(pass_on.s(), follow.s()).delay().get(timeout=30))


def _chord(members: int) -> Any:
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
    nested = chord([noop.s() for _ in range(WIDTH)], follow.s())
    for _ in range(DEPTH - 1):
        nested = chord([*(noop.s() for _ in range(WIDTH)), nested], follow.s())
    print(json.dumps(_record(nested.delay())))


def _record(result: Any) -> str:
    return f"{_PREFIX['global_keyprefix']}celery-task-meta-{result.id}"


if __name__ == "__main__":
    jobs = {one.__name__: one for one in (hops, latency, start, whole, nest)}
    jobs[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.flush()
    os._exit(0)  # results that nobody has read would open connections, one by one, when they are collected
