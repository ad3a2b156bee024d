"""What the demo plays on, and what must be gone afterwards: a folder, a server in it, two workers."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from streamq._redis import keeper
from streamq.app import StreamQ
from streamq.cli.demo.processes import Process, Worker

_SERVER_END_SECONDS = 10.0
_STEP_SECONDS = 0.02
_END_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Stage:
    """What is set up.

    Attributes:
        app: the caller's side, connected.
        folder: where the server keeps its data.
        workers: two, ready.
    """

    app: StreamQ
    folder: Path
    workers: tuple[Worker, Worker]


@contextmanager
def set_up() -> Iterator[Stage]:
    """Start a server and two workers; at the end, whatever the reason, nothing of them is left.

    Raises:
        MissingExtra: the package that carries the server is not installed.
        StreamqError: the server or a worker does not start.
    """
    with signals_end_the_block(), tempfile.TemporaryDirectory(prefix="streamq-demo-") as name:
        folder = Path(name)
        url = f"embedded://{folder}"
        app = StreamQ(url)
        workers: list[Worker] = []
        try:
            app.result("none").status()  # so that the server runs, or says why it cannot, before anything else does
            for number in (1, 2):
                workers.append(Worker(f"worker-{number}", url, folder))  # noqa: PERF401 - each is known once it runs
            for worker in workers:
                worker.wait_until_ready()
            yield Stage(app, folder, (workers[0], workers[1]))
        finally:
            ignore_signals()
            _take_down(app, workers, folder)


def _take_down(app: StreamQ, workers: list[Worker], folder: Path) -> None:
    stop(workers)
    app.close()
    wait_for_server_end(folder)


def stop(processes: Sequence[Process]) -> None:
    """Stop processes, all at a time."""
    for one in processes:
        one.ask_to_stop()
    for one in processes:
        one.wait_until_stopped()


def wait_for_server_end(folder: Path) -> None:
    """Wait until the server has stopped for want of users, so that it writes nothing into a folder that goes."""
    if not (folder / keeper.KEEPER_LOCK).exists():
        return
    lock = keeper.open_lock(folder / keeper.KEEPER_LOCK)
    try:
        deadline = time.monotonic() + _SERVER_END_SECONDS
        while keeper.is_locked(lock) and time.monotonic() < deadline:
            time.sleep(_STEP_SECONDS)
    finally:
        os.close(lock)


@contextmanager
def signals_end_the_block() -> Iterator[None]:
    """Have SIGTERM and SIGHUP unwind the stack as Ctrl-C does; what the caller ignores stays ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *_END_SIGNALS)}
    for number in _END_SIGNALS:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, _leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def ignore_signals() -> None:
    """Have the end not be interrupted."""
    for number in (signal.SIGINT, *_END_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
