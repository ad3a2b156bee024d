"""The options that parts of a flow have in common."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

from streamq.checks import is_number
from streamq.config import check_durability, check_name, check_priority, check_task_id
from streamq.errors import FlowError
from streamq.limits import check_key
from streamq.sending import SendOptions, check_headers, delay_of, expiry_of

_WHEN = ("countdown", "eta")
_ONLY_ONE = ("unique", "debounce", "throttle")
_OF_THE_WHOLE = ("task_id", "durability")


def over(common: SendOptions, own: SendOptions) -> SendOptions:
    """Make the options of a part that has some of its own."""
    mine: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
    if not common:
        return cast("SendOptions", mine)
    hidden = {name for some in (_WHEN, _ONLY_ONE) if any(one in mine for one in some) for name in some}
    return cast("SendOptions", {**{name: value for name, value in common.items() if name not in hidden}, **mine})


def check_common(options: SendOptions) -> SendOptions:
    """Return options that several tasks can have in common.

    Raises:
        FlowError: one of them is for single calls.
        ConfigError: one of them cannot be used.
    """
    for name in _ONLY_ONE:
        if options.get(name) is not None:
            raise FlowError(f"{name}= cannot be set on calls that belong together")
    if unknown := options.keys() - SendOptions.__annotations__.keys():
        raise TypeError(f"set() got an unexpected keyword argument {min(unknown)!r}")
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    checks: dict[str, Callable[[Any], Any]] = {
        "queue": lambda name: check_name("queue", name),
        "task_id": check_task_id,
        "expires": expiry_of,
        "durability": check_durability,
        "priority": check_priority,
        "ordering_key": lambda key: check_key("ordering_key", key),
        "fairness_key": lambda key: check_key("fairness_key", key),
    }
    for name, check in checks.items():
        if name in given:
            check(given[name])
    delay_of(given.get("countdown"), given.get("eta"))
    if "headers" in given:
        given["headers"] = check_headers(given["headers"])
    return cast("SendOptions", given)


class Scope:
    """Options of all parts that are drawn in it, as far as they have none of their own.

    Args:
        options: those options; `expires` is a moment.
        now_ms: says when the flow begins.
    """

    __slots__ = ("_later", "_now_ms", "options")

    def __init__(self, options: SendOptions, now_ms: Callable[[], int]) -> None:
        self.options = options
        self._now_ms = now_ms
        self._later: Scope | None = None

    @property
    def later(self) -> Scope:
        """The same for parts that do not begin the flow: when it is to begin does not concern them."""
        if self._later is None:
            waits = any(name in self.options for name in _WHEN)
            kept = {name: value for name, value in self.options.items() if name not in _WHEN}
            self._later = Scope(cast("SendOptions", kept), self._now_ms) if waits else self
        return self._later

    def within(self, chosen: SendOptions) -> Scope:
        """Make the scope of what has chosen some.

        Raises:
            FlowError: they are for a whole flow.
        """
        if not chosen:
            return self
        for name in _OF_THE_WHOLE:
            if chosen.get(name) is not None:
                raise FlowError(f"{name}= is for a whole flow, and not for a part of it")
        options = over(self.options, chosen)
        if is_number(seconds := options.get("expires")):
            moment = (self._now_ms() + expiry_ms(seconds)) / 1000
            options["expires"] = datetime.fromtimestamp(moment, UTC)
        return Scope(options, self._now_ms)


def expiry_ms(seconds: Any) -> int:
    """Give what was said in seconds in ms."""
    return expiry_of(seconds).expires_after_ms or 0
