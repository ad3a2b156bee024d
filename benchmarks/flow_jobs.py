"""What is measured of flows where a library makes them: the same jobs for streamq and for Celery."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.machine import Meter
from benchmarks.report import DEPTH, FEW, HOPS, WIDTH, say, say_hops, say_latency


@dataclass(frozen=True)
class FlowJobs:
    """The jobs, and what one side makes flows with.

    Attributes:
        chain: makes a chain of calls.
        chord: makes a chord of calls and a body.
        noop: a task that does nothing.
        first: the same, as the first of a chain: only the next wants its result.
        follow: a task that does nothing, after something else.
        mark: a task that remembers when it began.
        marks: a task that returns when each `mark` began since this was last asked.
        record: gives the key that tells, by the id of a flow, that it is over.
    """

    chain: Callable[..., Any]
    chord: Callable[..., Any]
    noop: Any
    first: Any
    follow: Any
    mark: Any
    marks: Any
    record: Callable[[str], str]

    def hops(self, count: int, _server: int) -> None:
        """Have chains run one after the other, and ask when their parts began."""

        def once() -> list[float]:
            marked = self.chain(*(self.mark.s() for _ in range(HOPS + 1)), self.marks.s())
            starts: list[float] = marked.delay().get(timeout=60)
            return starts

        once()
        say_hops([once() for _ in range(count)])

    def latency(self, count: int, _server: int) -> None:
        """Start a chain of two, and wait for the result."""
        say_latency(count, lambda: self.chain(self.first.s(), self.follow.s()).delay().get(timeout=30))

    def start(self, count: int, server: int) -> None:
        """Start a chord that nobody runs yet; tells what is there in the server when it has ended, too."""
        self._chord(FEW)
        meter = Meter(os.getpid(), server)
        result = self._chord(count)
        print(json.dumps((meter.stop(count), self.record(result.id))))

    def whole(self, count: int, _server: int) -> None:
        """Start a chord, and wait for the body's result."""
        self._chord(FEW).get(timeout=30)
        meter = Meter(None, None)
        self._chord(count).get(timeout=300)
        say(meter.stop(count))

    def nest(self, _count: int, _server: int) -> None:
        """Start chords that are in each other; tells what is there in the server when they have ended."""
        nested = self.chord([self.noop.s() for _ in range(WIDTH)], self.follow.s())
        for _ in range(DEPTH - 1):
            nested = self.chord([*(self.noop.s() for _ in range(WIDTH)), nested], self.follow.s())
        print(json.dumps(self.record(nested.delay().id)))

    def run(self) -> None:
        """Do the job that the command line names: ``JOB COUNT SERVER_PID``."""
        jobs = {one.__name__: one for one in (self.hops, self.latency, self.start, self.whole, self.nest)}
        jobs[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))

    def _chord(self, members: int) -> Any:
        return self.chord([self.noop.s() for _ in range(members)], self.follow.s()).delay()
