"""The states of a task, the outcomes of a run, and what follows from an outcome. Values and one pure function."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from streamq.message import Delivery


class State(StrEnum):
    """Where a task is in its life."""

    UNKNOWN = "unknown"
    """No record: never enqueued, expired, or forgotten."""
    DELAYED = "delayed"
    """Waiting for its time."""
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DEAD = "dead"
    """Its message lies in the dead letters; the error says why."""

    @property
    def ended(self) -> bool:
        """Nothing more will happen to the task."""
        return self in _ENDED


_ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.DEAD})


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The function returned; `result` is its value as JSON."""

    result: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """The function, or what stands around it, raised; `error` is the stored form of the exception."""

    error: bytes


@dataclass(frozen=True, slots=True)
class Unroutable:
    """No function of that name is known to this worker; `error` says so."""

    error: bytes


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The run was cut short by the end of its worker; it has no outcome."""


Outcome = Succeeded | Failed | Unroutable | Abandoned


@dataclass(frozen=True, slots=True)
class Complete:
    """Commit `state` with `body`, the result or the error."""

    state: State
    body: bytes


@dataclass(frozen=True, slots=True)
class Bury:
    """Move the message to the dead letters."""

    error: bytes


@dataclass(frozen=True, slots=True)
class Park:
    """Put the message back for `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Release:
    """Hand the message back to its queue at once."""


Step = Complete | Bury | Park | Release

# In a rolling deployment new tasks reach old workers. They are put back, ever longer, for workers that know them.
_UNKNOWN_FIRST_SECONDS = 1.0
_UNKNOWN_LONGEST_SECONDS = 60.0
_UNKNOWN_GIVE_UP_MS = 24 * 3600 * 1000


def decide(outcome: Outcome, delivery: Delivery, now_ms: int) -> Step:
    """Say what follows from the outcome of a delivery: the one place that knows the rules. It knows no Redis."""
    match outcome:
        case Succeeded(result):
            return Complete(State.SUCCEEDED, result)
        case Failed(error):
            return Complete(State.FAILED, error)
        case Unroutable(error):
            if now_ms - delivery.enqueued_ms > _UNKNOWN_GIVE_UP_MS:
                return Bury(error)
            return Park(min(_UNKNOWN_FIRST_SECONDS * 2 ** min(delivery.fence, 16), _UNKNOWN_LONGEST_SECONDS))
        case Abandoned():
            return Release()
