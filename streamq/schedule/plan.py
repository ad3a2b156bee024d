"""What is stored of a schedule, and what of its due instants is fired. Pure; the time is given."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, cast, get_args

from streamq.errors import ConfigError
from streamq.message import Lock, Message, Terms
from streamq.schedule.rules import Cron, Every, Rule, read_rule
from streamq.sending import read_steering

Missed = Literal["skip", "one", "all"]

LATE_MS = 60_000  # an instant that was missed for longer is past, for those who want to skip it
_MOST = 250  # messages in one script; more would hold up other clients for over a millisecond
_MOST_BYTES = 1024 * 1024  # of their arguments; at least one goes anyhow

# It becomes part of ids of tasks, and it has to be told from the other parts.
_NAME = re.compile(r"[!-9;-~]{1,128}")


@dataclass(frozen=True)
class Definition:
    """What a schedule is, apart from its name and its queue.

    Attributes:
        task: the registered name of the task.
        rule: when it is due.
        missed: what becomes of instants at which no worker could fire it.
        args: the arguments of each call, as `codec` encodes them.
        options: what else workers are to heed, as `sending` encodes it.
        terms: on which terms each call is enqueued.
    """

    task: str
    rule: Rule
    missed: Missed
    args: bytes
    options: bytes = b""
    terms: Terms | None = None

    def encode(self) -> bytes:
        """Give the form in which it is stored: the same for what is the same, so that changes show."""
        said: dict[str, Any] = {
            "task": self.task,
            "rule": self.rule.to_dict(),
            "missed": self.missed,
            "args": self.args.decode(),
            "options": self.options.decode(),
        }
        if self.terms:
            said["terms"] = self.terms._asdict() | {"lock": self.terms.lock and self.terms.lock._asdict()}
        return json.dumps(said, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()

    def message(self, name: str, queue: str, instant_ms: int) -> Message:
        """Make the message of one instant: whoever makes it, the id is the same.

        Raises:
            ValueError: the stored options cannot be read.
        """
        options = replace(read_steering(self.options), scheduled_ms=instant_ms).encode()
        return Message(message_id(name, instant_ms), self.task, queue, self.args, 0, options, self.terms)


def read_definition(stored: bytes) -> Definition:
    """Read what is stored of a schedule.

    Raises:
        ValueError: it cannot be read: a newer version has written it, or somebody by hand.
    """
    said: Any = json.loads(stored)
    match said:
        case {"task": str(task), "rule": rule, "missed": "skip" | "one" | "all", "args": str(args), **more}:
            options = str(more.get("options", ""))
            terms = _read_terms(more.get("terms"))
            return Definition(task, read_rule(rule), said["missed"], args.encode(), options.encode(), terms)
    raise ValueError(f"no schedule: {said!r}")


def _read_terms(stored: Any) -> Terms | None:
    if stored is None:
        return None
    try:
        return Terms(**stored)._replace(lock=Lock(**stored["lock"]) if stored["lock"] else None)
    except (LookupError, TypeError) as error:
        raise ValueError(f"no terms: {stored!r}") from error


def check_call(call: Message, name: str) -> Message:
    """Return `call` if a schedule can enqueue it.

    Raises:
        ConfigError: it says itself when it is to be enqueued, or under which id.
    """
    if call.id or call.delay_ms:
        raise ConfigError(
            f"schedule {name}: its call can have no task_id, countdown, eta or debounce: id and time come from the rule"
        )
    return call


def declared(task: str, rules: Sequence[Rule], missed: Missed, call: Message) -> dict[str, Definition]:
    """Name the schedules that the code of a task declares: the first as the task, the others with a number.

    Raises:
        ConfigError: the task's name cannot be that of a schedule, or the call cannot be that of one.
    """
    check_call(call, task)
    names = [task if number == 1 else f"{task}#{number}" for number in range(1, len(rules) + 1)]
    return {
        check_schedule_name(name): Definition(task, rule, missed, call.args, call.options, call.terms)
        for name, rule in zip(names, rules, strict=True)
    }


def message_id(name: str, instant_ms: int) -> str:
    """Make the id of the task that an instant of a schedule becomes: the time is UTC, with ms if there are any."""
    seconds, ms = divmod(instant_ms, 1000)
    time = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"schedule:{name}:{time}.{ms:03}Z" if ms else f"schedule:{name}:{time}Z"


class Plan(NamedTuple):
    """What to fire, instants in ms, and when the schedule is due next."""

    instants: list[int]
    next_ms: int


def plan(name: str, definition: Definition, due_ms: int, now_ms: int) -> Plan:
    """Say what is to be fired of a schedule that is due.

    Normally that is the instant that has just come. If there are more of them, because no worker looked for a while,
    ``all`` fires each, oldest first, some hundred at a time; ``one`` only the last; ``skip`` the last as well, but only
    if that is no more than a minute ago.

    Args:
        name: of the schedule.
        definition: what it is.
        due_ms: its oldest instant that has not been dealt with.
        now_ms: Redis time, not before that.
    """
    rule, missed = definition.rule, definition.missed
    if missed == "all":
        instants = [due_ms]
        most = max(1, min(_MOST, _MOST_BYTES // max(1, len(definition.args))))
        while (after := rule.after(instants[-1], name)) <= now_ms and len(instants) < most:
            instants.append(after)
        return Plan(instants, after)
    after = rule.after(due_ms, name)
    last = due_ms if after > now_ms else _last(rule, name, after, now_ms)
    is_past = missed == "skip" and now_ms - last > LATE_MS
    return Plan([] if is_past else [last], rule.after(last, name))


def _last(rule: Rule, name: str, due_ms: int, now_ms: int) -> int:
    """Find the last instant up to now; there may have been millions since `due_ms`, which is one."""
    before = bisect_left(range(due_ms, now_ms), 1, key=lambda ms: rule.after(ms, name) > now_ms)
    return due_ms if before == 0 else rule.after(due_ms + before - 1, name)


def check_rule(rule: object) -> Rule:
    """Return `rule` if it is one.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(rule, (Cron, Every)):
        raise ConfigError(f"a schedule is made by cron(...) or every(...), and {rule!r} is not")
    return rule


def check_schedule(schedule: Rule | Iterable[Rule] | None) -> tuple[Rule, ...]:
    """Return the rules that were given, be it none, one, or several.

    Raises:
        ConfigError: there is something else among them, or one of them twice.
    """
    if schedule is None:
        return ()
    several = isinstance(schedule, Iterable) and not isinstance(schedule, str)
    given = cast("Iterable[Rule]", schedule if several else (schedule,))
    rules = tuple(map(check_rule, given))
    if len(set(rules)) < len(rules):
        raise ConfigError(f"a rule is twice in a schedule: {', '.join(map(str, rules))}")
    return rules


def check_missed(missed: str) -> Missed:
    """Return `missed` if there is such a policy.

    Raises:
        ConfigError: it is none of ``skip``, ``one`` and ``all``.
    """
    if missed not in get_args(Missed):
        raise ConfigError(f"missed must be one of {', '.join(get_args(Missed))}, not {missed!r}")
    return cast("Missed", missed)


def check_schedule_name(name: str) -> str:
    """Return `name` if a schedule can have it.

    Raises:
        ConfigError: it cannot be part of a task's id.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"schedule name {name!r} cannot be used: 1 to 128 printable ASCII characters without spaces and ':'"
        )
    return name
