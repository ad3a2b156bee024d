"""The streamq side of flows, through its public API.

``python -m benchmarks.flows JOB COUNT SERVER_PID``
"""

from __future__ import annotations

from benchmarks.flow_jobs import FlowJobs
from benchmarks.tasks import app, follow, mark, marks, noop
from streamq import chain, chord
from streamq.config import DEFAULT_QUEUE

if __name__ == "__main__":
    with app:
        FlowJobs(
            chain,
            chord,
            noop=noop,
            first=noop,
            follow=follow,
            mark=mark,
            marks=marks,
            record=app.broker.keys.queue(DEFAULT_QUEUE).record,
        ).run()
