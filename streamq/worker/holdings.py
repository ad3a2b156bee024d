"""What this process holds: the deliveries that are pending under its name and not yet committed or given back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from streamq.broker.turns import Stake
from streamq.context import DONE
from streamq.message import Delivery
from streamq.progress import Progress
from streamq.tasks import Task
from streamq.worker.outbox import Outbox


class Run:
    """One delivery in this process, from its arrival to its commit.

    Attributes:
        delivery: what was delivered.
        task: the function to run; None if this worker does not know it.
        handle: the asyncio task that runs it, if one does.
        ended: it has an outcome, which is on its way.
        lost: the lease has gone to another, or the task was cancelled; the outcome will be refused.
        cancelled: the task was cancelled.
        expires_ms: Redis time from which on it is not to begin any more, ms; 0: it may at any time.
        deadline: when its time limit is over, by the event loop's clock; 0 without a limit.
        stakes: what it needs, or has, of limits of the fleet; None: it has not asked.
        outbox: where it puts what it emits; None: it has emitted nothing.
        additions: what it adds to its group; None: nothing.
    """

    __slots__ = (
        *("additions", "cancelled", "deadline", "delivery", "ended", "expires_ms", "handle", "lost", "outbox"),
        *("_open_outbox", "stakes", "task"),
    )

    def __init__(
        self, delivery: Delivery, task: Task[..., Any] | None, open_outbox: Callable[[Run], None] | None = None
    ) -> None:
        self.delivery = delivery
        self.task = task
        self.handle: asyncio.Task[None] | None = None
        self.ended = False
        self.lost = self.cancelled = False
        self.expires_ms = 0.0
        self.deadline = 0.0
        self.stakes: tuple[Stake, ...] | None = None
        self.outbox: Outbox | None = None
        self.additions: list[Any] | None = None
        self._open_outbox = open_outbox

    def _opened(self) -> Outbox | None:
        if self.outbox is None and self._open_outbox is not None and not self.ended:
            self._open_outbox(self)
        return self.outbox

    def emit(self, value: Any) -> Awaitable[None]:
        """Emit a chunk, as `Context.emit`."""
        outbox = self._opened()
        return DONE if outbox is None else outbox.emit(value)

    def pass_on(self, chunk: bytes) -> Awaitable[None]:
        """Emit a chunk that a process of the pool has encoded."""
        outbox = self._opened()
        return DONE if outbox is None else outbox.add(chunk)

    def progress(self, said: Progress) -> None:
        """Say how far it is, as `Context.progress`."""
        outbox = self._opened()
        if outbox is not None:
            outbox.say(said)


class Holdings:
    """All runs of this process. The lease thread reads it; only the event loop writes.

    Attributes:
        reading_since: when the read began that is under way, whose messages are not here yet; infinite: there is none.
        on_drop: is called for a run for whose end others may wait, when it is held no longer.
    """

    def __init__(self) -> None:
        self.reading_since = float("inf")
        self._runs: dict[tuple[str, bytes], Run] = {}
        self._progress: asyncio.Future[None] | None = None
        self.on_drop: Callable[[Run], None] | None = None

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, place: tuple[str, bytes]) -> bool:
        return place in self._runs

    def add(self, run: Run) -> None:
        """Hold a run: its lease is renewed from now on."""
        self._runs[run.delivery.stream, run.delivery.entry] = run

    def drop(self, run: Run) -> None:
        """Hold a run no longer: it is committed, refused or given back."""
        self._runs.pop((run.delivery.stream, run.delivery.entry), None)
        if (run.stakes or run.delivery.message.options or run.lost) and self.on_drop is not None:
            self.on_drop(run)
        self.nudge()

    def progress(self) -> asyncio.Future[None]:
        """Give what is done when, from now on, a run has ended or is held no longer."""
        if self._progress is None:
            self._progress = asyncio.get_running_loop().create_future()
        return asyncio.shield(self._progress)

    def nudge(self) -> None:
        """Wake those who wait for progress."""
        if self._progress is not None:
            self._progress.set_result(None)
            self._progress = None

    def get(self, stream: str, entry: bytes) -> Run | None:
        """Return the run of an entry, if it is held."""
        return self._runs.get((stream, entry))

    def all(self) -> list[Run]:
        """Return all runs that are held."""
        return list(self._runs.values())

    def entries(self) -> dict[str, list[bytes]]:
        """Return the held entries by stream. The copy is one step for the interpreter, so a thread may ask."""
        by_stream: dict[str, list[bytes]] = {}
        for stream, entry in self._runs.copy():
            by_stream.setdefault(stream, []).append(entry)
        return by_stream
