"""`Limit`: how often, and how many at a time, tasks may begin in all workers together. Values, and their checks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from streamq.checks import is_number, is_whole
from streamq.errors import ConfigError

_RATE = re.compile(r"(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)?([smhd])")
_UNIT_MS = {"s": 1000.0, "m": 60_000.0, "h": 3_600_000.0, "d": 86_400_000.0}
_LONGEST_KEY = 200
_UNNAMEABLE = ": *?[]{}"
_OF_QUEUE = "*"  # no other limit can have this name

Of = str | Callable[[Mapping[str, object]], object]
"""What gives something of a call: the name of a parameter, or a function of the arguments by name."""


def parse_rate(rate: str) -> tuple[float, float]:
    """Read a rate such as ``100/m``, ``10/s``, ``1000/h`` or ``5/10s``.

    Returns:
        The number of units, and the ms in which there may be so many.

    Raises:
        ConfigError: it is none.
    """
    found = _RATE.fullmatch(rate) if isinstance(rate, str) else None
    if found is None or float(found[1]) <= 0 or float(found[2] or 1) <= 0:
        raise ConfigError(
            f"a rate is a number, '/', and a time in s, m, h or d, such as '100/m' or '5/10s', not {rate!r}"
        )
    return float(found[1]), float(found[2] or 1) * _UNIT_MS[found[3]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How often, and how many at a time, tasks may begin in all workers together.

    A task that may not begin waits in Redis, and not in a worker, until it is its turn; those that wait go in the order
    of their enqueueing. Each attempt of a task that is retried counts. A limit holds within one queue.

    Attributes:
        rate: so many starts in a time, such as ``100/m``, ``10/s``, ``1000/h`` or ``5/10s``. In any span of time there
            are at most that times the span, and `burst`.
        burst: so many may begin at once after a pause; None: what the rate gives in a second, at least 1; with a
            `weight`, what the rate gives in its time.
        concurrency: so many may run at a time.
        by: each value of it has a limit of its own: the name of a parameter, or a function that takes the call's
            arguments by name and returns the value, of which `str` makes the key.
        weight: how many units of the rate a call takes, more than 0 and at most `burst`: the name of a parameter, or
            such a function. What has run can say how many it really were: ``context.settle(units)``.
        name: limits of several tasks of one queue that have the same name are one; None: the limit is the task's own.

    Raises:
        ConfigError: one of them cannot be used.
    """

    rate: str | None = None
    burst: float | None = None
    concurrency: int | None = None
    by: Of | None = None
    weight: Of | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.rate is None and self.concurrency is None:
            raise ConfigError("a limit needs a rate or a concurrency")
        if self.rate is not None:
            parse_rate(self.rate)
        elif self.burst is not None or self.weight is not None:
            raise ConfigError("burst and weight are for a limit with a rate")
        number = self.concurrency
        if number is not None and (not is_whole(number) or number < 1):
            raise ConfigError(f"concurrency must be a whole number of 1 or more, not {number!r}")
        if self.burst is not None and not (is_number(self.burst) and 1 <= self.burst < float("inf")):
            raise ConfigError(f"burst must be a number of 1 or more, not {self.burst!r}")
        for what, of in (("by", self.by), ("weight", self.weight)):
            if of is not None and not isinstance(of, str) and not callable(of):
                raise ConfigError(f"{what} must be the name of a parameter or a function, not {of!r}")
        if self.name is not None:
            _check_limit_name(self.name)

    @property
    def pace_ms(self) -> float:
        """The ms for one unit; 0 without a rate."""
        if self.rate is None:
            return 0.0
        units, span = parse_rate(self.rate)
        return span / units

    @property
    def most_units(self) -> float:
        """The units that may go at once: the burst."""
        if self.rate is None:
            return 1.0
        if self.burst is not None:
            return self.burst
        units, span = parse_rate(self.rate)
        return max(1.0, units if self.weight is not None else units * 1000 / span)

    @property
    def asks(self) -> bool:
        """Whether it needs a key or a weight of each call."""
        return self.by is not None or self.weight is not None


@dataclass(frozen=True, slots=True)
class Rule:
    """A limit as workers have it: computed once.

    Attributes:
        name: of the limit.
        pace_ms: the ms for one unit; 0: there is no rate.
        burst: units that may go at once.
        concurrency: so many may run at a time; 0: any number.
        asks: it needs a key or a weight of each call.
    """

    name: str
    pace_ms: float
    burst: float
    concurrency: int
    asks: bool


def rule_of(limit: Limit) -> Rule:
    """Make the rule of a limit; one without a name is that of a queue."""
    name = _OF_QUEUE if limit.name is None else limit.name
    return Rule(name, limit.pace_ms, limit.most_units, limit.concurrency or 0, limit.asks)


def limits_of_task(
    task: str, rate_limit: str | None, concurrency: int | None, limits: Sequence[Limit]
) -> tuple[Limit, ...]:
    """Collect the limits that a task's options ask for, and name those that have no name after the task.

    Raises:
        ConfigError: one of them cannot be used, or two have one name.
    """
    if isinstance(limits, Limit) or not all(isinstance(one, Limit) for one in limits):
        raise ConfigError(f"task {task}: limits must be a list of Limit(...), not {limits!r}")
    asked = [*limits]
    if rate_limit is not None or concurrency is not None:
        asked.insert(0, Limit(rate=rate_limit, concurrency=concurrency))
    named = tuple(
        one if one.name is not None else replace(one, name=f"{task}.{number}" if number else task)
        for number, one in enumerate(asked)
    )
    if len({one.name for one in named}) < len(named):
        raise ConfigError(f"task {task}: two of its limits have one name")
    return named


def check_queue_limits(limits: Mapping[str, Limit]) -> None:
    """Check the limits of queues.

    Raises:
        ConfigError: one has a key or a weight: calls of different tasks have nothing in common to take it from.
    """
    for queue, limit in limits.items():
        if not isinstance(limit, Limit):
            raise ConfigError(f"queue_limits: the limit of queue {queue} must be a Limit(...), not {limit!r}")
        if limit.asks or limit.name is not None:
            raise ConfigError(f"queue_limits: the limit of queue {queue} can have no by, weight or name")


def _check_limit_name(name: str) -> None:
    if not isinstance(name, str) or not name or not name.isprintable() or any(c in _UNNAMEABLE for c in name):
        raise ConfigError(f"limit name {name!r} cannot be used: no spaces, ':', '*', '?', brackets or braces")


def value_of(of: Of, arguments: Mapping[str, object]) -> object:
    """Take a value from a call's arguments, given by name."""
    return arguments.get(of) if isinstance(of, str) else of(arguments)


def key_of(of: Of, arguments: Mapping[str, object]) -> str:
    """Take a key from a call's arguments: their text, or of a long one its digest."""
    return short_key(str(value_of(of, arguments)))


def check_key(what: str, key: str) -> str:
    """Return a key that a caller gives, in its short form.

    Raises:
        ConfigError: it is no text, or empty.
    """
    if not isinstance(key, str) or not key:
        raise ConfigError(f"{what} must be a text that is not empty, not {key!r}")
    return short_key(key)


def short_key(key: str) -> str:
    """Give a key as it is if it is short, and else its digest."""
    return key if len(key) <= _LONGEST_KEY else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def claims_of(
    task: str, limits: Sequence[Limit], arguments: Mapping[str, object]
) -> tuple[tuple[str, str, float], ...]:
    """Say what limits need of a call: of each its name, the key, and the weight.

    Raises:
        ConfigError: a weight is none, or so large that the call could never run.
    """
    claims = []
    for limit in limits:
        if not limit.asks:
            continue
        key = "" if limit.by is None else key_of(limit.by, arguments)
        weight = 1.0 if limit.weight is None else value_of(limit.weight, arguments)
        if not is_number(weight) or not 0 < weight < float("inf"):
            raise ConfigError(f"{task}(): the weight for limit {limit.name} must be a number over 0, not {weight!r}")
        if weight > limit.most_units:
            raise ConfigError(
                f"{task}(): a weight of {weight:g} is over the burst of {limit.most_units:g} of limit {limit.name}:"
                " it could never run; nothing was enqueued"
            )
        claims.append((limit.name or "", key, float(weight)))
    return tuple(claims)


def weighed_limit(task: str, limits: Sequence[Limit], units: float, name: str | None) -> Limit:
    """Find the limit whose weight is to be settled.

    Raises:
        ConfigError: there is no such limit, or more than one, or units are no number.
    """
    if not is_number(units) or not 0 <= units < float("inf"):
        raise ConfigError(f"settle() of task {task}: units must be a number of 0 or more, not {units!r}")
    found = [one for one in limits if one.weight is not None and name in (None, one.name)]
    if len(found) != 1:
        named = "" if name is None else f" of the name {name!r}"
        raise ConfigError(f"settle() of task {task}: it has {len(found)} limits with a weight{named}, not one")
    return found[0]
