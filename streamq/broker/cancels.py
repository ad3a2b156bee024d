"""The calls that cancel tasks, one or all that fit, in bounded steps. Pure: nothing is sent here."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

from streamq._redis.keys import GROUP, Keys, QueueKeys
from streamq._redis.scripts import Call, Word, load
from streamq.broker import calls, reads
from streamq.broker.records import stored_error
from streamq.broker.walking import Steps
from streamq.errors import TaskCancelled
from streamq.lifecycle import State

_CANCEL = load("cancel")
_SURVEY = load("survey")
_BRIEF = load("brief")

_OUTSIDE = {State.DELAYED.encode(), State.HELD.encode()}
ERROR = stored_error(TaskCancelled, "it was cancelled")


class Place(NamedTuple):
    """A task, and what its record calls the stream where its message is; the empty string also if it is in none."""

    task_id: str
    stream: str = ""


class Seen(NamedTuple):
    """One message that may be meant: its task's id and name, and when it was first enqueued, Redis time in ms."""

    task_id: str
    task: str
    enqueued_ms: int


def cancel(
    queue: QueueKeys, places: Sequence[Place], *, done: str, ttl_ms: int, running: bool = True
) -> Call[list[bool | str]]:
    """Cancel tasks; without `running` not those that workers have.

    Returns for each whether it is cancelled; or what its record calls the stream, if that is another one.
    """
    keys = [queue.delayed, queue.outbox]
    args: list[Word] = [GROUP, queue.events, queue.name, done, queue.signals, ttl_ms, ERROR]
    args.append("running" if running else "waiting")
    for task_id, stream in places:
        keys += (queue.record(task_id), queue.stream(stream))
        args += (task_id, stream)
    keys.append(queue.log or keys[0])

    def read(reply: list[int | bytes]) -> list[bool | str]:
        return [one == 1 if isinstance(one, int) else one.decode() for one in reply]

    return Call(("EVALSHA", _CANCEL.digest, len(keys), *keys, *args), read, _CANCEL)


def survey(stream: str, first: bytes, last: bytes) -> Call[list[tuple[bytes, Seen]]]:
    """Read which tasks the entries from `first` to `last` are of, a bounded number; none if there are no more."""

    def read(reply: list[list[bytes]]) -> list[tuple[bytes, Seen]]:
        return [
            (entry, Seen(task_id.decode("ascii", "replace"), task.decode("utf-8", "replace"), _number(at)))
            for entry, task_id, task, at in reply
        ]

    words = ("EVALSHA", _SURVEY.digest, 1, stream, first, last, reads.PAGE, reads.PAGE_BYTES)
    return Call(words, read, _SURVEY)


def brief(queue: QueueKeys, task_ids: Sequence[str]) -> Call[list[Seen]]:
    """Read what is known of tasks that wait outside the streams; those that do so no longer are left out."""

    def read(reply: list[list[bytes]]) -> list[Seen]:
        return [
            Seen(task_id, task.decode("utf-8", "replace"), _number(at))
            for task_id, (state, task, at) in zip(task_ids, reply, strict=True)
            if state in _OUTSIDE
        ]

    return Call(("EVALSHA", _BRIEF.digest, len(task_ids), *map(queue.record, task_ids)), read, _BRIEF)


def scan(ids: str, cursor: bytes) -> Call[tuple[bytes, list[str]]]:
    """Read some ids of a sorted set, and where to go on; who is there all the time is found, perhaps twice."""

    def read(reply: list[Any]) -> tuple[bytes, list[str]]:
        return reply[0], [one.decode() for one in reply[1][::2]]

    return Call(("ZSCAN", ids, cursor, "COUNT", reads.PAGE), read)


def _number(text: bytes) -> int:
    return int(text) if text.isdigit() else 0


Deal = Callable[[QueueKeys, Sequence[Place]], Generator[Call[Any], Any, int]]


class Canceller:
    """Cancels some tasks of a queue; those whose messages go from stream to stream meanwhile are run after."""

    def __init__(self, done: str, ttl_ms: int, *, running: bool) -> None:
        self._done = done
        self._ttl_ms = ttl_ms
        self._running = running

    def __call__(self, queue: QueueKeys, places: Sequence[Place]) -> Generator[Call[Any], Any, int]:
        """Return how many are cancelled."""
        return len((yield from self.cancel(queue, places)))

    def cancel(self, queue: QueueKeys, places: Sequence[Place]) -> Generator[Call[Any], Any, list[str]]:
        """Return the ids of those that are cancelled."""
        cancelled: list[str] = []
        while places:
            found = yield cancel(queue, places, done=self._done, ttl_ms=self._ttl_ms, running=self._running)
            pairs = [*zip(places, found, strict=True)]
            cancelled += [one.task_id for one, now in pairs if now is True]
            places = [Place(one.task_id, now) for one, now in pairs if isinstance(now, str)]
        return cancelled


def count(_queue: QueueKeys, places: Sequence[Place]) -> Generator[Call[Any], Any, int]:
    """Return how many there are, and leave them alone."""
    yield from ()
    return len(places)


def cancel_one(keys: Keys, queue: str, task_id: str, ttl_ms: int) -> Steps[bool]:
    """Cancel one task, wherever its message is by then; returns whether it is cancelled."""
    deal, found, place = Canceller(keys.done, ttl_ms, running=True), 0, keys.queue(queue)
    while not (found := (yield from deal(place, [Place(task_id)]))):
        target = (yield calls.look(place, task_id)).moved_to
        if target is None:
            break
        place = keys.queue(target)
    return found == 1


def walk(
    keys: Keys,
    names: Sequence[str] | None,
    fits: Callable[[Seen, int], bool],
    deal: Deal,
    on_progress: Callable[[int], object] | None = None,
) -> Steps[int]:
    """Go through what waits in some queues, or in all, and deal with what fits, given Redis time in ms.

    Returns how many were dealt with; `on_progress` is called with how many are so far, after each step.

    Messages go from outside to the streams, and from there to that of the returned ones, so that those which do
    meanwhile are met again. What is enqueued from now on is left alone.
    """
    now_ms = yield reads.now()
    total = 0

    def meant(seen: Seen) -> bool:
        return seen.enqueued_ms <= now_ms and fits(seen, now_ms)

    def settle(queue: QueueKeys, places: Sequence[Place]) -> Steps[None]:
        nonlocal total
        total += yield from deal(queue, places)
        if on_progress:
            on_progress(total)

    for queue in map(keys.queue, (yield calls.queue_names(keys)) if names is None else names):
        yield from _outside(queue, queue.delayed, meant, settle)
        for member in (yield from _all(queue.rooms)):
            yield from _outside(queue, queue.room(member)[-1], meant, settle)
        for name, stream in queue.named_streams:
            first, last = b"-", (yield reads.newest(stream)) or b"-"
            while found := (yield survey(stream, first, last)):
                first = b"(" + found[-1][0]
                yield from settle(queue, [Place(one.task_id, name) for _, one in found if one.task_id and meant(one)])
    return total


def _outside(
    queue: QueueKeys,
    waiting: str,
    meant: Callable[[Seen], bool],
    settle: Callable[[QueueKeys, Sequence[Place]], Steps[None]],
) -> Steps[None]:
    """Deal with tasks whose ids are in a sorted set, and whose messages in their records."""
    cursor = b"0"
    while True:
        cursor, ids = yield scan(waiting, cursor)
        for start in range(0, len(ids), reads.PAGE):
            seen = yield brief(queue, ids[start : start + reads.PAGE])
            yield from settle(queue, [Place(one.task_id) for one in seen if meant(one)])
        if cursor == b"0":
            return


def _all(ids: str) -> Generator[Call[Any], Any, list[str]]:
    """Read a sorted set that is not large, in steps."""
    found: dict[str, None] = {}
    cursor = b"0"
    while True:
        cursor, some = yield scan(ids, cursor)
        found.update(dict.fromkeys(some))
        if cursor == b"0":
            return list(found)
