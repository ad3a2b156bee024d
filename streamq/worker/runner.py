"""A process of the pool: runs one task at a time, for a worker that can kill it without harm to any other task.

The main thread runs the tasks, so that the time limit of a sync one can be a signal, which also ends what blocks in C.
The app's lifespan is entered as in a worker; its loop stands still while a sync task runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import queue
import signal
import socket
import threading
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any, NoReturn

from streamq.context import DONE, current, running
from streamq.errors import TaskTimeout
from streamq.lifecycle import Outcome
from streamq.message import Delivery
from streamq.progress import Progress
from streamq.tasks import Task, find_task
from streamq.worker.metrics import peak_memory
from streamq.worker.outbox import Bounds, Outbox
from streamq.worker.outcomes import failed, succeeded, timed_out, unroutable, within
from streamq.worker.wire import LENGTH, Frame, pack, pack_outcome, unpack, unpack_delivery


class Line:
    """The line to the worker."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)
        # The end of the line tells the worker that this process is dead: what a task forks must not hold it.
        os.register_at_fork(after_in_child=self._hang_up)

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._socket.fileno())

    def say(self, frame: bytes) -> None:
        """Send one frame; if the worker is gone, end at once: what ran here is given to another."""
        try:
            self._socket.sendall(frame)
        except OSError:
            os._exit(1)

    def frames(self) -> Iterator[Frame]:
        """Read frames until the worker is gone."""
        with self._socket.makefile("rb") as stream:
            while len(start := stream.read(LENGTH)) == LENGTH:
                length = int.from_bytes(start, "big")
                content = stream.read(length)
                if len(content) == length:
                    yield unpack(content)


class _Teller:
    """Tells the worker what runs emit, from a thread of its own: so a signal can end a task that waits for room."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._ready: queue.SimpleQueue[Outbox] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def tell(self, outbox: Outbox) -> None:
        """Tell what is in an outbox."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="streamq-teller", daemon=True)
            self._thread.start()
        self._ready.put(outbox)

    def _serve(self) -> None:
        while True:
            outbox, has_more = self._ready.get(), True
            while has_more:
                _, chunks, said = outbox.take()
                for chunk in chunks:
                    self._line.say(pack({"chunk": True}, chunk))
                if said is not None:
                    self._line.say(pack({"progress": said}))
                has_more = outbox.written(len(chunks))


class _Lease:
    """The lease of what runs."""

    cancelled = False  # then this process is killed

    def __init__(self, task: Task[..., Any] | None = None) -> None:
        self.lost = False
        self.task = task
        self.outbox: Outbox | None = None
        self.additions: list[Any] | None = None

    def emit(self, value: Any) -> Awaitable[None]:
        """Emit a chunk, as `Context.emit`."""
        return DONE if self.outbox is None else self.outbox.emit(value)

    def progress(self, said: Progress) -> None:
        """Say how far the run is, as `Context.progress`."""
        if self.outbox is not None:
            self.outbox.say(said)

    def flush(self) -> None:
        """Wait until all that the run has said is told."""
        told = threading.Event()
        if self.outbox is not None and self.outbox.end(told.set):
            told.wait()


class Runner:
    """Runs what comes over the line.

    Args:
        line: to the worker.
        tasks: what can be run, by name.
        bounds: of results, and of what is emitted.
        loop: for what is async; it does not run while a sync task does, whose code may want to run one of its own.
    """

    def __init__(
        self, line: Line, tasks: Mapping[str, Task[..., Any]], bounds: Bounds, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._line = line
        self._tasks = tasks
        self._bounds = bounds
        self._teller = _Teller(line)
        self._loop = loop
        self._pid = os.getpid()
        self._work: asyncio.Queue[tuple[Delivery, _Lease] | None] = asyncio.Queue()
        self._entered: asyncio.Future[Any] = loop.create_future()
        self._stopping = asyncio.Event()

    def serve(self, lifespan: AbstractAsyncContextManager[Any] | None) -> None:
        """Serve until told to stop."""
        living = self._loop.create_task(self._live(lifespan or nullcontext()))
        either = asyncio.wait([living, self._entered], return_when=asyncio.FIRST_COMPLETED)
        self._loop.run_until_complete(either)
        if living.done():
            living.result()
        threading.Thread(target=self._listen, name="streamq-line", daemon=True).start()
        self._line.say(pack({"ready": True}))
        while (work := self._loop.run_until_complete(self._work.get())) is not None:
            outcome = self._perform(*work)
            work[1].flush()
            self._line.say(pack_outcome(outcome, {"peak": peak_memory()}))
        self._stopping.set()
        with contextlib.suppress(asyncio.CancelledError):  # a task has cancelled whatever it could find
            self._loop.run_until_complete(living)

    async def _live(self, lifespan: AbstractAsyncContextManager[Any]) -> None:
        """Enter and leave the lifespan, in one and the same asyncio task, as task groups in it need it."""
        async with lifespan as state:
            self._entered.set_result(state)
            await self._stopping.wait()

    def _listen(self) -> None:
        lease = _Lease()
        try:
            for frame in self._line.frames():
                if "run" in frame.header:
                    delivery = unpack_delivery(frame)
                    lease = self._lease(find_task(self._tasks, delivery.message.task))
                    self._bring((delivery, lease))
                elif "lost" in frame.header:
                    lease.lost = True
                else:
                    self._bring(None)
        finally:
            os._exit(1)  # the worker is gone: what runs here is given to another

    def _lease(self, task: Task[..., Any] | None) -> _Lease:
        lease = _Lease(task)
        outbox = lease.outbox = Outbox(self._bounds, lambda: self._teller.tell(outbox))
        return lease

    def _bring(self, work: tuple[Delivery, _Lease] | None) -> None:
        self._loop.call_soon_threadsafe(self._work.put_nowait, work)

    def _perform(self, delivery: Delivery, lease: _Lease) -> Outcome:
        task = find_task(self._tasks, delivery.message.task)
        if task is None:  # the code is not that with which the worker began
            return unroutable(delivery)
        context = contextvars.Context()  # of its own: what one task sets in it, the next does not see
        context.run(running.set, (delivery, self._entered.result(), lease))
        if task.is_async:
            return self._loop.run_until_complete(self._loop.create_task(self._await(task, delivery), context=context))
        return context.run(self._call, task, delivery)

    async def _await(self, task: Task[..., Any], delivery: Delivery) -> Outcome:
        try:
            args, kwargs = _arguments(task, delivery)
            with self._no_fork():
                value = await within(task.options.timeout, task.run(*args, **kwargs))
            return succeeded(task, delivery, value, self._bounds.chunk)
        except BaseException as error:  # noqa: BLE001 - also SystemExit: a task must not end the process
            return failed(task, delivery, error)

    def _call(self, task: Task[..., Any], delivery: Delivery) -> Outcome:
        try:
            args, kwargs = _arguments(task, delivery)
            with self._no_fork(), _alarm(task.options.timeout):
                value = task.run(*args, **kwargs)
            return succeeded(task, delivery, value, self._bounds.chunk)
        except BaseException as error:  # noqa: BLE001 - see above
            return failed(task, delivery, error)

    @contextmanager
    def _no_fork(self) -> Iterator[None]:
        """Have a process that the task has forked end here, should it come back: it has no say in the outcome."""
        try:
            yield
        finally:
            if os.getpid() != self._pid:
                os._exit(1)


def _arguments(task: Task[..., Any], delivery: Delivery) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args, kwargs = task.call_codec.decode(delivery.message.args)
    return ((current(), *args) if task.options.bind else args), kwargs


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
