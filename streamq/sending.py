"""How a call is enqueued: what callers may say of it, and what of that travels with its message."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, TypedDict

from streamq.checks import is_number
from streamq.config import CENTURY_SECONDS, DEFAULT_LEVEL, Durability
from streamq.errors import ConfigError
from streamq.limits import Limit, Of, check_key, claims_of, key_of
from streamq.message import Message, Share, Terms
from streamq.nodes import FlowPart, read_flow_part, split_id
from streamq.uniqueness import By


class SendOptions(TypedDict, total=False):
    """What ``using(...)`` and ``apply_async(...)`` take; `streamq.tasks.Task.using` explains it."""

    queue: str | None
    task_id: str | None
    countdown: float | None
    eta: datetime | None
    expires: float | datetime | None
    durability: Durability | None
    priority: int | None
    ordering_key: str | None
    fairness_key: str | None
    unique: By | None
    debounce: By | None
    throttle: By | None
    headers: Mapping[str, str] | None


_MOST_OF_HEADERS = 8 * 1024  # bytes

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """What workers are to heed when they come to a message; as JSON it travels with it, in the field ``options``.

    Attributes:
        level: the priority, 0 to 9, larger first; None: that of most messages.
        expires_ms: Redis time from which on it is not to be run any more, ms.
        expires_after_ms: the same, as the ms since it was first enqueued.
        ordering_key: messages with the same run one after another.
        fairness_key: messages with different ones take turns.
        scheduled_ms: the instant of the schedule that made it, Redis time, ms.
        limits: of each limit that needs something of this call: its name, the key, and the weight.
        headers: what the caller says to whoever runs it.
        flow: where it stands in its flow.
    """

    level: int | None = None
    expires_ms: int | None = None
    expires_after_ms: int | None = None
    ordering_key: str | None = None
    fairness_key: str | None = None
    scheduled_ms: int | None = None
    limits: tuple[tuple[str, str, float], ...] = ()
    headers: Mapping[str, str] | None = None
    flow: FlowPart | None = None

    def encode(self) -> bytes:
        """Make the field; nothing if there is nothing to heed."""
        said = {name: value for name in self.__slots__ if (value := getattr(self, name)) not in (None, ())}
        if self.flow is not None:
            said["flow"] = self.flow.plain()
        return _encode(said).encode() if said else b""

    def expires_at(self, enqueued_ms: int) -> float:
        """Return the Redis time from which on a message that was enqueued then is not to be run any more, ms."""
        after = math.inf if self.expires_after_ms is None else enqueued_ms + self.expires_after_ms
        return after if self.expires_ms is None else min(after, self.expires_ms)


@lru_cache(maxsize=1024)
def read_steering(options: bytes) -> Steering:
    """Read the field of a message; what newer versions say is passed over.

    Many messages say the same, and more so those of the members of a group: that is read once.

    Raises:
        ValueError: it cannot be read.
    """
    said: dict[str, Any] = json.loads(options) if options else {}
    if not isinstance(said, dict):
        raise ValueError("options is no object")  # noqa: TRY004 - as json.loads says it
    known = {name: said[name] for name in Steering.__slots__ if name in said}
    known["limits"] = tuple((str(name), str(key), float(weight)) for name, key, weight in known.get("limits", ()))
    if "headers" in known and not _are_headers(known["headers"]):
        raise ValueError("headers are no object of texts")
    if "flow" in known:
        known["flow"] = read_flow_part(known["flow"])
    return Steering(**known)


def with_flow(options: bytes, part: FlowPart) -> bytes:
    """Add to the field where the message stands in its flow."""
    flow = _encode(part.plain()).encode()
    return b'%b"flow":%b}' % (options[:-1] + b"," if options else b"{", flow)


def _are_headers(headers: object) -> bool:
    return isinstance(headers, Mapping) and all(isinstance(a, str) and isinstance(b, str) for a, b in headers.items())


def check_headers(headers: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Return a copy of headers, None if there are none.

    Raises:
        ConfigError: they are no texts, or more than 8 KiB as JSON.
    """
    if headers is None or headers == {}:
        return None
    if not _are_headers(headers):
        raise ConfigError(f"headers must be a mapping of texts to texts, not {headers!r}")
    try:
        size = len(_encode(dict(headers)).encode())
    except UnicodeEncodeError as error:
        raise ConfigError(f"headers cannot be sent as JSON: {error}") from None
    if size > _MOST_OF_HEADERS:
        raise ConfigError(f"headers have {size} bytes as JSON, over the limit of {_MOST_OF_HEADERS}")
    return dict(headers)


def part_of(message: Message) -> FlowPart | None:
    """Find out where a message stands in its flow; None if it is in none, or does not say so in a way we know."""
    if b'"flow":' not in message.options or not split_id(message.id)[1].isdigit():
        return None
    try:
        return read_steering(message.options).flow
    except (ValueError, TypeError, RecursionError):
        return None


def level_of(options: bytes) -> int:
    """Find the level on whose stream a message goes, by the field that `Steering.encode` has made of it."""
    level = read_steering(options).level
    return DEFAULT_LEVEL if level is None else level


def delay_of(countdown: float | None, eta: datetime | None) -> int:
    """Say when a message is due, as `Message.delay_ms` does.

    Raises:
        ConfigError: one of them cannot be used, or both are given.
    """
    if countdown is not None and eta is not None:
        raise ConfigError("give a countdown or an eta, and not both")
    if eta is not None:
        return -max(1, _moment_ms("eta", eta))
    return 0 if countdown is None else _span_ms("countdown", countdown)


def expiry_of(expires: float | datetime | None) -> Steering:
    """Say until when a run may begin.

    Raises:
        ConfigError: it cannot be used.
    """
    if expires is None:
        return Steering()
    if isinstance(expires, datetime):
        return Steering(expires_ms=max(1, _moment_ms("expires", expires)))
    return Steering(expires_after_ms=max(1, _span_ms("expires", expires)))


def _span_ms(name: str, seconds: float) -> int:
    if not (is_number(seconds) and 0 <= seconds <= CENTURY_SECONDS):
        kind = " or a datetime with its time zone" if name == "expires" else ""
        raise ConfigError(f"{name} must be 0 or more seconds{kind}, and less than a century, not {seconds!r}")
    return math.ceil(round(seconds * 1000, 6))  # never early, also where a float is a little less than it seems


def _moment_ms(name: str, moment: datetime) -> int:
    if not isinstance(moment, datetime):
        raise ConfigError(f"{name} must be a datetime, not {moment!r}")
    if moment.utcoffset() is None:
        raise ConfigError(
            f"{name} has no time zone, so that it is no moment: {moment!r}; say datetime.now(UTC) + ..., or"
            " .replace(tzinfo=ZoneInfo('Europe/Berlin'))"
        )
    return math.ceil(round(moment.timestamp() * 1000, 3))


@dataclass(frozen=True, slots=True)
class Turns:
    """What makes calls of a task wait for their turn.

    Attributes:
        task: its name.
        limits: how often, and how many at a time, runs may begin in all workers together.
        ordering_key: calls for which this is the same run one after another; None: they do not.
        fairness_key: calls for which this is different take turns; None: they do not.
    """

    task: str
    limits: tuple[Limit, ...] = ()
    ordering_key: Of | None = None
    fairness_key: Of | None = None

    def chosen(self, ordering_key: str | None, fairness_key: str | None) -> Turns:
        """Make those of a sender that has chosen keys; None: they stay as they are.

        Raises:
            ConfigError: one is no text, or empty.
        """
        if ordering_key is None and fairness_key is None:
            return self
        order = self.ordering_key if ordering_key is None else _Fixed(check_key("ordering_key", ordering_key))
        fairness = self.fairness_key if fairness_key is None else _Fixed(check_key("fairness_key", fairness_key))
        return replace(self, ordering_key=order, fairness_key=fairness)

    def check(self, delay_ms: int) -> None:
        """See that a delay goes with them.

        Raises:
            ConfigError: it does not.
        """
        if delay_ms and self.ordering_key is not None:
            raise ConfigError(
                f"task {self.task}: a call with an ordering_key can have no countdown, eta or debounce:"
                " all behind it would have to wait"
            )

    def check_parameters(self, parameters: Sequence[str]) -> None:
        """See that the parameters exist from which something is taken.

        Raises:
            ConfigError: one does not.
        """
        asked = [("ordering_key", self.ordering_key), ("fairness_key", self.fairness_key)]
        asked += [pair for one in self.limits for pair in (("by", one.by), ("weight", one.weight))]
        for what, of in asked:
            if isinstance(of, str) and of not in parameters:
                known = ", ".join(parameters) or "none"
                raise ConfigError(f"task {self.task}: {what}={of!r} is none of its parameters: {known}")

    @property
    def are_asked(self) -> bool:
        """Whether they need something of each call."""
        given = self.ordering_key is not None or self.fairness_key is not None
        return given or any(one.asks for one in self.limits)

    def of_call(
        self, arguments: Mapping[str, Any], steering: Steering, terms: Terms, weights: Mapping[str, float]
    ) -> tuple[Steering, Terms | None]:
        """Add what workers, and the enqueue itself, are to heed of a call.

        Args:
            arguments: those of the call, by name.
            steering: what else workers are to heed.
            terms: what else the enqueue is.
            weights: of fairness keys.

        Raises:
            ConfigError: a weight cannot be used.
        """
        order = None if self.ordering_key is None else key_of(self.ordering_key, arguments)
        fairness = None if self.fairness_key is None else key_of(self.fairness_key, arguments)
        claims = claims_of(self.task, self.limits, arguments)
        share = None if fairness is None else Share(fairness, weights.get(fairness, 1.0))
        terms = terms._replace(order=order, share=share)
        steering = replace(steering, ordering_key=order, fairness_key=fairness, limits=claims)
        return steering, None if terms == Terms() else terms


@dataclass(frozen=True, slots=True)
class _Fixed:
    """Gives the key that a sender has chosen, whatever the arguments."""

    key: str

    def __call__(self, _arguments: Mapping[str, object]) -> object:
        return self.key
