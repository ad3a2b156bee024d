"""Makes an outcome of what a task returned or raised; in the worker's own process and in those of its pool."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any, cast

from streamq.codec import encode_error, encode_result, text_of
from streamq.context import running
from streamq.errors import (
    FlowError,
    ResultTooLarge,
    RetryRequested,
    StreamqError,
    TaskRejected,
    TaskReplaced,
    TaskTimeout,
)
from streamq.lifecycle import Became, FailedForNow, Outcome, Rejected, Succeeded, Unroutable
from streamq.message import VERSION, Delivery
from streamq.nodes import Drawing, Policy, split_id
from streamq.retry import after_error, after_result
from streamq.sending import SendOptions, part_of, read_steering
from streamq.tasks import Task
from streamq.worker.clock import now_ms
from streamq.workflows.canvas import Step, check_step
from streamq.workflows.group import Group, group

_log = logging.getLogger("streamq.task")
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep  # noqa: PTH120 - as frames have it


def succeeded(task: Task[..., Any], delivery: Delivery, value: Any, max_result: int) -> Outcome:
    """Make the outcome of a run that returned `value`; a signature is to be run in its place.

    Raises:
        FlowError: it returned a graph that cannot be run.
        ResultEncodeError: it is no JSON.
        ResultTooLarge: it has more than `max_result` bytes.
    """
    if isinstance(value, Step):
        return Became(_drawn(task, delivery, value))
    policy = task.options.retry
    if policy is not None and policy.looks_at_results:
        outcome = after_result(policy, value, encode_error, delivery, now_ms())
        if outcome is not None:
            _tell(delivery, None, outcome)
            return outcome
    result = encode_result(value)
    if len(result) > max_result:
        raise ResultTooLarge(f"the result has {len(result)} bytes, over the limit of {max_result} (max_result)")
    if delivery.message.options and (added := _additions(delivery)) is not None:
        return Became(_drawn(task, delivery, added), result)
    return Succeeded(result)


def _additions(delivery: Delivery) -> Group[Any] | None:
    """Collect what the run that has just ended adds to the group of its task."""
    part, lease = part_of(delivery.message), running.get()[2]
    if part is None or part.group is None or lease is None or not lease.additions:
        return None
    members = [one for step in lease.additions for one in (step.members if isinstance(step, Group) else (step,))]
    return group(members, on_error=cast("Policy", part.group))


def _drawn(task: Task[..., Any], delivery: Delivery, step: Step[Any, Any]) -> Drawing:
    """Draw a graph that is to be run in place of a task; what was said of the task holds for it too."""
    message = delivery.message
    steering, part = read_steering(message.options), part_of(message)
    inherited: SendOptions = {}
    if steering.level is not None:
        inherited["priority"] = steering.level
    if (expires_ms := steering.expires_at(delivery.enqueued_ms)) != math.inf:
        inherited["expires"] = datetime.fromtimestamp(expires_ms / 1000, UTC)
    if steering.headers:
        inherited["headers"] = steering.headers
    root = message.id if part is None else part.root or split_id(message.id)[0]
    graph = step.to_graph(root, inherited, flow_id=message.id, home=message.queue)
    if graph.broker is not task.broker:
        raise FlowError(f"{task.name}() gave a graph with tasks of another app")
    chunks = tuple(graph.chunks(now_ms))
    return Drawing(chunks, graph.label, graph.out, graph.size, tuple(graph.roots))


def failed(task: Task[..., Any], delivery: Delivery, error: BaseException) -> Outcome:
    """Make the outcome of a run that raised `error`, and log it."""
    if isinstance(error, TaskReplaced):
        try:
            return Became(_drawn(task, delivery, check_step(error.step, "replace()")))
        except StreamqError as wrong:
            error = wrong
    _leave_users_frames(error)
    outcome = after_error(task.options.retry, error, encode_error, delivery, now_ms())
    expected = isinstance(error, (*task.options.raises, RetryRequested, TaskRejected))
    if task.options.retry is not None:
        expected = expected or isinstance(error, task.options.retry.discard_on)
    _tell(delivery, error, outcome, expected=expected)
    return outcome


def _tell(delivery: Delivery, error: BaseException | None, outcome: Outcome, *, expected: bool = True) -> None:
    """Log what follows from a failure; with the traceback if that is the end, and nobody has expected it."""
    what = f"{type(error).__name__}: {text_of(error)}" if error else "its result asks for another attempt"
    match outcome:
        case FailedForNow(_, seconds):
            level, end, expected = logging.WARNING, f"; attempt {delivery.attempt + 1} in {seconds:.3g} s", True
        case Rejected(_, reason):
            level, end = logging.ERROR, "; to the dead letters" + ("" if reason == str(error) else f": {reason}")
        case _:
            level, end = logging.INFO if expected else logging.ERROR, ""
    _log.log(
        level, "%s failed: %s%s", delivery.message.task, what, end, exc_info=None if expected or not error else error
    )


def unroutable(delivery: Delivery) -> Unroutable:
    """Make the outcome of a message that the process it has come to cannot run."""
    reason, detail = "unknown task", f"no task is registered under the name {delivery.message.task!r}"
    if delivery.version > VERSION:
        reason = "newer message version"
        detail = f"the message has version {delivery.version}, this worker knows {VERSION}"
    return Unroutable(encode_error(StreamqError(detail), with_traceback=False), reason)


def timed_out(seconds: float, *, hard: bool = False) -> TaskTimeout:
    """Make the error of a run that took longer than `seconds`."""
    return TaskTimeout(f"ran longer than its {'hard_timeout' if hard else 'timeout'} of {seconds:g} s")


async def within(seconds: float | None, coroutine: Awaitable[Any]) -> Any:
    """Await the user's code, and raise `TaskTimeout` in it when the time is up."""
    try:
        async with asyncio.timeout(seconds) as limit:
            return await coroutine
    except TimeoutError as error:
        if seconds is not None and limit.expired():
            raise timed_out(seconds) from error
        raise


def _leave_users_frames(error: BaseException | None) -> None:
    """Take our own frames off the top of an error's traceback, and of those of its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE):
            trace = trace.tb_next
        error.__traceback__ = trace
        error = error.__cause__ or error.__context__
