"""Reads what a durable channel has kept, from one end to the other, without listening."""

from __future__ import annotations

from collections.abc import Callable

from streamq.broker.reach import Reach
from streamq.channels.listener import I, Listener, Reader, Steps


class Replay(Listener[I]):
    """Gives what is kept, up to now, and comes to an end.

    Args:
        reach: the server.
        reader: reads the log.
    """

    def __init__(self, reach: Reach, reader: Reader[I]) -> None:
        super().__init__(reach)
        self._reader = reader

    def _start(self) -> Callable[[], object]:
        return lambda: None

    def _begin(self) -> Steps[I]:
        return (yield from self._reader.begin())

    def _more(self) -> Steps[I]:
        return (yield from self._reader.catch_up())
