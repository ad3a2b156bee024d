"""Listens to what workers are told, and passes it on to those whom it concerns."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable

from streamq.broker import signals
from streamq.config import Settings
from streamq.errors import BrokerError
from streamq.worker.promoter import Promoter

_log = logging.getLogger("streamq.worker")


class Listener:
    """Hears signals. Whoever is told something by it finds out without it too, only later.

    Args:
        settings: those of the app.
        queues: names of the queues that are served.
        promoter: is told what is due sooner than it knows.
        cancelled: is called with the stream and the entry of what was cancelled.
    """

    def __init__(
        self, settings: Settings, queues: Iterable[str], promoter: Promoter, cancelled: Callable[[str, bytes], object]
    ) -> None:
        self._settings = settings
        self._queues = tuple(queues)
        self._promoter = promoter
        self._cancelled = cancelled

    async def run(self) -> None:
        """Listen until cancelled."""
        async with contextlib.aclosing(signals.listen(self._settings, self._queues)) as news:
            async for said in news:
                match said:
                    case signals.Sooner(seconds):
                        self._promoter.expect(seconds)
                    case signals.Cancelled(stream, entry):
                        self._cancelled(stream, entry)
                    case signals.Connected():
                        self._promoter.expect(0)
                    case BrokerError():
                        _log.debug("signals cannot be heard: %s", said)
