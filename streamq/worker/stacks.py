"""Shows where a process is: what its event loop does at the moment, and where each of its tasks waits."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
import threading
import traceback
from typing import Any

from streamq.context import running
from streamq.message import Message
from streamq.worker.holdings import Holdings, Run

_STANDARD_ERROR = 2
_FRAMES = 20  # the innermost; the outer ones are the event loop's


class Stacks:
    """The stacks of one process. Any thread may ask, and a signal handler.

    To be made on the event loop.

    Args:
        holdings: what says which asyncio task runs which task.
    """

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def of_loop(self) -> tuple[str, str]:
        """Return which task the event loop runs at the moment, in words, and the stack of its thread."""
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - there is no other way
        stack = "".join(traceback.format_stack(frame, limit=_FRAMES)) if frame is not None else ""
        return self._name(asyncio.current_task(self._loop), self._runs()), stack

    def print_tasks(self) -> None:
        """Write the stack of each asyncio task to standard error, and name what runs in threads.

        Not by way of the log: its lock may be held by what was interrupted.
        """
        out = io.StringIO(f"\nasyncio tasks of process {os.getpid()}:\n")
        out.seek(0, io.SEEK_END)
        runs = self._runs()
        for task in self._tasks():
            out.write(f"\n{self._name(task, runs)}:\n" + "".join(_stack_of(task)))
        for run in self._holdings.all():
            if run.handle is None and not run.ended:
                message = run.delivery.message
                print(f"\ntask {message.task} {message.id}: in a thread, cancelled, or not begun", file=out)
        os.write(_STANDARD_ERROR, out.getvalue().encode(errors="backslashreplace"))

    def _tasks(self) -> set[asyncio.Task[Any]]:
        with contextlib.suppress(RuntimeError):  # the loop makes tasks faster than we can look
            return asyncio.all_tasks(self._loop)
        return set()

    def _runs(self) -> dict[Any, Run]:
        return {run.handle: run for run in self._holdings.all() if run.handle is not None}

    def _name(self, task: asyncio.Task[Any] | None, runs: dict[Any, Run]) -> str:
        if task is None:
            return "a callback"
        message = runs[task].delivery.message if task in runs else _inherited(task)
        return f"task {message.task} {message.id}" if message else f"the asyncio task {task.get_name()}"


def _stack_of(task: asyncio.Task[Any]) -> list[str]:
    """Format where a task waits; of the one that runs there is only the outermost frame, the rest is its thread's.

    `asyncio.Task.print_stack` shows the outermost frame of all.
    """
    frames = []
    inner: Any = task.get_coro()
    while inner is not None:
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(inner, f"{kind}_frame")), None)
        frame = kind and getattr(inner, f"{kind}_frame")
        if not frame:
            break
        frames.append((frame, frame.f_lineno))
        inner = getattr(inner, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    return traceback.StackSummary.extract(iter(frames), limit=-_FRAMES).format()


def _inherited(task: asyncio.Task[Any]) -> Message | None:
    """Find the task within which an asyncio task was made. Python 3.11 does not tell."""
    context_of = getattr(task, "get_context", None)
    found = context_of().get(running) if context_of else None
    return found[0].message if found else None
