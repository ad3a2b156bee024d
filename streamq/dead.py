"""Dead letters: messages that could not be run, kept with the reason until somebody redrives or purges them."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from streamq._redis.keys import QueueKeys
from streamq._redis.scripts import Call
from streamq.broker import calls, letters, reads
from streamq.broker.caller import Broker
from streamq.broker.producer import new_task_id
from streamq.broker.walking import afollow, follow
from streamq.checks import is_whole
from streamq.choosing import checked_time, compiled, moment_ms
from streamq.config import check_name, check_task_id
from streamq.errors import ConfigError
from streamq.inspector import DeadLetter, dead_letter


@dataclass(frozen=True, slots=True)
class Redriven:
    """What became of the letters that were to be redriven.

    Attributes:
        redriven: they are on their queues again.
        conflicts: their id is meanwhile that of a task that is not dead; they stay where they are.
        unreadable: they are no messages; they stay where they are.
        gone: another was faster, or they were moved by a call whose reply was lost.
    """

    redriven: int = 0
    conflicts: int = 0
    unreadable: int = 0
    gone: int = 0

    @property
    def total(self) -> int:
        """How many were looked at."""
        return self.redriven + self.conflicts + self.unreadable + self.gone


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which letters are meant; None: all."""

    queues: tuple[str, ...] | None = None
    task: re.Pattern[str] | None = None
    reason: re.Pattern[str] | None = None
    ids: frozenset[str] | None = None
    older_than: float | datetime | None = None
    newer_than: float | datetime | None = None
    limit: int | None = None

    def fits(self, letter: DeadLetter) -> bool:
        """Tell whether a letter from the right queue and time is meant."""
        return (
            (self.ids is None or letter.letter_id in self.ids or letter.task_id in self.ids)
            and (self.task is None or self.task.fullmatch(letter.task) is not None)
            and (self.reason is None or self.reason.search(letter.reason) is not None)
        )


# A walk through the letters gives calls, which are answered, and pages of letters that have been dealt with.
_Walk = Generator[Call[Any] | list[DeadLetter], Any, None]
_Deal = Callable[[QueueKeys, list[DeadLetter]], Generator[Call[Any], Any, None]]


class DeadLetters:
    """The dead letters of an app, or those of them that `where` has chosen, oldest first, queue by queue.

    Iterate over it, with ``for`` or ``async for``, to look at them; they are read in pages of at most 100. Every method
    that talks to Redis has a sync form and an ``a`` form, and raises `BrokerError` if Redis does not do what is asked:
    what was done until then stays done, and the rest can be done by asking again.
    """

    def __init__(self, broker: Broker, choice: _Choice | None = None) -> None:
        self._broker = broker
        self._choice = choice or _Choice()

    def where(
        self,
        *,
        queue: str | Iterable[str] | None = None,
        task: str | None = None,
        reason: str | None = None,
        ids: str | Iterable[str] | None = None,
        older_than: float | datetime | None = None,
        newer_than: float | datetime | None = None,
        limit: int | None = None,
    ) -> DeadLetters:
        """Choose letters that fit all that is given. What is not given stays as it was chosen before.

        Args:
            queue: the name of their queue, or several names.
            task: their task's name; ``*`` stands for any text, ``?`` for any character.
            reason: a part of their reason; may hold ``*`` and ``?`` too.
            ids: ids of tasks or letters. A task that died again has several letters.
            older_than: died at least so many seconds ago, or not after this time.
            newer_than: died at most so many seconds ago, or not before this time.
            limit: the first so many of them.

        Raises:
            ConfigError: one of them cannot be used.
        """
        given: dict[str, Any] = {}
        if queue is not None:
            names = [queue] if isinstance(queue, str) else queue
            given["queues"] = tuple(dict.fromkeys(check_name("queue", name) for name in names))
        if ids is not None:
            given["ids"] = frozenset(map(check_task_id, [ids] if isinstance(ids, str) else ids))
        for name, pattern in (("task", task), ("reason", reason)):
            if pattern is not None:
                given[name] = compiled(name, pattern)
        for name, time in (("older_than", older_than), ("newer_than", newer_than)):
            if time is not None:
                given[name] = checked_time(name, time)
        if limit is not None:
            if not is_whole(limit) or limit < 1:
                raise ConfigError(f"limit must be a whole number of 1 or more, not {limit!r}")
            given["limit"] = limit
        return DeadLetters(self._broker, replace(self._choice, **given))

    def __iter__(self) -> Iterator[DeadLetter]:
        for page in follow(self._broker.sync, self._walk(_look)):
            yield from page

    async def __aiter__(self) -> AsyncIterator[DeadLetter]:
        async for page in afollow(self._broker.on_loop, self._walk(_look)):
            for letter in page:
                yield letter

    def get(self, one_id: str) -> DeadLetter | None:
        """Find a letter by its own id or, the oldest, by that of its task; None if there is none."""
        return next(iter(self.where(ids=one_id, limit=1)), None)

    async def aget(self, one_id: str) -> DeadLetter | None:
        """Find a letter by its own id or by that of its task, as `get` does."""
        found = [letter async for letter in self.where(ids=one_id, limit=1)]
        return found[0] if found else None

    def redrive(
        self, *, reset: bool = False, new_ids: bool = False, on_progress: Callable[[int], None] | None = None
    ) -> Redriven:
        """Put the letters back on their queues, to be run as soon as a worker is free.

        A task keeps its id, and those who ask for its result wait again. Whoever still runs it from before can no
        longer commit. Letters that arrive meanwhile are left alone.

        Args:
            reset: begin to count attempts and deaths anew. Otherwise a task that has used up its attempts has one,
                and one under which too many workers died may have none die under it.
            new_ids: make new tasks of them, with ids and counts of their own; also of those whose id is in conflict.
            on_progress: called with the number of letters dealt with, after each page.

        Returns:
            What became of how many.

        Raises:
            BrokerOutOfMemory: Redis is full. The letters that are left stay where they are.
        """
        work = _Redrive(reset, new_ids)
        for _ in follow(self._broker.sync, self._walk(work)):
            if on_progress:
                on_progress(work.counts.total)
        return work.counts

    async def aredrive(
        self, *, reset: bool = False, new_ids: bool = False, on_progress: Callable[[int], None] | None = None
    ) -> Redriven:
        """Put the letters back on their queues, as `redrive` does."""
        work = _Redrive(reset, new_ids)
        async for _ in afollow(self._broker.on_loop, self._walk(work)):
            if on_progress:
                on_progress(work.counts.total)
        return work.counts

    def purge(self, *, on_progress: Callable[[int], None] | None = None) -> int:
        """Delete the letters for good; the records of their tasks expire by themselves.

        Args:
            on_progress: called with the number of deleted letters, after each page.

        Returns:
            How many were deleted.
        """
        work = _Purge()
        for _ in follow(self._broker.sync, self._walk(work)):
            if on_progress:
                on_progress(work.count)
        return work.count

    async def apurge(self, *, on_progress: Callable[[int], None] | None = None) -> int:
        """Delete the letters for good, as `purge` does."""
        work = _Purge()
        async for _ in afollow(self._broker.on_loop, self._walk(work)):
            if on_progress:
                on_progress(work.count)
        return work.count

    # ---- how they are found; what is done with them is said by `deal`

    def _walk(self, deal: _Deal) -> _Walk:
        keys, choice = self._broker.keys, self._choice
        left = math.inf if choice.limit is None else choice.limit
        now_ms = yield reads.now()
        names = (yield calls.queue_names(keys)) if choice.queues is None else choice.queues
        for queue in map(keys.queue, names):
            if left <= 0:
                return
            # Letters that arrive from now on are left alone: one that is redriven may be back before the end.
            last = yield reads.newest(queue.dead)
            if last is None:
                continue
            if choice.older_than is not None:
                last = min(last, b"%d" % moment_ms(choice.older_than, now_ms), key=_order)
            first = b"-" if choice.newer_than is None else b"%d" % moment_ms(choice.newer_than, now_ms)
            while left > 0 and (found := (yield letters.letters(queue, first, last))):
                first = b"(" + found[-1].entry
                page = [letter for letter in (dead_letter(queue.name, one) for one in found) if choice.fits(letter)]
                page = page if len(page) <= left else page[: int(left)]
                left -= len(page)
                yield from deal(queue, page)
                yield page


def _look(_queue: QueueKeys, _page: list[DeadLetter]) -> Generator[Call[Any], Any, None]:
    """Do nothing with a page."""
    yield from ()


class _Redrive:
    """Moves pages of letters to their queues, and counts."""

    def __init__(self, reset: bool, new_ids: bool) -> None:  # noqa: FBT001 - one caller, which names them
        self._reset = reset
        self._new_ids = new_ids
        self.counts = Redriven()

    def __call__(self, queue: QueueKeys, page: list[DeadLetter]) -> Generator[Call[Any], Any, None]:
        chosen = [
            (letter.entry, new_task_id() if self._new_ids else letter.task_id)
            for letter in page
            if letter.unreadable is None and letter.task_id
        ]
        if not page:
            return
        done = (yield letters.redrive(queue, chosen, reset=self._reset)) if chosen else letters.Redriven(0, 0)
        counts = self.counts
        self.counts = Redriven(
            redriven=counts.redriven + done.moved,
            conflicts=counts.conflicts + done.conflicts,
            unreadable=counts.unreadable + len(page) - len(chosen),
            gone=counts.gone + len(chosen) - done.moved - done.conflicts,
        )


class _Purge:
    """Deletes pages of letters, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, queue: QueueKeys, page: list[DeadLetter]) -> Generator[Call[Any], Any, None]:
        if page:
            self.count += yield letters.purge(queue, [letter.entry for letter in page])


def _order(entry: bytes) -> tuple[int, float]:
    ms, _, number = entry.partition(b"-")
    return int(ms), int(number) if number else math.inf
