"""`app.schedules`: what is called by itself, and when. Workers fire it; here it is looked at and changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

from streamq._redis.keys import QueueKeys
from streamq.broker import calls, schedules
from streamq.broker.caller import Broker
from streamq.broker.producer import new_task_id
from streamq.broker.schedules import StoredSchedule
from streamq.broker.walking import Steps, acomplete, complete
from streamq.errors import ConfigError
from streamq.message import Message
from streamq.results import AsyncResult
from streamq.schedule.plan import (
    Definition,
    Missed,
    check_call,
    check_missed,
    check_rule,
    check_schedule_name,
    read_definition,
)
from streamq.schedule.rules import Rule
from streamq.workflows.signature import Signature

_PAGE = 250  # schedules that are read in one step


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule at one moment.

    Attributes:
        name: its name.
        queue: where it enqueues.
        task: the registered name of the task.
        rule: when it is due; None: a newer version has stored it in a form that this one cannot read.
        missed: what becomes of instants at which no worker was there.
        next_at: when it is due next, in the time zone of its rule; None: it is paused.
        last_at: the last instant that was fired; None: none was.
        declared: it is declared in code, by ``@task(schedule=...)``.
    """

    name: str
    queue: str
    task: str
    rule: Rule | None
    missed: Missed
    next_at: datetime | None
    last_at: datetime | None
    declared: bool

    @property
    def paused(self) -> bool:
        """It is not fired until somebody resumes it."""
        return self.next_at is None


class Schedules:
    """The schedules of an app, those that its code declares and those that were added at run time."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def add(self, name: str, signature: Signature[Any], when: Rule, *, missed: Missed = "one") -> Schedule:
        """Have a call be enqueued again and again, until it is removed.

        Added again it is what is said last, from now on; if that is nothing new, nothing changes. One that is paused
        stays so. Workers see the first schedule of a queue within 5 seconds, others within one.

        Args:
            name: for looking after it; part of the ids of its tasks, which are ``schedule:NAME:2026-11-23T10:00:00Z``.
            signature: the call: ``task.s(...)``, or ``task.using(...).s(...)`` to choose its queue.
            when: a rule, made by ``cron(...)`` or ``every(...)``.
            missed: what becomes of instants at which no worker of the queue was there, when one is there again:
                ``one`` call makes up for all of them, for the last instant; ``skip``: the same, but only if that
                instant was less than a minute ago; ``all``: each is made up for, oldest first.

        Returns:
            The schedule as it is now.

        Raises:
            ConfigError: a name, rule or policy that cannot be used; a call that has an id or a time; or the name
                is taken, by a schedule that is declared in code or that is in another queue.
            BrokerError: Redis cannot be asked; adding it again is safe.
        """
        return complete(
            self._broker.sync, self._add(check_schedule_name(name), signature, check_rule(when), check_missed(missed))
        )

    async def aadd(self, name: str, signature: Signature[Any], when: Rule, *, missed: Missed = "one") -> Schedule:
        """Have a call be enqueued again and again, as `add` does."""
        return await acomplete(
            self._broker.on_loop,
            self._add(check_schedule_name(name), signature, check_rule(when), check_missed(missed)),
        )

    def list(self) -> tuple[Schedule, ...]:
        """Read all schedules, by queue and name."""
        return complete(self._broker.sync, self._list())

    async def alist(self) -> tuple[Schedule, ...]:
        """Read all schedules, as `list` does."""
        return await acomplete(self._broker.on_loop, self._list())

    def get(self, name: str) -> Schedule | None:
        """Find a schedule by its name; None if there is none."""
        return complete(self._broker.sync, self._get(name))

    async def aget(self, name: str) -> Schedule | None:
        """Find a schedule by its name, as `get` does."""
        return await acomplete(self._broker.on_loop, self._get(name))

    def pause(self, name: str) -> bool:
        """Have a schedule not be fired until it is resumed, also if it is declared in code and workers start anew.

        Returns:
            False if it is paused already.

        Raises:
            ConfigError: there is no such schedule.
        """
        return complete(self._broker.sync, self._pause(name))

    async def apause(self, name: str) -> bool:
        """Have a schedule not be fired until it is resumed, as `pause` does."""
        return await acomplete(self._broker.on_loop, self._pause(name))

    def resume(self, name: str) -> bool:
        """Have a paused schedule be fired again; what was due meanwhile was not missed, and is not made up for.

        Returns:
            False if it is not paused.

        Raises:
            ConfigError: there is no such schedule, or this version cannot read it.
        """
        return complete(self._broker.sync, self._resume(name))

    async def aresume(self, name: str) -> bool:
        """Have a paused schedule be fired again, as `resume` does."""
        return await acomplete(self._broker.on_loop, self._resume(name))

    def remove(self, name: str) -> bool:
        """Remove a schedule. What it has enqueued stays.

        Returns:
            False if there is none of this name.

        Raises:
            ConfigError: running workers declare it in their code, and would have it back within a minute.
        """
        return complete(self._broker.sync, self._remove(name))

    async def aremove(self, name: str) -> bool:
        """Remove a schedule, as `remove` does."""
        return await acomplete(self._broker.on_loop, self._remove(name))

    def run_now(self, name: str) -> AsyncResult[Any]:
        """Enqueue the call of a schedule here and now; when it is due next is not changed by that.

        Raises:
            ConfigError: there is no such schedule, or this version cannot read it.
            BrokerError: as for an enqueue.
        """
        message = complete(self._broker.sync, self._call_of(name))
        return self._result(message, self._broker.enqueue(message))

    async def arun_now(self, name: str) -> AsyncResult[Any]:
        """Enqueue the call of a schedule here and now, as `run_now` does."""
        message = await acomplete(self._broker.on_loop, self._call_of(name))
        return self._result(message, await self._broker.aenqueue(message))

    def _result(self, message: Message, there: str | None) -> AsyncResult[Any]:
        result: AsyncResult[Any] = AsyncResult(message.id, message.queue, self._broker)
        return result if there is None else result.of_another(there, is_chosen=False)

    # ---- what is asked of Redis, and how; the answers come from whoever sends it

    def _add(self, name: str, signature: Signature[Any], when: Rule, missed: Missed) -> Steps[Schedule]:
        signature.check_single()
        call, keys = check_call(signature.message, name), self._broker.keys
        queue = keys.queue(call.queue)
        definition = Definition(call.task, when, missed, call.args, call.options, call.terms)
        found = yield from self._find(name)
        if found is not None and found[0].name != queue.name:
            raise ConfigError(f"there is a schedule {name} in the queue {found[0].name}: remove it before")
        now_ms, stored = yield from _read(queue, name)
        yield calls.register_queues(keys, [queue.name])
        next_ms = when.after(max(now_ms, stored.fired_ms or 0), name)
        done = yield schedules.define_schedule(queue, name, definition.encode(), next_ms)
        if done < 0:
            raise ConfigError(f"the schedule {name} is declared in code, and is changed there")
        _, stored = yield from _read(queue, name)
        return _schedule(queue, name, stored)

    def _list(self) -> Steps[tuple[Schedule, ...]]:
        keys = self._broker.keys
        every: tuple[Schedule, ...] = ()
        for queue in map(keys.queue, (yield calls.queue_names(keys))):
            names = yield schedules.schedule_names(queue)
            for first in range(0, len(names), _PAGE):
                page = names[first : first + _PAGE]
                _, found = yield schedules.read_schedules(queue, page)
                every += tuple(_schedule(queue, *one) for one in zip(page, found, strict=True) if one[1].definition)
        return every

    def _get(self, name: str) -> Steps[Schedule | None]:
        found = yield from self._find(name)
        return None if found is None else _schedule(found[0], name, found[2])

    def _find(self, name: str) -> Steps[tuple[QueueKeys, int, StoredSchedule] | None]:
        """Look through all known queues; gives also Redis time."""
        keys = self._broker.keys
        for queue in map(keys.queue, (yield calls.queue_names(keys))):
            now_ms, stored = yield from _read(queue, name)
            if stored.definition:
                return queue, now_ms, stored
        return None

    def _there(self, name: str) -> Steps[tuple[QueueKeys, int, StoredSchedule]]:
        found = yield from self._find(name)
        if found is None:
            raise ConfigError(f"there is no schedule {name!r}")
        return found

    def _pause(self, name: str) -> Steps[bool]:
        queue, _, _ = yield from self._there(name)
        done: bool = yield schedules.pause_schedule(queue, name)
        return done

    def _resume(self, name: str) -> Steps[bool]:
        queue, now_ms, stored = yield from self._there(name)
        next_ms = _readable(name, stored).rule.after(max(now_ms, stored.fired_ms or 0), name)
        done: bool = yield schedules.resume_schedule(queue, name, next_ms)
        return done

    def _remove(self, name: str) -> Steps[bool]:
        found = yield from self._find(name)
        if found is None:
            return False
        queue, now_ms, stored = found
        by = stored.declaration
        if by and now_ms - by.repeated_ms < schedules.STALE_MS:
            raise ConfigError(f"the schedule {name} is declared in code that is running: remove it there, or pause it")
        done: bool = yield schedules.remove_schedule(queue, name, by)
        return done

    def _call_of(self, name: str) -> Steps[Message]:
        queue, _, stored = yield from self._there(name)
        what = _readable(name, stored)
        return Message(new_task_id(), what.task, queue.name, what.args, 0, what.options, what.terms)


def _read(queue: QueueKeys, name: str) -> Steps[tuple[int, StoredSchedule]]:
    now_ms, [stored] = yield schedules.read_schedules(queue, [name])
    return now_ms, stored


def _readable(name: str, stored: StoredSchedule) -> Definition:
    try:
        return read_definition(stored.definition)
    except ValueError as error:
        raise ConfigError(f"what is stored of the schedule {name} cannot be read: {error}") from None


def _schedule(queue: QueueKeys, name: str, stored: StoredSchedule) -> Schedule:
    try:
        what: Definition | None = read_definition(stored.definition)
    except ValueError:
        what = None
    zone = what.rule.zone if what else UTC
    return Schedule(
        name=name,
        queue=queue.name,
        task=what.task if what else "",
        rule=what.rule if what else None,
        missed=what.missed if what else "one",
        next_at=_time(stored.next_ms, zone),
        last_at=_time(stored.fired_ms, zone),
        declared=stored.declaration is not None,
    )


def _time(ms: int | None, zone: tzinfo) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, zone)
