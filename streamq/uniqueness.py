"""Calls of which there is to be only one: `by` says which calls count as the same, and for how long."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from streamq.checks import is_number
from streamq.config import CENTURY_SECONDS
from streamq.errors import ConfigError
from streamq.message import Lock

While = Literal["queued", "running", "done"]
What = str | Callable[[Mapping[str, object]], object]
"""What counts of a call: the name of a parameter, or a function of the arguments by name."""

_SHORTEST_SECONDS = 0.001
# A lock of which nothing says when it ends must not stay for ever after the call that it was for.
_BOUND_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class By:
    """Which calls count as the same, and for how long; made by `by`."""

    what: tuple[What, ...] = ()
    ttl: float | None = None
    while_: While | None = None
    seconds: float | None = None
    max_wait: float | None = None


def by(
    *what: What,
    ttl: float | None = None,
    while_: While | None = None,
    seconds: float | None = None,
    max_wait: float | None = None,
) -> By:
    """Say which calls of a task count as the same, for ``unique=``, ``throttle=`` and ``debounce=``.

    Args:
        what: names of parameters, those whose arguments must be equal; or functions that take the call's arguments by
            name, as one mapping, and return what must be equal. Without any, all arguments must be. It does not matter
            whether an argument is passed by position, by name or as a default.
        ttl: for ``unique``: seconds from the enqueue on after which the next call is no duplicate, whatever became of
            the first. Needed for ``while_="done"``; without it there is no such bound, only that a lock goes a day
            after the last call that it was for, or that found it held.
        while_: for ``unique``: until when further calls are duplicates of the first: until it begins to run
            (``queued``), until it has ended (``running``, if nothing is said), or until `ttl`, also if it has ended
            (``done``).
        seconds: for ``throttle``: how long after the first call further ones are duplicates of it. For ``debounce``:
            how long a call waits for another to take its place.
        max_wait: for ``debounce``: seconds from the first call on after which it is run, however many follow.

    Raises:
        ConfigError: one of them cannot be used.
    """
    for one in what:
        if not (isinstance(one, str) or callable(one)):
            raise ConfigError(f"by() takes names of parameters and functions, not {one!r}")
    if while_ is not None and while_ not in get_args(While):
        raise ConfigError(f"by(while_=...) must be one of {', '.join(get_args(While))}, not {while_!r}")
    for name, value in {"ttl": ttl, "seconds": seconds, "max_wait": max_wait}.items():
        if value is not None and not (is_number(value) and _SHORTEST_SECONDS <= value <= CENTURY_SECONDS):
            raise ConfigError(
                f"by({name}=...) must be {_SHORTEST_SECONDS} or more seconds, and less than a century, not {value!r}"
            )
    return By(what, ttl, while_, seconds, max_wait)


@dataclass(frozen=True, slots=True)
class OnlyOne:
    """What comes of ``unique=``, ``throttle=`` or ``debounce=``.

    Attributes:
        name: which of them it is.
        what: which calls count as the same, as `by` takes it.
        lock: the lock to take, without its name.
        delay_ms: how long a call waits for another to take its place.
    """

    name: str
    what: tuple[What, ...]
    lock: Lock
    delay_ms: int = 0

    def check(self, task: str, signature: inspect.Signature, delay_ms: int) -> int:
        """Look whether calls of this task can be told apart so; returns their delay.

        Raises:
            ConfigError: they cannot, or have another delay already.
        """
        for name in self.what:
            if isinstance(name, str) and name not in signature.parameters:
                known = ", ".join(signature.parameters) or "none"
                raise ConfigError(f"task {task}: {self.name}=by({name!r}): its parameters are {known}")
        if delay_ms and self.delay_ms:
            raise ConfigError(f"task {task}: debounce= says itself when a call is due, so give it no other time")
        return self.delay_ms or delay_ms


def choose(unique: By | None, debounce: By | None, throttle: By | None) -> OnlyOne | None:
    """Make the rule of which no more than one is given.

    Raises:
        ConfigError: it lacks something or says too much, or two are given.
    """
    given = {"unique": unique, "debounce": debounce, "throttle": throttle}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} exclude each other")
    for name, value in given.items():
        if not isinstance(value, By):
            raise ConfigError(f"{name} must be by(...), not {value!r}")
    if unique:
        return _make_unique(unique)
    if throttle:
        _expect("throttle", throttle, needed=("seconds",))
        return OnlyOne("throttle", throttle.what, Lock("", "done", _ms(throttle.seconds)))
    if debounce:
        _expect("debounce", debounce, needed=("seconds",), allowed=("max_wait",))
        longest = None if debounce.max_wait is None else _ms(debounce.max_wait)
        lock = Lock("", "delayed", _BOUND_MS, renews=True, longest_ms=longest)
        return OnlyOne("debounce", debounce.what, lock, _ms(debounce.seconds))
    return None


def _make_unique(unique: By) -> OnlyOne:
    while_ = unique.while_ or "running"
    if while_ == "done":
        _expect("unique", unique, needed=("ttl",), allowed=("while_",))
    else:
        _expect("unique", unique, allowed=("while_", "ttl"))
    if unique.ttl is None:
        return OnlyOne("unique", unique.what, Lock("", while_, _BOUND_MS, renews=True))
    return OnlyOne("unique", unique.what, Lock("", while_, _ms(unique.ttl)))


def _expect(name: str, given: By, *, needed: tuple[str, ...] = (), allowed: tuple[str, ...] = ()) -> None:
    for part in ("ttl", "while_", "seconds", "max_wait"):
        value: Any = getattr(given, part)
        if value is None and part in needed:
            raise ConfigError(f"{name}=by(...) needs {part}=")
        if value is not None and part not in (*needed, *allowed):
            raise ConfigError(f"{name}=by(...) takes no {part}=")


def _ms(seconds: float | None) -> int:
    return max(1, round((seconds or 0) * 1000))
