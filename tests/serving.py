"""A worker in the process of the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from streamq.worker.child import Job, serve
from streamq.worker.stop import Stop


@contextlib.asynccontextmanager
async def serving(job: Job) -> AsyncIterator[Stop]:
    """Run a worker; it has to end in order."""
    stop = Stop()
    service = asyncio.create_task(serve(job, stop, lambda _server: None))
    try:
        yield stop
    finally:
        stop.asked.set()
        await service
