"""What is measured of channels, one round of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.machine import Figure
from benchmarks.names import BARE_CHANNEL, CHANNEL
from benchmarks.processes import Processes
from benchmarks.server import Server

Add = Callable[[str, str, Figure], None]

_MODULES = {"ours": "channels", "bare": "bare_channels"}
_LOAD = b"x" * 10_000
_CHUNK = 50
_CHUNKS_A_SECOND = 100
_MEGABYTE = 1e6


class ChannelRound:
    """Measures channels.

    Args:
        server: the server.
        processes: run what is measured.
        add: takes the figure of a measure and a side.
    """

    def __init__(self, server: Server, processes: Processes, add: Add) -> None:
        self._server = server
        self._processes = processes
        self._add = add

    def tell(self, side: str, round_trips: int) -> None:
        """Measure how old a message is when it is heard, in another process."""
        module = _MODULES[side]
        with self._processes.meanwhile(module, "tell", beside_server=True):
            p50, _ = self._processes.job(module, "hear", round_trips)
        self._add("tell_p50", side, Figure(p50, None, None))

    def ask(self, round_trips: int) -> None:
        """Measure how long an agent of another process takes to answer."""
        with self._processes.meanwhile("channels", "answer", beside_server=True):
            p50, _ = self._processes.job("channels", "ask", round_trips)
        self._add("request_p50", "ours", Figure(p50, None, None))

    def publish(self, side: str, messages: int) -> None:
        """Measure how many messages one process publishes."""
        self._add("publish", side, Figure(*self._processes.job(_MODULES[side], "publish", messages)))

    def hear(self, side: str, messages: int) -> None:
        """Measure how many messages one listener hears."""
        module = _MODULES[side]
        with self._processes.meanwhile(module, "flood", messages, beside_server=True):
            self._add("hear", side, Figure(*self._processes.job(module, "hear_flood", messages)))

    def hear_by_many(self, messages: int) -> None:
        """Measure how many messages a thousand listeners of one process hear, and what each of them takes."""
        with self._processes.meanwhile("channels", "flood", messages, beside_server=True):
            deliveries, memory = self._processes.job("channels", "hear_by_many", messages)
        self._add("hear_many", "ours", Figure(*deliveries))
        self._add("listener_memory", "ours", Figure(*memory))

    def stuck(self, side: str, seconds: float) -> None:
        """Measure what the server keeps for a listener that does not read, while 10 KB messages go by."""
        channel, client = (CHANNEL if side == "ours" else BARE_CHANNEL), self._server.client
        with self._processes.meanwhile(_MODULES[side], "stuck"):
            while not client.pubsub_numsub(channel)[0][1]:
                time.sleep(0.01)
            most, grown, before, began = 0, 0, self._used(), time.monotonic()
            for number in range(round(seconds * _CHUNKS_A_SECOND)):
                pipeline = client.pipeline(transaction=False)
                for _ in range(_CHUNK):
                    pipeline.publish(channel, _LOAD)
                pipeline.execute()
                most, grown = max(most, self._kept()), max(grown, self._used() - before)
                time.sleep(max(0.0, began + number / _CHUNKS_A_SECOND - time.monotonic()))
        self._add("stuck", side, Figure(most / _MEGABYTE, None, None))
        self._add("stuck_memory", side, Figure(grown / _MEGABYTE, None, None))

    def _used(self) -> int:
        return int(self._server.client.info("memory")["used_memory"])

    def _kept(self) -> int:
        """Say what the server keeps for those who listen."""
        return sum(int(one["omem"]) for one in self._server.client.client_list(_type="pubsub"))
