"""Times the emptying of a stream, from outside and in the same way for both sides."""

from __future__ import annotations

import time

from benchmarks.machine import Figure, Meter
from benchmarks.server import Server

# The first tenth warms up; of the last one the batches are no longer full.
_FROM, _TO = 0.9, 0.1
_LOOK_SECONDS = 0.005
_PATIENCE_SECONDS = 60.0


def time_drain(server: Server, stream: str, total: int, process: int | None) -> Figure:
    """Watch the length of a stream that `process` empties: an entry is deleted when its outcome is stored."""
    first = _until_at_most(server, stream, int(total * _FROM))
    meter = Meter(process, server.pid)
    last = _until_at_most(server, stream, int(total * _TO))
    figure = meter.stop(first - last)
    _until_at_most(server, stream, 0)
    return figure


def _until_at_most(server: Server, stream: str, wanted: int) -> int:
    seen, since = -1, time.monotonic()
    while True:
        length = int(server.client.execute_command("XLEN", stream))  # type: ignore[no-untyped-call] # redis-py's
        if length <= wanted:
            return length
        if length != seen:
            seen, since = length, time.monotonic()
        elif time.monotonic() - since > _PATIENCE_SECONDS:
            raise RuntimeError(f"{stream} stays at {length} entries")
        time.sleep(_LOOK_SECONDS)
