"""When a failed run is tried again: policies, shorthands, wishes of tasks and of servers."""

from __future__ import annotations

import asyncio
import json
import math
import time
from datetime import UTC, datetime, timedelta
from email.message import Message as Headers
from email.utils import format_datetime
from types import SimpleNamespace

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st
from tenacity import (
    RetryCallState,
    retry_if_exception_message,
    retry_if_exception_type,
    retry_if_not_exception_type,
    retry_if_result,
    stop_after_attempt,
    stop_after_delay,
    stop_before_delay,
    stop_never,
    wait_chain,
    wait_exponential,
    wait_fixed,
    wait_none,
)

from streamq import ArgumentError, ConfigError, Retry, RetryRequested, TaskRejected
from streamq.codec import encode_error
from streamq.errors import PayloadTooLarge, ResultEncodeError, ResultTooLarge
from streamq.lifecycle import Failed, FailedForNow, Outcome, Rejected
from streamq.message import Delivery, Message
from streamq.retry import after_error, after_result, make_policy, retry_after

NOW = 1_700_000_000_000
YEAR = 365.25 * 24 * 3600


def ask(policy: Retry | None, error: BaseException, *, attempt: int = 1, age: float = 0.0) -> Outcome:
    """Ask what follows from an error of an attempt; the first could begin `age` seconds ago."""
    delivery = Delivery(Message("1", "shop.buy", "q", b"[]"), "s", b"1-1", 0, 0, attempt, 0, NOW - round(age * 1000))
    return after_error(policy, error, encode_error, delivery, NOW)


def ask_result(policy: Retry, result: object, *, attempt: int = 1) -> Outcome | None:
    delivery = Delivery(Message("1", "shop.buy", "q", b"[]"), "s", b"1-1", 0, 0, attempt, 0, NOW)
    return after_result(policy, result, encode_error, delivery, NOW)


def kind_of(outcome: Outcome) -> str:
    return json.loads(outcome.error)["type"]


def pause(policy: Retry, error: BaseException | None = None, *, attempt: int = 1) -> float:
    """Return the seconds until the next attempt, which there must be."""
    outcome = ask(policy, error or OSError("no net"), attempt=attempt)
    assert isinstance(outcome, FailedForNow)
    return outcome.seconds


# ---- policies


def test_without_a_policy_a_failure_is_the_end():
    assert isinstance(ask(None, OSError("no net")), Failed)


def test_the_policy_that_retry_makes():
    """Five attempts, with pauses of 1, 2, 4 and 8 seconds and up to one more each."""
    for attempt in (1, 2, 3, 4):
        assert 2 ** (attempt - 1) <= pause(Retry(), attempt=attempt) <= 2 ** (attempt - 1) + 1
    outcome = ask(Retry(), OSError("no net"), attempt=5)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "gave up after attempt 5"
    assert kind_of(outcome) == "OSError"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError()])
def test_what_ends_programs_is_not_retried_by_default(error):
    assert isinstance(ask(Retry(), error), Failed)


@pytest.mark.parametrize(
    ("stop", "attempt", "age", "again"),
    [
        (stop_after_attempt(3), 2, 0, True),
        (stop_after_attempt(3), 3, 0, False),
        (stop_after_attempt(3), 4, 0, False),
        (stop_never, 10_000, 10**8, True),
        (stop_after_delay(60), 1, 59, True),
        (stop_after_delay(60), 1, 61, False),
        (stop_after_attempt(3) | stop_after_delay(60), 1, 61, False),
        (stop_after_attempt(3) | stop_after_delay(60), 3, 1, False),
        (stop_after_attempt(3) & stop_after_delay(60), 3, 1, True),
        (stop_after_attempt(3) & stop_after_delay(60), 3, 61, False),
        (stop_before_delay(60), 1, 54, True),
        (stop_before_delay(60), 1, 56, False),
        (lambda state: state.attempt_number > 1, 1, 0, True),
        (lambda state: state.attempt_number > 1, 2, 0, False),
    ],
)
def test_when_a_policy_gives_up(stop, attempt, age, again):
    """Attempts are those that count, and time runs from when a worker could have the first, not from this process."""
    outcome = ask(Retry(stop=stop, wait=wait_fixed(5)), OSError(), attempt=attempt, age=age)
    assert type(outcome) is (FailedForNow if again else Rejected)


@pytest.mark.parametrize(
    ("wait", "pauses"),
    [
        (wait_none(), [0, 0, 0]),
        (wait_fixed(0.05), [0.05, 0.05, 0.05]),
        (wait_fixed(1) + wait_fixed(2), [3, 3, 3]),
        (wait_chain(wait_fixed(1), wait_fixed(5)), [1, 5, 5]),
        (wait_exponential(max=3), [1, 2, 3]),
        (lambda state: state.attempt_number * 10, [10, 20, 30]),
        (lambda _: -1, [0, 0, 0]),
        (lambda _: -math.inf, [0, 0, 0]),
        (lambda _: math.inf, [YEAR] * 3),
        (lambda _: 1e300, [YEAR] * 3),
    ],
)
def test_how_long_a_policy_waits(wait, pauses):
    """In seconds, from none to a year."""
    policy = Retry(stop=stop_never, wait=wait)
    assert [pause(policy, attempt=attempt) for attempt in (1, 2, 3)] == pauses


@pytest.mark.parametrize(
    ("retry", "error", "again"),
    [
        (retry_if_exception_type(OSError), FileNotFoundError(), True),
        (retry_if_exception_type(OSError), ValueError(), False),
        (retry_if_exception_type((KeyError, ValueError)), ValueError(), True),
        (retry_if_not_exception_type(ValueError), ValueError(), False),
        (retry_if_not_exception_type(ValueError), OSError(), True),
        (retry_if_exception_message(match="no .*"), OSError("no net"), True),
        (retry_if_exception_message(match="no .*"), OSError("yes"), False),
        (retry_if_exception_type(OSError) | retry_if_exception_type(ValueError), ValueError(), True),
        (retry_if_exception_type(OSError) & retry_if_exception_message("x"), OSError("y"), False),
        (retry_if_exception_type(BaseException), SystemExit(3), True),
        (retry_if_result(lambda value: value is None), OSError(), False),
        (tenacity.retry_always, OSError(), True),
        (tenacity.retry_never, OSError(), False),
        (lambda state: isinstance(state.outcome.exception(), OSError), OSError(), True),
    ],
)
def test_which_errors_are_retried(retry, error, again):
    """One that is not for the policy ends the task as failed, and is no dead letter."""
    assert type(ask(Retry(retry=retry, wait=wait_none()), error)) is (FailedForNow if again else Failed)


@pytest.mark.parametrize("part", ["stop", "wait", "retry"])
def test_a_policy_that_raises_is_the_end(part, caplog):
    """It fails the task with the task's own error, and the log says what is wrong with the policy."""

    def broken(_state: RetryCallState) -> bool:
        raise ZeroDivisionError("in the policy")

    outcome = ask(Retry(**{part: broken}), OSError("no net"))
    assert isinstance(outcome, Failed)
    assert kind_of(outcome) == "OSError"
    assert "retry policy failed" in caplog.text
    assert "in the policy" in caplog.text


@pytest.mark.parametrize("seconds", [None, "soon", object(), math.nan])
def test_a_wait_that_is_no_number_is_a_broken_policy(seconds, caplog):
    assert isinstance(ask(Retry(wait=lambda _: seconds), OSError()), Failed)
    assert "retry policy failed" in caplog.text


def test_a_policy_sees_the_attempt_as_tenacity_shows_it():
    """A callable of one's own can use the documented attributes of tenacity's state."""
    seen = {}

    def wait(state: RetryCallState) -> float:
        seen.update(attempt=state.attempt_number, age=state.seconds_since_start, error=state.outcome.exception())
        return 7

    def stop(state: RetryCallState) -> bool:
        seen["upcoming"] = state.upcoming_sleep
        return False

    error = OSError("no net")
    ask(Retry(wait=wait, stop=stop), error, attempt=4, age=100)
    assert seen == {"attempt": 4, "age": pytest.approx(100, abs=5), "error": error, "upcoming": 7}


def test_a_first_attempt_that_is_still_to_come_by_this_clock_has_taken_no_time():
    """The clock of this host may be behind that of Redis."""
    assert isinstance(ask(Retry(stop=stop_after_delay(60)), OSError(), age=-3600), FailedForNow)


# ---- results


def test_a_result_can_ask_for_another_attempt():
    policy = Retry(retry=retry_if_result(lambda value: value < 3), wait=wait_fixed(2), stop=stop_after_attempt(2))
    assert ask_result(policy, 3) is None
    outcome = ask_result(policy, 2)
    assert isinstance(outcome, FailedForNow)
    assert outcome.seconds == 2
    outcome = ask_result(policy, 2, attempt=2)
    assert isinstance(outcome, Rejected)
    assert "not content with the result" in json.loads(outcome.error)["message"]


def test_a_policy_that_fails_at_a_result_is_content_with_it(caplog):
    """The work is done, and must not be thrown away for that."""
    assert ask_result(Retry(retry=retry_if_result(lambda value: value < 3)), "text") is None
    assert "retry policy failed" in caplog.text


@pytest.mark.parametrize(
    ("retry", "looks"),
    [
        (retry_if_exception_type(OSError), False),
        (retry_if_not_exception_type(OSError), False),
        (retry_if_exception_message("x"), False),
        (retry_if_result(bool), True),
        (retry_if_result(bool) | retry_if_exception_type(OSError), True),
        (lambda _: True, True),
    ],
)
def test_only_some_policies_look_at_results(retry, looks):
    assert Retry(retry=retry).looks_at_results is looks


# ---- what ends a task whatever the policy says


@pytest.mark.parametrize("kind", [ArgumentError, PayloadTooLarge, ResultEncodeError, ResultTooLarge])
def test_what_another_attempt_cannot_change_is_the_end(kind):
    assert isinstance(ask(Retry(retry=tenacity.retry_always, stop=stop_never), kind("x")), Failed)


def test_errors_that_are_discarded():
    """They end the task as failed at once, although the policy's other parts would go on; subclasses too."""
    policy = Retry(discard_on=(LookupError,), wait=wait_none())
    assert isinstance(ask(policy, KeyError()), Failed)
    assert isinstance(ask(policy, OSError()), FailedForNow)


@pytest.mark.parametrize("policy", [None, Retry()])
def test_a_task_that_rejects_its_message_is_buried(policy):
    """With its reason, and without another attempt, whether it would retry or not."""
    outcome = ask(policy, TaskRejected("no such customer"))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "no such customer"
    assert kind_of(outcome) == "streamq.errors.TaskRejected"


# ---- a task that asks


def test_a_task_can_ask_for_another_attempt_without_a_policy():
    """The policy that Retry() makes says when to give up."""
    assert isinstance(ask(None, RetryRequested()), FailedForNow)
    outcome = ask(None, RetryRequested(), attempt=5)
    assert isinstance(outcome, Rejected)
    assert kind_of(outcome) == "streamq.errors.RetryRequested"


def test_the_countdown_of_the_wish_stands_before_the_policys():
    policy = Retry(wait=wait_fixed(100), retry=tenacity.retry_never, stop=stop_after_attempt(2))
    assert pause(policy, RetryRequested()) == 100
    assert pause(policy, RetryRequested(0)) == 0
    assert pause(policy, RetryRequested(7.5)) == 7.5
    assert pause(policy, RetryRequested(1e12)) == YEAR
    assert isinstance(ask(policy, RetryRequested(7.5), attempt=2), Rejected), "it cannot ask for more than the policy"


@pytest.mark.parametrize("chain", ["from", "context", "from none"])
def test_asked_for_inside_an_except_that_error_is_told(chain):
    """It is what callers and operators want to see in the end."""
    asked = RetryRequested(1)
    try:
        try:
            raise OSError("no net")  # noqa: TRY301 - so that it is being handled
        except OSError as error:
            if chain == "from":
                raise asked from error
            if chain == "from none":
                raise asked from None
            raise asked  # noqa: B904 - without a cause, on purpose
    except RetryRequested:
        outcome = ask(None, asked)
    assert kind_of(outcome) == "OSError"
    assert outcome.seconds == 1


def test_a_wish_is_heard_although_its_cause_would_be_discarded():
    """Who asks has seen the error, and knows better."""
    asked = RetryRequested(1)
    asked.__cause__ = KeyError("x")
    assert pause(Retry(discard_on=(KeyError,)), asked) == 1


# ---- Retry-After


def http_error(headers: object) -> OSError:
    """Make an error such as those of HTTP clients, whose response has the headers."""
    error = OSError("429")
    error.response = SimpleNamespace(headers=headers)
    return error


def with_attribute(value: object) -> OSError:
    error = OSError("429")
    error.retry_after = value
    return error


def mail_headers(value: str) -> Headers:
    headers = Headers()
    headers["Retry-After"] = value
    return headers


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (OSError("no wish"), None),
        (with_attribute(7), 7),
        (with_attribute(7.5), 7.5),
        (with_attribute("7"), 7),
        (with_attribute(timedelta(minutes=2)), 120),
        (with_attribute(timedelta(minutes=-2)), None),
        (with_attribute(True), None),  # noqa: FBT003 - any value
        (with_attribute(None), None),
        (with_attribute(-1), None),
        (with_attribute(math.nan), None),
        (with_attribute(math.inf), None),
        (with_attribute(10**400), None),
        (with_attribute(object()), None),
        (http_error({"Retry-After": "120"}), 120),
        (http_error({"retry-after": " 120 "}), 120),
        (http_error({"Retry-After": "0"}), 0),
        (http_error(mail_headers("30")), 30),
        (http_error({}), None),
        (http_error(None), None),
        (http_error("text"), None),
        (http_error({"Retry-After": "soon"}), None),
        (http_error({"Retry-After": ""}), None),
        (http_error({"Retry-After": "-5"}), None),
        (http_error({"Retry-After": "1_000"}), None),
        (http_error({"Retry-After": "inf"}), None),
        (http_error({"Retry-After": "nan"}), None),
        (http_error({"Retry-After": b"120"}), None),
        (http_error({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), 0),
        (http_error({"Retry-After": "Wed, 99 Oct 2015 07:28:00 GMT"}), None),
        (http_error({"Retry-After": "Wed, 21 Oct 99999999999999999999 07:28:00 GMT"}), None),
        (http_error({"Retry-After": "9" * 400}), None),
    ],
)
def test_a_wish_to_be_left_alone(error, seconds):
    """Of seconds, a timedelta or an HTTP date; what cannot be understood is no wish."""
    assert retry_after(error) == seconds


@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%a, %d %b %Y %H:%M:%S -0000"])
def test_a_date_to_wait_for(form):
    moment = datetime.now(UTC) + timedelta(seconds=90)
    assert retry_after(http_error({"Retry-After": moment.strftime(form)})) == pytest.approx(90, abs=3)


def test_a_date_of_another_time_zone():
    moment = datetime.now(UTC).astimezone() + timedelta(seconds=90)
    assert retry_after(http_error({"Retry-After": format_datetime(moment)})) == pytest.approx(90, abs=3)


def test_headers_of_the_error_itself():
    """As aiohttp has them."""
    error = OSError("429")
    error.headers = {"Retry-After": "9"}
    assert retry_after(error) == 9


@given(st.text())
def test_no_header_breaks_the_worker(header):
    seconds = retry_after(http_error({"Retry-After": header}))
    assert seconds is None or 0 <= seconds < math.inf


class Unreadable(OSError):
    """An error whose attributes cannot be read, as httpx has them while there is no request."""

    @property
    def response(self) -> object:
        raise RuntimeError("there is no response")

    def __str__(self) -> str:
        raise RuntimeError("there is no text")


def test_an_error_that_cannot_be_read_is_retried_like_others():
    """Its attributes and its text are made by code that may be broken; the task must have an end all the same."""
    assert pause(Retry(wait=wait_fixed(3)), Unreadable()) == 3
    assert json.loads(ask(None, Unreadable()).error)["message"] == "(the message could not be made)"


class RejectedUnreadably(TaskRejected):
    def __str__(self) -> str:
        raise RuntimeError("there is no text")


def test_a_rejection_without_a_text_is_one():
    assert isinstance(ask(None, RejectedUnreadably("x")), Rejected)


def test_a_server_is_left_alone_for_so_long_at_least():
    """A policy, or a countdown, may wait longer, but not shorter."""
    error = http_error({"Retry-After": "60"})
    assert pause(Retry(wait=wait_fixed(5)), error) == 60
    assert pause(Retry(wait=wait_fixed(100)), error) == 100
    asked = RetryRequested(1)
    asked.__cause__ = error
    assert pause(Retry(), asked) == 60


# ---- options of a task


def test_no_options_make_no_policy():
    assert make_policy(None, None, ()) is None
    assert make_policy(False, None, ()) is None  # noqa: FBT003 - as a user writes it


def test_shorthands():
    """Each says what the parts of a Retry would."""
    policy = make_policy(True, None, ())  # noqa: FBT003
    assert policy == Retry()
    policy = make_policy(3, (OSError,), (FileNotFoundError,))
    assert isinstance(ask(policy, OSError(), attempt=2), FailedForNow)
    assert isinstance(ask(policy, OSError(), attempt=3), Rejected)
    assert isinstance(ask(policy, FileNotFoundError()), Failed)
    assert isinstance(ask(policy, ValueError()), Failed)
    policy = make_policy(None, (OSError,), ())
    assert isinstance(ask(policy, OSError(), attempt=4), FailedForNow)
    assert isinstance(ask(policy, OSError(), attempt=5), Rejected)
    own = Retry(stop=stop_never)
    assert make_policy(own, None, ()) is own


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ((0, None, ()), "1 or more, not 0"),
        ((-1, None, ()), "1 or more, not -1"),
        ((2.5, None, ()), "not 2.5"),
        (("3", None, ()), "not '3'"),
        ((stop_after_attempt(3), None, ()), "must be a Retry"),
        ((None, None, (OSError,)), "need retry"),
        ((False, (OSError,), ()), "need retry"),
        ((Retry(), (OSError,), ()), "inside the Retry"),
        ((Retry(), None, (OSError,)), "inside the Retry"),
        ((3, OSError, ()), "retry_on must be a tuple"),
        ((3, (OSError("x"),), ()), "retry_on must be a tuple"),
        ((3, None, OSError), "discard_on must be a tuple"),
        ((3, None, [OSError]), "discard_on must be a tuple"),
        ((3, None, (int,)), "discard_on must be a tuple"),
    ],
)
def test_options_that_cannot_be_used(options, what):
    with pytest.raises(ConfigError, match=what):
        make_policy(*options)


async def _async(_state: RetryCallState) -> bool:
    return True


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ({"stop": 3}, "stop of a Retry must be one of tenacity's objects, not 3"),
        ({"wait": 3}, "wait of a Retry"),
        ({"retry": OSError()}, "retry of a Retry"),
        ({"retry": OSError}, "retry of a Retry must be one of tenacity's objects, not <class 'OSError'>"),
        ({"stop": stop_after_attempt}, "stop of a Retry must be one of tenacity's objects"),
        ({"retry": _async}, "must not be async"),
        ({"retry": tenacity.asyncio.retry.retry_if_result(_async)}, "must not be async"),
        ({"discard_on": OSError}, "discard_on must be a tuple"),
    ],
)
def test_parts_that_cannot_be_used(parts, what):
    """A class in the place of its object, or a coroutine, would be true whatever it means."""
    with pytest.raises(ConfigError, match=what):
        Retry(**parts)


def test_asking_is_quick():
    """It happens on the event loop."""
    began = time.perf_counter()
    for _ in range(100):
        ask(Retry(), OSError())
    assert time.perf_counter() - began < 1
