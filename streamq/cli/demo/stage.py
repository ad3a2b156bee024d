"""What the demo plays on, and what must be gone afterwards: a folder, a server in it, some processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Generic, NoReturn, TypeVar

import click

from streamq._redis import keeper
from streamq.app import StreamQ
from streamq.cli.demo.processes import Process

_SERVER_END_SECONDS = 10.0
_STEP_SECONDS = 0.02
_END_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_INTERRUPTED = 130


P = TypeVar("P", bound=Process)
T = TypeVar("T")


@dataclass(frozen=True)
class Stage(Generic[P]):
    """What is set up.

    Attributes:
        app: the caller's side, connected.
        folder: where the server keeps its data.
        crew: the processes, ready.
    """

    app: StreamQ
    folder: Path
    crew: Sequence[P]


@contextmanager
def set_up(start: Callable[[str, str, Path], P], names: Sequence[str]) -> Iterator[Stage[P]]:
    """Start a server and processes; at the end, whatever the reason, nothing of them is left.

    Args:
        start: starts a process, given its name, the URL of the server, and a folder to run in.
        names: of the processes.

    Raises:
        MissingExtra: the package that carries the server is not installed.
        StreamqError: the server or a process does not start.
    """
    with _signals_end_the_block(), tempfile.TemporaryDirectory(prefix="streamq-demo-") as name:
        folder = Path(name)
        url = f"embedded://{folder}"
        app = StreamQ(url)
        crew: list[P] = []
        try:
            app.result("none").status()  # so that the server runs, or says why it cannot, before anything else does
            for one in names:
                crew.append(start(one, url, folder))  # noqa: PERF401 - each is known once it runs
            for process in crew:
                process.wait_until_ready()
            yield Stage(app, folder, crew)
        finally:
            _ignore_signals()
            _take_down(app, crew, folder)


def end(play: Callable[[], bool], what: str) -> NoReturn:
    """Play a demo, and end with its exit code; `what` was started for it."""
    try:
        agreed = play()
    except KeyboardInterrupt:
        click.echo(f"\nstreamq: interrupted; {what}, server and temporary folder are gone", err=True)
        sys.exit(_INTERRUPTED)
    sys.exit(0 if agreed else 1)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on an event loop. A signal cancels it: what is raised in the midst of a loop can break it."""
    numbers = [number for number in _END_SIGNALS if signal.getsignal(number) is _leave]
    struck: list[int] = []

    async def until_struck() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - this one

        def strike(number: int) -> None:
            struck.append(number)
            task.cancel()

        for number in numbers:
            loop.add_signal_handler(number, strike, number)
        return await main

    try:
        return asyncio.run(until_struck())
    except asyncio.CancelledError:
        if struck:
            _leave(struck[0], None)
        raise
    finally:
        for number in numbers:
            signal.signal(number, _leave)


def _take_down(app: StreamQ, crew: Sequence[Process], folder: Path) -> None:
    for process in crew:
        process.ask_to_stop()
    for process in crew:
        process.wait_until_stopped()
    app.close()
    _wait_for_server_end(folder)


def _wait_for_server_end(folder: Path) -> None:
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
def _signals_end_the_block() -> Iterator[None]:
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


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, *_END_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
