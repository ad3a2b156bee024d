"""What a run leaves behind."""

from __future__ import annotations

import asyncio
import gc

from streamq import StreamQ
from streamq.config import WorkerSettings
from streamq.message import Delivery, Message
from streamq.worker.executor import Executor
from streamq.worker.holdings import Holdings
from streamq.worker.processes import PoolSettings, ProcessPool


async def test_runs_leave_no_cycles(app: StreamQ):
    """Else the garbage collector, which is slow, has to find each of them: that took a fifth of the worker's time."""

    @app.task
    async def noop() -> None: ...

    holdings = Holdings()
    executor = Executor(
        app.tasks,
        None,
        holdings,
        lambda run, _outcome: holdings.drop(run),
        processes=ProcessPool(PoolSettings({})),
        settings=app.settings,
        worker=WorkerSettings(),
        say=lambda **_: None,
    )

    async def run(count: int) -> None:
        messages = (Message(str(n), noop.name, "q", b"[]") for n in range(count))
        executor.begin(executor.hold(Delivery(one, "s", b"1-%b" % one.id.encode(), 0, 1) for one in messages))
        async with asyncio.timeout(10):
            while len(holdings):
                await holdings.progress()

    await run(10)
    gc.collect()
    gc.disable()
    try:
        await run(500)
        assert gc.collect() < 500
    finally:
        gc.enable()
        executor.close()
