"""Says among the events that a worker process is there, that it lives, and that it goes."""

from __future__ import annotations

import asyncio
import json
import os
import time

from streamq.broker.fleet import Fleet
from streamq.errors import BrokerError
from streamq.worker.executor import Executor
from streamq.worker.outage import Outage

_SECONDS = 5.0


class Heartbeat:
    """Publishes the events ``worker.online``, ``worker.heartbeat`` and ``worker.offline``."""

    def __init__(self, fleet: Fleet, executor: Executor, outage: Outage) -> None:
        self._fleet = fleet
        self._executor = executor
        self._outage = outage

    async def run(self) -> None:
        """Publish until cancelled."""
        await self.say("online")
        while True:
            await asyncio.sleep(_SECONDS)
            await self.say("heartbeat")

    async def say(self, event: str) -> None:
        """Publish one event."""
        worker, keys = self._fleet.consumer, self._fleet.keys
        text = {
            "event": f"worker.{event}",
            "worker": worker,
            "pid": os.getpid(),
            "queues": [queue.name for queue in self._fleet.queues],
            "running": self._executor.busy,
            "time": time.time_ns() // 1_000_000,
        }
        try:
            await self._fleet.announce([(keys.worker_log, keys.worker_event(worker, event), json.dumps(text).encode())])
        except BrokerError as error:
            self._outage.noticed(error)
