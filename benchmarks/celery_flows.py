"""Celery's side of flows, with its own best documented settings; it runs on a Python of its own.

``python -m benchmarks.celery_flows JOB COUNT SERVER_PID``
"""

# mypy: disable-error-code="import-not-found,untyped-decorator"
# Celery is not there where types are checked.

from __future__ import annotations

import os
import sys
import time
from typing import Any

from celery import Celery, chain, chord, signals

from benchmarks.flow_jobs import FlowJobs

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


if __name__ == "__main__":
    record = f"{_PREFIX['global_keyprefix']}celery-task-meta-{{}}".format
    FlowJobs(chain, chord, noop=noop, first=pass_on, follow=follow, mark=mark, marks=marks, record=record).run()
    sys.stdout.flush()
    os._exit(0)  # results that nobody has read would open connections, one by one, when they are collected
