"""The pool of processes, for tasks that may have to be killed: one line for each, so that a death costs one task.

(A pool of the standard library loses all futures when one of its processes is killed.) Processes are started when they
are needed, and end when they have been idle for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from streamq.config import WorkerSettings
from streamq.errors import StreamqError
from streamq.lifecycle import Abandoned, Died, Outcome
from streamq.progress import Progress
from streamq.worker import clock
from streamq.worker.holdings import Run
from streamq.worker.outcomes import failed, timed_out
from streamq.worker.wire import LENGTH, Frame, pack, pack_delivery, unpack, unpack_outcome

_log = logging.getLogger("streamq.worker")

_IDLE_SECONDS = 30.0
_STARTS_MOST = os.cpu_count() or 1  # at a time; what waits for a start may find an idle one instead
_START_SECONDS = 60.0
_START_AGAIN_SECONDS = 1.0
_END_SECONDS = 2.0
_NOTHING_SAID = (OSError, EOFError, ValueError, LookupError)  # the line has ended, or what came was no frame


@dataclass(frozen=True)
class PoolSettings:
    """How the processes of a pool are started, and when they are replaced.

    Attributes:
        spec: what ``streamq.cli.runner`` is told.
        max_tasks: so many tasks one may run; None: any number.
        max_memory: so many MiB one may have had at its peak; None: any number.
    """

    spec: dict[str, Any]
    max_tasks: int | None = None
    max_memory: float | None = None

    @classmethod
    def of(cls, worker: WorkerSettings, app: str, consumer: str) -> PoolSettings:
        """Make those of a worker's child, given where its app is and its name."""
        spec = {
            "app": app,
            "consumer": f"{consumer}-pool",
            "log_level": worker.log_level,
            "log_format": worker.log_format,
            "ahead_ms": clock.offset_ms(),
        }
        return cls(spec, worker.max_tasks_per_child, worker.max_memory_per_child)


class _NotStarted(StreamqError):
    """A process could not begin."""


class _Process:
    """One process and the line to it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as stack:
            stack.callback(self._socket.close)
            self.process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "streamq.cli.runner", json.dumps({**spec, "line": theirs.fileno()})],
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # signals of the terminal are for the worker
            )
            stack.pop_all()
        self._writer: asyncio.StreamWriter | None = None
        self.tasks = 0
        self.peak = 0.0
        self.idle_timer: asyncio.TimerHandle | None = None

    async def begin(self) -> None:
        """Wait until it can run tasks."""
        try:
            self._reader, self._writer = await asyncio.open_connection(sock=self._socket)
            async with asyncio.timeout(_START_SECONDS):
                said = await self.read()
        except _NOTHING_SAID as error:
            raise _NotStarted(f"it ended, or said nothing: {type(error).__name__}") from error
        if "ready" not in said.header:
            raise _NotStarted(said.header.get("fatal", "it said something strange"))

    async def read(self) -> Frame:
        """Read one frame."""
        length = await self._reader.readexactly(LENGTH)
        return unpack(await self._reader.readexactly(int.from_bytes(length, "big")))

    def say(self, frame: bytes) -> None:
        """Send one frame, if it has begun; that it is gone shows at the next read."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame)

    async def run(self, run: Run) -> Outcome:
        """Have it run a task."""
        self.say(pack_delivery(run.delivery))
        while "outcome" not in (said := await self.read()).header:
            if "chunk" in said.header:
                await run.pass_on(said.body)  # while there is no room nothing is read, and so the process waits too
            else:
                run.progress(Progress(*said.header["progress"]))
        self.tasks += 1
        self.peak = said.header["peak"]
        return unpack_outcome(said)

    async def end(self) -> str:
        """Have it end in order, if it has not been killed, and say how it did."""
        if self.idle_timer is not None:
            self.idle_timer.cancel()
        self.say(pack({"stop": True}))
        try:
            code = await asyncio.to_thread(self.process.wait, _END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = await asyncio.to_thread(self.process.wait)
        (self._writer or self._socket).close()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class ProcessPool:
    """Runs tasks in processes; how many at a time is the caller's business."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._idle: list[_Process] = []
        self._busy: dict[Run, _Process] = {}
        self._starting = asyncio.Semaphore(_STARTS_MOST)
        self._ending: set[asyncio.Task[str]] = set()

    @property
    def pids(self) -> list[int]:
        """The process ids of all processes of the pool."""
        return [one.process.pid for one in (*self._idle, *self._busy.values())]

    async def run(self, run: Run) -> Outcome:
        """Run a task to its end, or to that of its process; if cancelled, kill the process."""
        task = run.task
        assert task is not None  # noqa: S101 - the executor saw to it
        try:
            process = await self._take()
        except _NotStarted as error:
            _log.error("a process for %s could not start: %s", task.name, error)
            await asyncio.sleep(_START_AGAIN_SECONDS)
            return Abandoned()
        self._busy[run] = process
        whole = False
        try:
            async with asyncio.timeout(task.options.hard_timeout) as limit:
                outcome = await process.run(run)
            whole = True
        except _NOTHING_SAID:
            if limit.expired():
                return failed(task, run.delivery, timed_out(task.options.hard_timeout or 0, hard=True))
            how = await process.end()
            _log.error("the process that ran task %s (%s) died: %s", run.delivery.message.id, task.name, how)
            return Died(how)
        finally:
            del self._busy[run]
            if whole:
                self._put_back(process)
            else:
                self._dismiss(process, kill=True)
        return outcome

    async def _take(self) -> _Process:
        if (idle := self._take_idle()) is not None:
            return idle
        async with self._starting:
            return self._take_idle() or await self._start()

    def _take_idle(self) -> _Process | None:
        while self._idle:
            process = self._idle.pop()
            if process.process.poll() is None:
                if process.idle_timer is not None:
                    process.idle_timer.cancel()
                return process
            self._dismiss(process, kill=True)
        return None

    async def _start(self) -> _Process:
        try:
            process = _Process(self._settings.spec)
        except OSError as error:  # for one, too many open files
            raise _NotStarted(str(error)) from error
        try:
            await process.begin()
        except BaseException:
            self._dismiss(process, kill=True)
            raise
        return process

    def _put_back(self, process: _Process) -> None:
        most_tasks, most_memory = self._settings.max_tasks, self._settings.max_memory
        worn = most_tasks is not None and process.tasks >= most_tasks
        if worn or (most_memory is not None and process.peak > most_memory):
            self._dismiss(process, kill=False)
            return
        self._idle.append(process)
        process.idle_timer = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._leave, process)

    def _leave(self, process: _Process) -> None:
        self._idle.remove(process)
        self._dismiss(process, kill=False)

    def _dismiss(self, process: _Process, *, kill: bool) -> None:
        if kill:
            process.process.kill()  # at once, and not when its turn comes: it may do harm
        ending = asyncio.create_task(process.end())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    def lost(self, run: Run) -> None:
        """Tell the process that runs it that the lease is gone."""
        if run in self._busy:
            self._busy[run].say(pack({"lost": True}))

    def show_stacks(self) -> None:
        """Have all processes write their stacks to standard error; from a signal handler."""
        for process in (*self._idle, *self._busy.values()):
            process.process.send_signal(signal.SIGQUIT)

    async def close(self) -> None:
        """End all processes, those that are idle in order."""
        for process in self._busy.values():
            self._dismiss(process, kill=True)
        for process in self._idle:
            self._dismiss(process, kill=False)
        self._idle.clear()
        if self._ending:
            await asyncio.wait(self._ending)
