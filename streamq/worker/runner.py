"""A process of the pool: runs one task at a time, for a worker that can kill it without harm to any other task.

The main thread runs the tasks, so that the time limit of a sync one can be a signal, which also ends what blocks in C.
The app's lifespan is entered as in a worker; its loop stands still while a sync task runs.
"""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any, NoReturn

from streamq.context import context_of, running
from streamq.errors import TaskTimeout
from streamq.lifecycle import Outcome
from streamq.message import Delivery
from streamq.tasks import Task
from streamq.worker.metrics import peak_memory
from streamq.worker.outcomes import failed, succeeded, timed_out, within
from streamq.worker.wire import LENGTH, Frame, pack, pack_outcome, unpack, unpack_delivery


class Line:
    """The line to the worker."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)

    def say(self, frame: bytes) -> None:
        """Send one frame."""
        self._socket.sendall(frame)

    def frames(self) -> Iterator[Frame]:
        """Read frames until the worker is gone."""
        with self._socket.makefile("rb") as stream:
            while length := stream.read(LENGTH):
                yield unpack(stream.read(int.from_bytes(length, "big")))


class _Lease:
    """The lease of what runs."""

    lost = False


class Runner:
    """Runs what comes over the line.

    Args:
        line: to the worker.
        tasks: what can be run, by name.
        max_result: bytes that an encoded result may have.
    """

    def __init__(self, line: Line, tasks: Mapping[str, Task[..., Any]], max_result: int) -> None:
        self._line = line
        self._tasks = tasks
        self._max_result = max_result
        self._work: queue.SimpleQueue[Delivery | None] = queue.SimpleQueue()
        self._lease = _Lease()

    async def serve(self, lifespan: AbstractAsyncContextManager[Any] | None) -> None:
        """Serve until told to stop."""
        async with lifespan or nullcontext() as state:
            threading.Thread(target=self._listen, name="streamq-line", daemon=True).start()
            self._line.say(pack({"ready": True}))
            while (delivery := await asyncio.to_thread(self._work.get)) is not None:
                self._lease = _Lease()
                outcome = await self._perform(delivery, state)
                self._line.say(pack_outcome(outcome, {"peak": peak_memory()}))

    def _listen(self) -> None:
        for frame in self._line.frames():
            if "run" in frame.header:
                self._work.put(unpack_delivery(frame))
            elif "lost" in frame.header:
                self._lease.lost = True
            else:
                self._work.put(None)
        os._exit(1)  # the worker is gone: what runs here is given to another

    async def _perform(self, delivery: Delivery, state: Any) -> Outcome:
        task = self._tasks[delivery.message.task]
        mark = running.set((delivery, state, self._lease))
        try:
            args, kwargs = task.call_codec.decode(delivery.message.args)
            if task.options.bind:
                args = (context_of(delivery, state, self._lease), *args)
            if task.is_async:
                value = await within(task.options.timeout, task.function(*args, **kwargs))
            else:
                with _alarm(task.options.timeout):
                    value = task.function(*args, **kwargs)
            return succeeded(task, delivery, value, self._max_result)
        except BaseException as error:  # noqa: BLE001 - also SystemExit: a task must not end the process
            return failed(task, delivery, error)
        finally:
            running.reset(mark)


@contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """Raise `TaskTimeout` in the main thread when the time is up."""
    if seconds is None:
        yield
        return

    def strike(_number: int, _frame: FrameType | None) -> NoReturn:
        raise timed_out(seconds)

    signal.signal(signal.SIGALRM, strike)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except TaskTimeout:
        signal.setitimer(signal.ITIMER_REAL, 0)  # it struck while it was being set back
        raise
