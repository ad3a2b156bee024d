"""Workers in the process of the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from streamq.config import Settings, WorkerSettings
from streamq.worker.child import Job, serve
from streamq.worker.stop import Stop


async def until(what: Callable[[], object]) -> None:
    while not what():  # noqa: ASYNC110 - it looks at the server
        await asyncio.sleep(0.005)


def job_of(settings: Settings, app: str, tasks: Mapping[str, Any], name: str, **options: Any) -> Job:
    """Make the job of one worker."""
    worker = WorkerSettings(**{"grace": 5.0, **options})
    return Job(settings, worker, name, app, dict(tasks), lifespan=None, say=lambda **_: None)


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
