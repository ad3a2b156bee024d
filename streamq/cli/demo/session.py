"""Has the workers read the files, and kills one of them half way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

from streamq.app import StreamQ
from streamq.cli.demo.processes import Worker
from streamq.cli.demo.tasks import FileReport, report
from streamq.errors import TaskFailed, UnknownTaskId
from streamq.lifecycle import State
from streamq.results import AsyncResult

# Tasks on their way at a time: enough to keep the workers busy, few enough that a small folder is not done
# before the kill.
_MOST_AT_A_TIME = 128
_SHARE_AT_A_TIME = 8
# What the victim is handed if it was found idle. The other worker, if idle too, may get it instead: but not again,
# for then it is at work.
_MORE = 4
_MORE_TRIES = 5
_LOOK_SECONDS = 1.0
_GIVE_UP_SECONDS = 30.0


class Audience(Protocol):
    """Is told what happens."""

    def on_result(self) -> None:
        """One more task has ended."""

    def on_kill(self, worker: Worker, process: int, held: int) -> None:
        """Both processes of a worker were killed while it held tasks."""

    def on_return(self, report: FileReport, seconds: float) -> None:
        """The first of these tasks was done by another worker, so long after the kill."""


class Session:
    """One run over a list of files.

    Args:
        app: where to enqueue.
        workers: those at work.
        victim: the one of them that is to be killed.
        paths: the files, one task for each.
        audience: is told what happens.

    Attributes:
        reports: what tasks returned.
        failures: the error of each task that failed.
        lost: files whose task has neither result nor error.
        killed_at: when the victim was killed (`time.monotonic`), if it was.
        seconds: from the first enqueue to the last result.
    """

    def __init__(
        self, app: StreamQ, workers: Sequence[Worker], victim: Worker, paths: Sequence[Path], audience: Audience
    ) -> None:
        self._app = app
        self._workers = workers
        self._victim = victim
        self._paths = paths
        self._audience = audience
        self._unsent: Iterator[Path] = iter(paths)
        self._most = min(_MOST_AT_A_TIME, max(2, len(paths) // _SHARE_AT_A_TIME))
        self._sent: dict[asyncio.Task[FileReport], tuple[Path, AsyncResult[FileReport]]] = {}
        self._processes: dict[int, int] = {}
        self._returned = False
        self.reports: dict[Path, FileReport] = {}
        self.failures: dict[Path, str] = {}
        self.lost: list[Path] = []
        self.killed_at: float | None = None
        self.seconds = 0.0

    @property
    def redelivered(self) -> int:
        """How many of the results came from a second hand-over, or a later one."""
        return sum(report.deliveries > 1 for report in self.reports.values())

    async def run(self) -> None:
        """Enqueue all files and wait until every task has ended, or nobody works any more on those that have not.

        Raises:
            StreamqError: a worker that was not to be killed has ended, or the server is away.
        """
        began = last = time.monotonic()
        try:
            await self._send(self._most)
            while self._sent:
                ended, _ = await asyncio.wait(self._sent, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for one in ended:
                    self._take(one)
                if ended:
                    last = time.monotonic()
                if len(self._sent) <= self._most // 2:
                    await self._send(self._most - len(self._sent))
                await self._kill_half_way()
                if not ended:
                    await self._look_after(time.monotonic() - last)
        finally:
            self.seconds = last - began
            for waiting in self._sent:
                waiting.cancel()
            await asyncio.gather(*self._sent, return_exceptions=True)
            await self._app.aclose()

    async def _send(self, count: int) -> None:
        chunk = list(islice(self._unsent, count))
        results = await self._app.aenqueue_many(report.s(os.fsencode(path)) for path in chunk)
        for path, result in zip(chunk, results, strict=True):
            self._sent[asyncio.create_task(result.aget())] = path, result

    def _take(self, ended: asyncio.Task[FileReport]) -> None:
        path, _ = self._sent.pop(ended)
        try:
            returned = ended.result()
        except TaskFailed as error:
            self.failures[path] = f"{error.type_name}: {error.message}"
        except UnknownTaskId:
            self.lost.append(path)
        else:
            self.reports[path] = returned
            self._processes[returned.supervisor] = returned.process
            if returned.deliveries > 1 and self.killed_at is not None and not self._returned:
                self._returned = True
                self._audience.on_return(returned, time.monotonic() - self.killed_at)
        self._audience.on_result()

    async def _kill_half_way(self) -> None:
        process = self._processes.get(self._victim.pid)
        if self.killed_at is not None or process is None or 2 * len(self.reports) < len(self._paths):
            return
        with contextlib.suppress(ProcessLookupError):
            # Stopped first, so that it cannot hand its tasks back when it sees its supervisor die; and so that
            # it still holds what it is found to hold.
            os.kill(process, signal.SIGSTOP)
            held = 0
            try:
                held = await self._count_held()
                for _ in range(_MORE_TRIES):
                    if held:
                        break
                    # The files are so small that it was through with all it had: hand it more.
                    await self._send(_MORE)
                    held = await self._count_held()
            finally:
                if not held:  # a kill now would show nothing
                    os.kill(process, signal.SIGCONT)
            if held:
                self._victim.kill()
                os.kill(process, signal.SIGKILL)
                self.killed_at = time.monotonic()
                self._audience.on_kill(self._victim, process, held)

    async def _count_held(self) -> int:
        """Count the tasks that are in the hands of the victim."""
        records = [await result.arecord() for _, result in self._sent.values()]
        return sum((record.worker or "").startswith(f"{self._victim.name}-") for record in records)

    async def _look_after(self, idle: float) -> None:
        """See that somebody is at work; when nobody has been for long, what is still out is lost."""
        for worker in self._workers:
            worker.check()
        if idle < _GIVE_UP_SECONDS:
            return
        states = [await result.astatus() for _, result in self._sent.values()]
        if State.RUNNING not in states:
            for waiting, (path, _) in list(self._sent.items()):
                waiting.cancel()
                del self._sent[waiting]
                self.lost.append(path)
