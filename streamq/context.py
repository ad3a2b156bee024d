"""What a running task can know about itself."""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NoReturn, Protocol

from streamq.checks import is_number
from streamq.errors import ConfigError, NoCurrentTask, RetryRequested, TaskRejected, TaskReplaced
from streamq.message import Delivery
from streamq.nodes import FlowPart, node_ids, split_id
from streamq.progress import Progress, check_progress
from streamq.sending import part_of, read_steering


class Weighed(Protocol):
    """What knows how to say what a run has weighed."""

    def settle_weight(self, delivery: Delivery, units: float, limit: str | None) -> bool: ...  # noqa: D102

    async def asettle_weight(self, delivery: Delivery, units: float, limit: str | None) -> bool: ...  # noqa: D102


class Lease(Protocol):
    """What is known of the lease of a run while it goes on."""

    lost: bool
    cancelled: bool
    additions: list[Any] | None

    @property
    def task(self) -> Weighed | None: ...  # noqa: D102

    def emit(self, value: Any) -> Awaitable[None]: ...  # noqa: D102

    def progress(self, said: Progress) -> None: ...  # noqa: D102


class _Done:
    """What has been done already, to be awaited all the same."""

    def __await__(self) -> Generator[Any, Any, None]:
        return
        yield  # a generator, which ends at once


DONE: Awaitable[None] = _Done()

_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Context:
    """The run that is going on.

    Attributes:
        id: the task's id.
        name: the task's registered name.
        queue: the queue it came from.
        attempt: which run that counts this is, from 1; runs whose worker died do not count.
        deliveries: how often it was handed to a worker, this time counted; 0 in a plain call.
        enqueued_at: when it was first enqueued, by the server's clock.
        state: what the app's ``lifespan`` yielded in this worker process; None without one.
        fence: grows with each hand-over of this task. A store of your own that refuses a write whose fence is smaller
            than one it has seen is safe from a worker that lost its lease and does not know it yet.
        deaths: how many workers died under this task.
        scheduled_for: the instant for which a schedule has enqueued it; None if it was none.
        headers: what the caller has said with ``headers=``; they cannot be changed.
    """

    id: str
    name: str
    queue: str
    attempt: int
    deliveries: int
    enqueued_at: datetime
    state: Any = None
    fence: int = 0
    deaths: int = 0
    scheduled_for: datetime | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: _NONE, hash=False)
    _lease: Lease | None = field(default=None, repr=False, compare=False)
    _delivery: Delivery | None = field(default=None, repr=False, compare=False)

    @property
    def idempotency_key(self) -> str:
        """The same for all attempts and deliveries of this task: for calls of services that do a thing once a key."""
        return f"{self.queue}:{self.id}"

    @property
    def lease_lost(self) -> bool:
        """The task has gone to another worker: whatever this run comes to will be refused, so it may as well end."""
        return self._lease is not None and self._lease.lost

    @property
    def cancelled(self) -> bool:
        """The task was cancelled: whatever this run comes to will be refused, so it may as well end.

        A run is also told by `asyncio.CancelledError`; this is for code in a thread that catches that, or cannot be
        interrupted at any place: it can look here where it may stop.
        """
        return self._lease is not None and self._lease.cancelled

    def settle(self, units: float, limit: str | None = None) -> bool:
        """Say how many units of a limit's rate this run really took, in place of the `weight` it began with.

        Said again, it is the last that counts. In a plain call, which no limit holds up, nothing happens.

        Args:
            units: 0 or more.
            limit: the limit's name; None: the one limit of the task that has a weight.

        Returns:
            Whether that counts; not if the task has gone to another worker.

        Raises:
            ConfigError: the task has no such limit, or units are no number.
            BrokerUnavailable: Redis did not answer; saying it again is safe.
        """
        task = self._lease.task if self._lease is not None else None
        return task is not None and self._delivery is not None and task.settle_weight(self._delivery, units, limit)

    async def asettle(self, units: float, limit: str | None = None) -> bool:
        """Say how many units of a limit's rate this run really took, as `settle` does."""
        task = self._lease.task if self._lease is not None else None
        if task is None or self._delivery is None:
            return False
        return await task.asettle_weight(self._delivery, units, limit)

    def emit(self, value: Any) -> Awaitable[None]:
        """Emit one chunk, for those who read ``result.stream()``; it is encoded at once, and on its way.

        In an async task it is to be awaited: that takes no time while Redis keeps up, and else as long as Redis needs
        to have room again. In a thread that is done here, and ``context.emit(value)`` alone is enough. The outcome of
        the run is committed when all its chunks are written. A run that has lost its task emits in vain. In a plain
        call nothing happens.

        Args:
            value: what can be a result.

        Raises:
            ResultEncodeError: it does not fit into JSON.
            ResultTooLarge: it has more than ``max_result`` bytes, or all of this run has more than ``max_stream``.
            BrokerError: Redis refuses what was emitted before, for good.
        """
        return DONE if self._lease is None else self._lease.emit(value)

    def progress(self, fraction: float, text: str = "") -> None:
        """Say how far this run is; the last that is said counts. It never waits, and may be lost while Redis is away.

        Args:
            fraction: 0 to 1.
            text: for people; what is over 1,000 characters is cut off.

        Raises:
            ConfigError: the fraction is no number from 0 to 1.
        """
        said = check_progress(fraction, text)
        if self._lease is not None:
            self._lease.progress(said)

    def retry(self, countdown: float | None = None, reason: str | None = None) -> NoReturn:
        """End this run, and have the task run again later. It counts as an attempt.

        Without a retry policy of the task's, the one that ``Retry()`` makes says when to give up.

        Args:
            countdown: seconds to wait; None: as long as the policy says.
            reason: for the record; without it, the error that is being handled is told.

        Raises:
            RetryRequested: always; let it pass.
            ConfigError: the countdown cannot be used.
        """
        if countdown is not None and not (is_number(countdown) and 0 <= countdown < float("inf")):
            raise ConfigError(f"countdown must be 0 or more seconds, not {countdown!r}")
        if reason is None:
            raise RetryRequested(countdown)
        raise RetryRequested(countdown, reason)

    def replace(self, step: Any) -> TaskReplaced:
        """Have something else run in place of this task: ``raise context.replace(add.s(1, 2) | mul.s(3))``.

        When it has ended, so has this task, with its value or its error, and whatever waits for it goes on. To return
        the signature does the same. Priority, expiry and headers hold for it too, unless it has its own.

        Args:
            step: a signature, chain, group or graph.

        Returns:
            What is to be raised.
        """
        return TaskReplaced(step)

    def add_to(self, *steps: Any) -> None:
        """Add to the group that this task is a member of, as in ``context.add_to(group(...))``.

        Whatever waits for the group waits for what is added too.

        They begin when this run has succeeded; if it fails, or is repeated, they never were. Their values come after
        the one of this task.

        Args:
            steps: signatures, chains, graphs; of a group each member by itself.

        Raises:
            ConfigError: this task is not a member of a group.
        """
        part = None if self._delivery is None else part_of(self._delivery.message)
        if self._lease is None or part is None or part.group is None:
            raise ConfigError(f"task {self.name} is not a member of a group: there is nothing to add to")
        self._lease.additions = [*(self._lease.additions or ()), *steps]

    @property
    def flow_id(self) -> str | None:
        """The id of the flow that this task is a part of; None: it is in none."""
        return None if self._part is None else split_id(self.id)[0]

    @property
    def root_id(self) -> str | None:
        """The id of the outermost flow; another than `flow_id` if a task has been replaced by a flow."""
        part = self._part
        return None if part is None else part.root or self.flow_id

    @property
    def parent_ids(self) -> tuple[str, ...]:
        """The ids of the tasks that come right before this one; in a flow that replaces a task, at first that one."""
        part = self._part
        if part is None:
            return ()
        flow_id, _ = split_id(self.id)
        return node_ids(flow_id, part.parents) or (() if part.root is None else (flow_id,))

    @property
    def child_ids(self) -> tuple[str, ...]:
        """The ids of the tasks that may come right after this one, and wait for it."""
        return () if self._part is None else node_ids(split_id(self.id)[0], self._part.children)

    @property
    def _part(self) -> FlowPart | None:
        return None if self._delivery is None else part_of(self._delivery.message)

    def reject(self, reason: str) -> NoReturn:
        """End this run, and have the message moved to the dead letters: no further attempt would help.

        Raises:
            TaskRejected: always; let it pass.
        """
        raise TaskRejected(reason)


# The delivery, and not the context, because most tasks never ask.
running: ContextVar[tuple[Delivery, Any, Lease | None]] = ContextVar("streamq_running")


def context_of(delivery: Delivery, state: Any, lease: Lease | None = None) -> Context:
    """Make the context of a delivery's run."""
    message = delivery.message
    said = read_steering(message.options) if message.options else None
    return Context(
        id=message.id,
        name=message.task,
        queue=message.queue,
        attempt=delivery.attempt,
        deliveries=delivery.deliveries,
        enqueued_at=datetime.fromtimestamp(delivery.enqueued_ms / 1000, UTC),
        state=state,
        fence=max(delivery.fence, 0),  # a plain call is no delivery
        deaths=delivery.deaths,
        scheduled_for=None if said is None or said.scheduled_ms is None else _moment(said.scheduled_ms),
        headers=_NONE if said is None or not said.headers else MappingProxyType(dict(said.headers)),
        _lease=lease,
        _delivery=delivery,
    )


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def current() -> Context:
    """Return the context of the task that runs here.

    Raises:
        NoCurrentTask: none does.
    """
    try:
        return context_of(*running.get())
    except LookupError:
        raise NoCurrentTask("streamq.current() was called outside a running task") from None
