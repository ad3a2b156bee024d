"""The events of one task, up to its end; that is believed from its record, for what is told can get lost."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Generator
from typing import Any

from streamq._redis.hub import Kind
from streamq.broker.caller import Broker
from streamq.broker.moving import look_there
from streamq.broker.reads import find_record
from streamq.broker.records import UNKNOWN, Record
from streamq.channels.buffer import Counts, Missing
from streamq.channels.listener import LiveListener, Pause, Reader, Steps
from streamq.channels.readers import Complaints
from streamq.errors import BrokerUnavailable, ResultTimeout
from streamq.events.event import Event
from streamq.events.kinds import class_of, moment_of, read_event
from streamq.events.wanted import Wanted
from streamq.lifecycle import State

_BUFFER = 1000
_LOOK_AGAIN_SECONDS = 1.0  # a lost end costs at most so much

_ENDS = {f"task.{state}" for state in State if state.ended}


class _TaskReader(Reader[Event]):
    """Reads the events of one task.

    Attributes:
        is_sure: nothing was missed since this was set.
    """

    def __init__(self, task_id: str) -> None:
        self._id = task_id
        self._complaints = Complaints("event")
        self.is_sure = False

    def read(self, channel: bytes, data: bytes, counts: Counts) -> list[Event]:
        """Make an event, if it is of the task."""
        try:
            event = read_event(data)
        except ValueError as error:
            self._complaints.skip(channel.decode("utf-8", "backslashreplace"), str(error), counts)
            return []
        return [event] if event.id == self._id else []

    def missing(self, _gap: Missing) -> list[Event]:
        """Have the record looked at."""
        self.is_sure = False
        return []


class TaskListener(LiveListener[Event]):
    """Hears what happens to one task, and comes to the end with it.

    Each step of a loop may raise:
        UnknownTaskId: there is no record of the task.
        ResultTimeout: nothing new came for `timeout` seconds.
        BrokerError: to begin with: Redis cannot be asked; later: it refuses.

    Args:
        broker: where the task is.
        task_id: its id.
        queue: where it was enqueued; None if that has to be found out.
        failure: makes the error of a task that is not known.
        timeout: seconds to wait for something new; None waits for as long as it takes.
    """

    def __init__(
        self,
        broker: Broker,
        task_id: str,
        queue: str | None,
        failure: Callable[[Record], BaseException | None],
        *,
        timeout: float | None,
    ) -> None:
        self._of_one = _TaskReader(task_id)
        self._keys = broker.keys
        topics = [(Kind.PATTERN, ""), (Kind.CHANNEL, broker.keys.beacon)]  # the pattern follows from the record
        super().__init__(
            broker, topics, self._of_one, buffer=_BUFFER, when_full="drop_oldest", needle=needle_of(task_id)
        )
        self._id = task_id
        self._queue = queue
        self._failure = failure
        self._timeout = timeout
        self._looked_at = 0.0
        self._is_over = False

    def _opening(self) -> Steps[Event]:
        if self._stop is None and not self._is_over:
            record = yield from self._look()
            if record.state.ended:
                self._end(record)
            else:
                [pattern] = Wanted(("task",), (record.task,)).patterns(self._keys)
                self._topics[0] = (Kind.PATTERN, pattern)
                yield from super()._opening()
        return []

    def _next(self) -> Steps[Event]:
        yield from self._opening()
        if self._is_over:
            return [] if self._ready else None
        return None if self._is_closed else (yield from self._more())

    def _more(self) -> Steps[Event]:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while not self._is_closed:
            if len(self._buffer) or self._buffer.failure is not None:
                found = yield from super()._more()
                if found:
                    return self._up_to_the_end(found)
                continue
            now = time.monotonic()
            if not self._of_one.is_sure or now >= self._looked_at + _LOOK_AGAIN_SECONDS:
                self._of_one.is_sure = True
                if (record := (yield from self._look_again())) is not None and record.state.ended:
                    heard = self._up_to_the_end((yield from super()._more()) or []) if len(self._buffer) else []
                    if not self._is_over:
                        self._end(record)
                    return heard
                continue
            if deadline is not None and now >= deadline:
                raise ResultTimeout(f"nothing new came from task {self._id} for {self._timeout:g} s")
            self._signal.clear()
            if not len(self._buffer) and not self._is_closed:
                yield Pause(min(self._looked_at + _LOOK_AGAIN_SECONDS, deadline or float("inf")) - now)
        return None

    def _up_to_the_end(self, events: list[Event]) -> list[Event]:
        for number, event in enumerate(events, 1):
            if event.type in _ENDS:
                self._is_over = True
                self.close()
                return events[:number]
        return events

    def _end(self, record: Record) -> None:
        """Give the last event, which was not heard."""
        self._ready.append(event_of(record, self._id, self._queue))
        self._is_over = True
        self.close()

    def _look(self) -> Generator[Any, Any, Record]:
        self._looked_at = time.monotonic()
        record: Record = UNKNOWN
        if self._queue is None:
            self._queue, record = yield from find_record(self._keys, self._id)
        else:
            record = yield from look_there(self._keys, self._queue, self._id)
        if record.state is State.UNKNOWN and (error := self._failure(record)) is not None:
            raise error
        return record

    def _look_again(self) -> Generator[Any, Any, Record | None]:
        try:
            return (yield from self._look())
        except BrokerUnavailable:
            return None


def event_of(record: Record, task_id: str, queue: str | None) -> Event:
    """Make the event of the end of a task from its record."""
    details: dict[str, Any] = {}
    if record.state in {State.FAILED, State.DEAD}:
        stored = json.loads(record.body)
        details = {"error": stored["type"]} if record.state is State.FAILED else {"reason": stored["message"]}
    if record.state is State.DEAD and record.deaths:
        details["deaths"] = record.deaths
    kind = f"task.{record.state}"
    ended = moment_of(time.time() * 1000 if record.ended_ms is None else record.ended_ms)
    return class_of(kind)(kind, ended, queue=queue, task=record.task, id=task_id, details=details)


def needle_of(task_id: str) -> bytes:
    """Return the longest part of an id that stands as it is in each event of its task: some JSON escapes slashes."""
    plain: list[str] = re.findall(r'[^"\\/]*', task_id)
    longest = max(plain, key=len)
    return (f'"{task_id}"' if longest == task_id else longest).encode()
