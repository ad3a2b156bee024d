"""Workers in the process of the test, on its event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from streamq._redis.connections import SyncConnection
from streamq.config import Settings, WorkerSettings
from streamq.results import AsyncResult
from streamq.worker.child import Job, serve
from streamq.worker.stop import Stop


async def until(what: Callable[[], object]) -> None:
    """Poll `what` until it is true, while the loop goes on."""
    async with asyncio.timeout(10):
        while not what():  # noqa: ASYNC110 - it looks at the server
            await asyncio.sleep(0.005)


def job(url: str, module: Any, name: str = "w-1", **worker: Any) -> Job:
    """Say what a worker of a module of ``tests/apps`` has to serve."""
    return job_of(Settings(url), f"{module.__name__}:app", module.app.tasks, name, **{"lease": 2.0, **worker})


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


async def ended(results: Iterable[AsyncResult[Any]]) -> None:
    """Wait until all these tasks have ended."""
    for result in results:
        await until(lambda result=result: result.status().ended)


@contextlib.asynccontextmanager
async def workers(module: ModuleType, number: int = 1, **options: Any) -> AsyncIterator[None]:
    """Run some workers of the app of limited tasks; at the end nobody has a place or waits."""
    app = module.app
    async with asyncio.timeout(15), contextlib.AsyncExitStack() as stack:
        for one in range(number):
            job = job_of(app.settings, "tests.apps.limited:app", app.tasks, f"w-{one}", **options)
            await stack.enter_async_context(serving(job))
        yield
        module.may_end.set()
        await until(lambda: not _turns_left(app.broker.sync))
        await app.aclose()


def _turns_left(connection: SyncConnection) -> list[bytes]:
    """Find what is left of limits and lines; rates end by themselves."""
    run = connection.client.execute_command
    return [key for end in ("rooms", "places", "room", "rule") for key in run("KEYS", f"sq:*:{end}")]
