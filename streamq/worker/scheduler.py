"""Fires the schedules of some queues: each worker looks, and a script sees to it that each instant is fired once.

What the code of the workers declares they say when they start, and again each minute. A declared schedule is fired only
by workers whose code declares it, so it ends when the last of them does; a day later it is removed. One whose rule was
changed follows the worker that was started last, so that old and new workers side by side do not take turns, until no
worker has repeated that for five minutes. When a task is moved to another queue, old and new workers each fire the
schedule of theirs while they run side by side.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from streamq.broker import schedules
from streamq.broker.fleet import Fleet
from streamq.broker.schedules import DueSchedule
from streamq.errors import BrokerError, BrokerUnavailable
from streamq.message import Message
from streamq.schedule.plan import Definition, declared, plan, read_definition
from streamq.tasks import Task
from streamq.worker.outage import Outage

_log = logging.getLogger("streamq.worker")

_COUNT = 100
_LONGEST_SECONDS = 1.0  # how late what was added or resumed is seen at most
_NONE_SECONDS = 5.0  # the same, where there has been no schedule
_REPEAT_SECONDS = 60.0
_DROP_MS = 24 * 3600 * 1000


class Scheduler:
    """Looks at the schedules of some queues, and fires those that are due.

    Args:
        fleet: the way to them.
        queues: names of the queues.
        tasks: those that this worker knows; their code may declare schedules.
        started_ms: when the worker was started, Redis time, ms.
        outage: told of what Redis cannot do.
    """

    def __init__(
        self, fleet: Fleet, queues: Iterable[str], tasks: Iterable[Task[..., Any]], started_ms: int, *, outage: Outage
    ) -> None:
        self._fleet = fleet
        self._outage = outage
        self._started_ms = started_ms
        self._queues = {name: fleet.keys.queue(name) for name in queues}
        self._declared = _declared(tasks, self._queues)
        self._repeat_at = dict.fromkeys(self._declared, 0.0)
        self._told: set[str] = set()

    async def run(self) -> None:
        """Fire until cancelled."""
        while True:
            pause = _NONE_SECONDS
            for queue in self._queues:
                try:
                    await self._declare(queue)
                    next_one = await self._fire_due(queue)
                except BrokerError as error:
                    self._outage.noticed(error)
                    next_one = _LONGEST_SECONDS
                pause = min(pause, next_one)
            await asyncio.sleep(pause)

    # ---- what the code declares

    async def _declare(self, queue: str) -> None:
        mine = self._declared.get(queue)
        now = asyncio.get_running_loop().time()
        if not mine or now < self._repeat_at[queue]:
            return
        keys = self._queues[queue]
        found = await self._fleet.run(schedules.read_schedules(keys, [*mine]))
        for (name, what), stored in zip(mine.items(), found.schedules, strict=True):
            next_ms = what.rule.after(max(found.now_ms, stored.fired_ms or 0), name)
            call = schedules.define_schedule(keys, name, what.encode(), next_ms, self._started_ms)
            if await self._fleet.run(call) < 0:
                self._say_once(name, "one of this name was added at run time, and stands; remove that to have yours")
        self._repeat_at[queue] = now + _REPEAT_SECONDS * random.uniform(0.8, 1.0)  # noqa: S311 - to spread a fleet

    # ---- what is due

    async def _fire_due(self, queue: str) -> float:
        """Fire all schedules of a queue that are due; returns after how many seconds to look again."""
        passed_over, soonest_ms = 0, math.inf
        while True:
            found = await self._fleet.run(schedules.due_schedules(self._queues[queue], passed_over, _COUNT))
            looked = asyncio.get_running_loop().time()
            if found.next_ms is not None:
                soonest_ms = min(soonest_ms, found.now_ms + found.next_ms)
            for one in found.due:
                is_over, next_ms = await self._deal_with(queue, one, found.now_ms)
                passed_over += not is_over  # it may stay where it is, and must not be in the way of others
                soonest_ms = min(soonest_ms, next_ms)
            if len(found.due) < _COUNT:
                break
        if soonest_ms == math.inf and not found.due and not self._declared.get(queue):
            return _NONE_SECONDS
        longest = _LONGEST_SECONDS * random.uniform(0.8, 1.0)  # noqa: S311 - to spread a fleet
        now_ms = found.now_ms + (asyncio.get_running_loop().time() - looked) * 1000
        return min(longest, max(0.0, soonest_ms + 1 - now_ms) / 1000)

    async def _deal_with(self, queue: str, one: DueSchedule, now_ms: int) -> tuple[bool, float]:
        """Fire a schedule, all instants that are due; returns whether we did, and when it is due next, ms."""
        if one.declaration and one.name not in self._declared.get(queue, ()):
            if now_ms - one.declaration.repeated_ms < _DROP_MS:
                return False, math.inf
            call = schedules.remove_schedule(self._queues[queue], one.name, one.declaration)
            return await self._fleet.run(call), math.inf
        try:
            return await self._fire(queue, one, read_definition(one.definition), now_ms)
        except ValueError as error:
            self._say_once(one.name, f"what is stored of it cannot be used: {error}")
        except BrokerUnavailable:
            raise
        except BrokerError as error:
            self._outage.noticed(error)
        return False, math.inf

    async def _fire(self, queue: str, one: DueSchedule, definition: Definition, now_ms: int) -> tuple[bool, float]:
        is_ours = True
        while is_ours and one.due_ms <= now_ms:
            instants, next_ms = plan(one.name, definition, one.due_ms, now_ms)
            messages = [definition.message(one.name, queue, instant) for instant in instants]
            last = str(instants[-1]) if instants else ""
            is_ours = await self._put(queue, one, messages, next_ms=next_ms, last=last)
            one = one._replace(due_ms=next_ms)
        return is_ours, one.due_ms  # another who was faster has come to the same

    async def _put(self, queue: str, one: DueSchedule, messages: Sequence[Message], *, next_ms: int, last: str) -> bool:
        keys, put = self._fleet.keys, None
        while put is None or put.seen:
            call = schedules.fire(keys, self._queues[queue], one, messages, next_ms=next_ms, last=last, before=put)
            put = await self._fleet.run(call)
            if put is None:
                return False
        return True

    def _say_once(self, name: str, what: str) -> None:
        if name not in self._told:
            self._told.add(name)
            _log.warning("schedule %s is not fired by this worker: %s", name, what)


def _declared(tasks: Iterable[Task[..., Any]], queues: Mapping[str, object]) -> dict[str, dict[str, Definition]]:
    """Find the schedules that tasks of some queues declare, by queue and name."""
    found: defaultdict[str, dict[str, Definition]] = defaultdict(dict)
    for task in tasks:
        if task.options.schedule and task.queue in queues:
            message = task.s().message
            found[task.queue] |= declared(task.name, task.options.schedule, task.options.missed, message)
    return dict(found)
