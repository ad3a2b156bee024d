"""What is measured of flows, one round of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from benchmarks.machine import Figure, Meter
from benchmarks.memory import Memory
from benchmarks.processes import Processes
from benchmarks.server import Server

Add = Callable[[str, str, Figure], None]

_MODULES = {"ours": "flows", "bare": "bare_flows", "celery": "celery_flows"}
_KIBIBYTE = 1024
_PATIENCE_SECONDS = 300.0


class FlowRound:
    """Measures flows.

    Args:
        server: the server.
        processes: run what is measured.
        add: takes the figure of a measure and a side.
    """

    def __init__(self, server: Server, processes: Processes, add: Add) -> None:
        self._server = server
        self._processes = processes
        self._add = add

    def chains(self, side: str, chains: int, round_trips: int) -> None:
        """Measure how long it takes from one task of a chain to the next, and from its call to its result."""
        module = _MODULES[side]
        with self._worker(side):
            hop, _ = self._processes.job(module, "hops", chains, beside_server=True)
            p50, _ = self._processes.job(module, "latency", round_trips, beside_server=True)
        self._add("chain_hop", side, Figure(hop, None, None))
        self._add("chain_p50", side, Figure(p50, None, None))

    def chord_memory(self, side: str, members: int) -> None:
        """Measure how fast a chord is enqueued, and what the server keeps for it until its end and after."""
        memory = Memory(self._server)
        with memory.watched():
            figure, record = self._processes.job(_MODULES[side], "start", members)
            with self._worker(side):
                self._until_over(side, record)
        self._add("chord_delay", side, Figure(*figure))
        self._add("chord_fullest", side, Figure(memory.most / members, None, None))
        self._add("chord_end", side, Figure(memory.look() / members, None, None))

    def chords(self, side: str, members: int) -> None:
        """Measure how fast a chord is with a worker that waits, and what the server keeps for chords in chords."""
        module = _MODULES[side]
        with self._worker(side) as pid:
            self._processes.job(module, "whole", 1)  # what a worker keeps in the server anyway is there after that
            memory = Memory(self._server)
            with memory.watched():
                self._until_over(side, self._processes.job(module, "nest", 0))
            end = memory.look()
            meter = Meter(pid, self._server.pid)
            rate, _, _ = self._processes.job(module, "whole", members)
            _, worker, server = meter.stop(members)
        self._add("nested_fullest", side, Figure(memory.most / _KIBIBYTE, None, None))
        self._add("nested_end", side, Figure(end / _KIBIBYTE, None, None))
        self._add("chord", side, Figure(rate, worker, server))

    def _worker(self, side: str) -> AbstractContextManager[int | None]:
        if side == "bare":
            return self._processes.meanwhile("bare_flows", "relay")
        return self._processes.worker() if side == "ours" else self._processes.celery_worker()

    def _until_over(self, side: str, record: str) -> None:
        client, deadline = self._server.client, time.monotonic() + _PATIENCE_SECONDS
        while not (client.exists(record) if side == "celery" else client.hget(record, "state") == b"succeeded"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{record} does not come to its end")
            time.sleep(0.01)
