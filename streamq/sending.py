"""How a call is enqueued: what callers may say of it, and what of that travels with its message."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from streamq.config import DEFAULT_LEVEL, Durability
from streamq.uniqueness import By


class SendOptions(TypedDict, total=False):
    """What ``using(...)`` and ``apply_async(...)`` take; `streamq.tasks.Task.using` explains it."""

    queue: str | None
    task_id: str | None
    countdown: float | None
    durability: Durability | None
    priority: int | None
    unique: By | None
    debounce: By | None
    throttle: By | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """What workers are to heed when they come to a message; as JSON it travels with it, in the field ``options``.

    Attributes:
        level: the priority, 0 to 9, larger first; None: that of most messages.
        expires_ms: Redis time from which on it is not to be run any more, ms.
        ordering_key: messages with the same run one after another.
        fairness_key: messages with different ones take turns.
        scheduled_ms: the instant of the schedule that made it, Redis time, ms.
        limits: of each limit that needs something of this call: its name, the key, and the weight.
    """

    level: int | None = None
    expires_ms: int | None = None
    ordering_key: str | None = None
    fairness_key: str | None = None
    scheduled_ms: int | None = None
    limits: tuple[tuple[str, str, float], ...] = ()

    def encode(self) -> bytes:
        """Make the field; nothing if there is nothing to heed."""
        said = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        return json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode() if said else b""


def read_steering(options: bytes) -> Steering:
    """Read the field of a message; what newer versions say is passed over.

    Raises:
        ValueError: it cannot be read.
    """
    said: dict[str, Any] = json.loads(options) if options else {}
    if not isinstance(said, dict):
        raise ValueError("options is no object")  # noqa: TRY004 - as json.loads says it
    known = {name: said[name] for name in Steering.__slots__ if name in said}
    known["limits"] = tuple((str(name), str(key), float(weight)) for name, key, weight in known.get("limits", ()))
    return Steering(**known)


def level_of(options: bytes) -> int:
    """Find the level on whose stream a message goes, by the field that `Steering.encode` has made of it."""
    level = read_steering(options).level
    return DEFAULT_LEVEL if level is None else level
