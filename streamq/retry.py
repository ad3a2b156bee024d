"""When a failed task is run again: tenacity's objects decide, and each further attempt is a stored, delayed message.

A policy is asked in the worker, once for each attempt that failed; nothing sleeps there.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from inspect import iscoroutinefunction
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter
from tenacity.retry import retry_if_exception

from streamq.codec import text_of
from streamq.errors import (
    ArgumentError,
    ConfigError,
    PayloadTooLarge,
    ResultEncodeError,
    ResultTooLarge,
    RetryRequested,
    TaskRejected,
)
from streamq.lifecycle import Failed, FailedForNow, Outcome, Rejected
from streamq.message import Delivery

_log = logging.getLogger("streamq.task")

_LONGEST_SECONDS = 365.25 * 24 * 3600
# Another attempt would end in the same way.
_HOPELESS = (ArgumentError, PayloadTooLarge, ResultEncodeError, ResultTooLarge)
_STOP = stop_after_attempt(5)
_WAIT = wait_exponential_jitter(initial=1, max=60)
_RETRY = retry_if_exception_type(Exception)
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_ASKER = Retrying()  # tenacity's state wants to know who asks


@dataclass(frozen=True)
class Retry:
    """A retry policy.

    When it has had enough, the message goes to the dead letters; an error that is not for it ends the task as failed.

    Args:
        stop: tenacity's ``stop_*``: when to give up; by default after 5 attempts. ``stop_after_delay`` counts from
            the time at which a worker could have the first attempt.
        wait: tenacity's ``wait_*``: seconds until the next attempt. If the error brings a wish of the server's
            (``Retry-After``), at least so long.
        retry: tenacity's ``retry_if_*``: which errors, or results, call for another attempt.
        discard_on: exception types that end the task as failed at once, whatever `retry` says.

    Raises:
        ConfigError: one of them cannot be used.
    """

    stop: Callable[[RetryCallState], bool] = _STOP
    wait: Callable[[RetryCallState], float] = _WAIT
    retry: Callable[[RetryCallState], bool] = _RETRY
    discard_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        for name in ("stop", "wait", "retry"):
            part = getattr(self, name)
            if not callable(part) or isinstance(part, type):  # a class would be called, and be true whatever it says
                raise ConfigError(f"{name} of a Retry must be one of tenacity's objects, not {part!r}")
            if iscoroutinefunction(part) or iscoroutinefunction(getattr(part, "__call__", None)):  # noqa: B004
                raise ConfigError(f"{name} of a Retry must not be async, as {part!r} is")
        _check_types("discard_on", self.discard_on)

    @property
    def looks_at_results(self) -> bool:
        """A result, too, may call for another attempt."""
        return not isinstance(self.retry, retry_if_exception)


def _check_types(name: str, types: object) -> None:
    if not isinstance(types, tuple) or not all(isinstance(t, type) and issubclass(t, BaseException) for t in types):
        raise ConfigError(f"{name} must be a tuple of exception classes, not {types!r}")


def make_policy(
    retry: Retry | int | bool | None,  # noqa: FBT001 - True is a shorthand for the policy that Retry() is
    retry_on: tuple[type[BaseException], ...] | None,
    discard_on: tuple[type[BaseException], ...],
) -> Retry | None:
    """Make the policy that the options of a task describe; None if they describe none.

    Raises:
        ConfigError: they contradict each other, or one cannot be used.
    """
    if isinstance(retry, Retry):
        if retry_on is not None or discard_on:
            raise ConfigError("retry_on and discard_on are shorthands: say both inside the Retry(...)")
        return retry
    if retry is None:
        retry = retry_on is not None
    if retry is False:
        if retry_on is not None or discard_on:
            raise ConfigError("retry_on and discard_on need retry: without it nothing is retried")
        return None
    policy = Retry(discard_on=discard_on)
    if retry is not True:
        if not isinstance(retry, int) or retry < 1:
            raise ConfigError(f"retry must be a Retry(...) or a number of attempts, 1 or more, not {retry!r}")
        policy = replace(policy, stop=stop_after_attempt(retry))
    if retry_on is not None:
        _check_types("retry_on", retry_on)
        policy = replace(policy, retry=retry_if_exception_type(retry_on))
    return policy


def after_error(
    policy: Retry | None,
    error: BaseException,
    encode: Callable[[BaseException], bytes],
    delivery: Delivery,
    now_ms: int,
) -> Outcome:
    """Say what an error leads to.

    Args:
        policy: the task's.
        error: what the task raised.
        encode: makes the stored form of an error.
        delivery: what was run.
        now_ms: the time, ms.
    """
    if isinstance(error, TaskRejected):
        return Rejected(encode(error), text_of(error))
    asked = error if isinstance(error, RetryRequested) else None
    # Asked for inside an `except`, it is that error which the caller should hear of in the end.
    cause = (asked.__cause__ or asked.__context__ or asked) if asked else error
    stored = encode(cause)
    if asked is None and (policy is None or isinstance(error, _HOPELESS)):
        return Failed(stored)
    policy = policy or Retry()
    if isinstance(error, policy.discard_on):
        return Failed(stored)
    state = _state(delivery, now_ms)
    state.set_exception((type(cause), cause, cause.__traceback__))
    wish = asked.countdown if asked and asked.countdown is not None else None
    return _consider(policy, state, stored, wish, wanted=asked is not None, hint=retry_after(cause))


def after_result(
    policy: Retry, result: Any, encode: Callable[[BaseException], bytes], delivery: Delivery, now_ms: int
) -> Outcome | None:
    """Say what a result leads to; None if the policy is content with it."""
    state = _state(delivery, now_ms)
    state.set_result(result)
    stored = encode(RetryRequested(reason="the retry policy is not content with the result"))
    outcome = _consider(policy, state, stored, None, wanted=False, hint=None)
    return None if isinstance(outcome, Failed) else outcome


def _state(delivery: Delivery, now_ms: int) -> RetryCallState:
    state = RetryCallState(_ASKER, None, (), {})
    state.attempt_number = delivery.attempt
    state.start_time = time.monotonic() - max(0, now_ms - delivery.since_ms) / 1000
    return state


def _consider(
    policy: Retry, state: RetryCallState, stored: bytes, wish: float | None, *, wanted: bool, hint: float | None
) -> Outcome:
    """Ask the policy, whose parts are the user's and may fail themselves."""
    try:
        if not wanted and not policy.retry(state):
            return Failed(stored)
        seconds = float(policy.wait(state) if wish is None else wish)
        if math.isnan(seconds):
            raise ValueError("the wait is not a number")  # noqa: TRY301 - as other failures of a policy
        seconds = min(max(0.0, seconds, hint or 0.0), _LONGEST_SECONDS)
        state.upcoming_sleep = seconds
        if policy.stop(state):
            return Rejected(stored, f"gave up after attempt {state.attempt_number}")
    except Exception:  # noqa: BLE001 - whatever it is, the task must have an end
        _log.exception("the retry policy failed: there will be no further attempt")
        return Failed(stored)
    return FailedForNow(stored, seconds)


def retry_after(error: BaseException) -> float | None:
    """Find out how many seconds a server wants to be left alone, if the error says so.

    Looked at are the attribute ``retry_after`` (seconds or a timedelta), and the header ``Retry-After`` (RFC 9110,
    section 10.2.3: seconds or a date) of the error or of its ``response``, as httpx, requests and aiohttp have them.
    """
    try:
        return _seconds(_wish(error))
    except Exception:  # noqa: BLE001 - attributes of any library's error: one that cannot be read is no wish
        return None


def _wish(error: BaseException) -> object:
    wish = getattr(error, "retry_after", None)
    for holder in (error, getattr(error, "response", None)):
        headers = getattr(holder, "headers", None)
        if wish is None and headers is not None:
            wish = headers.get("Retry-After", headers.get("retry-after"))
    return wish


def _seconds(wish: object) -> float | None:
    match wish:
        case timedelta():
            seconds = wish.total_seconds()
        case str() if _NUMBER.fullmatch(wish.strip()):
            seconds = float(wish)
        case str():
            moment = parsedate_to_datetime(wish)
            seconds = max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
        case int() | float() if not isinstance(wish, bool):
            seconds = float(wish)
        case _:
            return None
    return seconds if 0 <= seconds < math.inf else None
