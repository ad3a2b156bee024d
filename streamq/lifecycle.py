"""The states of a task, the outcomes of a run, and what follows from an outcome. Values and one pure function."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from streamq.message import Delivery
from streamq.nodes import Drawing


class State(StrEnum):
    """Where a task is in its life."""

    UNKNOWN = "unknown"
    """No record: never enqueued, expired, or forgotten."""
    DELAYED = "delayed"
    """Waiting for its time."""
    HELD = "held"
    """Waiting for its turn; then it is queued."""
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DEAD = "dead"
    """Its message lies in the dead letters; the error says why."""
    CANCELLED = "cancelled"
    """Somebody did not want it any more."""
    EXPIRED = "expired"
    """Its time was over before it began."""
    WAITING = "waiting"
    """What comes before it in its flow has not ended."""
    SKIPPED = "skipped"
    """A callback in a flow that was not needed."""

    @property
    def ended(self) -> bool:
        """Nothing more will happen to the task."""
        return self in _ENDED


_ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.DEAD, State.CANCELLED, State.EXPIRED, State.SKIPPED})


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The function returned; `result` is its value as JSON."""

    result: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """The function, or what stands around it, raised, and that is the end; `error` is the exception's stored form."""

    error: bytes


@dataclass(frozen=True, slots=True)
class FailedForNow:
    """The function raised, and is to be run again after some seconds."""

    error: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class Expired:
    """It was too late to begin; `error` says so."""

    error: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """No further attempt is to be made, but the message is to be kept for a human; `reason` says why."""

    error: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Unroutable:
    """This worker cannot run the message, another may; `reason` and `error` say why."""

    error: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The run was cut short by the end of its worker; it has no outcome."""


@dataclass(frozen=True, slots=True)
class Died:
    """The process that ran it died; `how` is such as ``signal SIGKILL``."""

    how: str


@dataclass(frozen=True, slots=True)
class Became:
    """The function gave a graph to be run in its place; or one to be added to its group, and its own result as JSON."""

    drawing: Drawing
    own: bytes | None = None


Outcome = Succeeded | Became | Failed | FailedForNow | Expired | Rejected | Unroutable | Abandoned | Died


def is_suspect(deaths: int, max_deaths: int) -> bool:
    """Tell whether the next death under a message is the last; then it runs in a process of its own.

    With a `max_deaths` of 1 there is no death before that could make one suspect.
    """
    return 0 < max_deaths - 1 <= deaths


@dataclass(frozen=True, slots=True)
class Complete:
    """Commit `state` with `body`, the result or the error."""

    state: State
    body: bytes


@dataclass(frozen=True, slots=True)
class Bury:
    """Move the message to the dead letters."""

    error: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Park:
    """Put the message back for `seconds`; when it comes again, it is for `attempt`."""

    seconds: float
    reason: str
    attempt: int
    error: bytes = b""


@dataclass(frozen=True, slots=True)
class Release:
    """Hand the message back to its queue at once; `died` says how its process died, if it did."""

    died: str = ""


Step = Complete | Became | Bury | Park | Release

# In a rolling deployment new tasks reach old workers. They are put back, ever longer, for workers that know them.
_UNKNOWN_FIRST_SECONDS = 1.0
_UNKNOWN_LONGEST_SECONDS = 60.0


def decide(outcome: Outcome, delivery: Delivery, now_ms: int, unknown_ttl_ms: float) -> Step:
    """Say what follows from the outcome of a delivery: the one place that knows the rules. It knows no Redis.

    Args:
        outcome: of the run.
        delivery: what was run.
        now_ms: the time, ms.
        unknown_ttl_ms: for how long a message that no worker can run is put back, ms from its enqueue on.
    """
    match outcome:
        case Became():
            step: Step = outcome
        case Succeeded(result):
            step = Complete(State.SUCCEEDED, result)
        case Failed(error):
            step = Complete(State.FAILED, error)
        case Expired(error):
            step = Complete(State.EXPIRED, error)
        case FailedForNow(error, seconds):
            step = Park(seconds, "retry", delivery.attempt + 1, error)
        case Rejected(error, reason):
            step = Bury(error, reason)
        case Unroutable(error, reason):
            is_over = now_ms - delivery.enqueued_ms > unknown_ttl_ms
            step = Bury(error, reason) if is_over else _put_back(reason, delivery)
        case Abandoned():
            step = Release()
        case Died(how):
            step = Release(how)
    return step


def _put_back(reason: str, delivery: Delivery) -> Park:
    seconds = min(_UNKNOWN_FIRST_SECONDS * 2 ** min(delivery.fence, 16), _UNKNOWN_LONGEST_SECONDS)
    return Park(seconds, reason, delivery.attempt)
