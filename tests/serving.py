"""Workers in the process of the test, on its event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from streamq.config import Settings, WorkerSettings
from streamq.worker.child import Job, serve
from streamq.worker.stop import Stop


async def until(what: Callable[[], object]) -> None:
    """Poll `what` until it is true, while the loop goes on."""
    async with asyncio.timeout(10):
        while not what():  # noqa: ASYNC110 - it looks at the server
            await asyncio.sleep(0.005)


def job(url: str, module: Any, name: str = "w-1", **worker: Any) -> Job:
    """Say what a worker of a module of ``tests/apps`` has to serve."""
    settings = WorkerSettings(**{"lease": 2.0, "grace": 5.0, **worker})
    app = f"{module.__name__}:app"
    return Job(Settings(url), settings, name, app, dict(module.app.tasks), lifespan=None, say=lambda **_: None)


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
