"""``app.events``: the events of tasks and workers, to be listened to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, overload

from streamq._redis.hub import Kind
from streamq._redis.keys import Keys
from streamq.broker.reach import Reach
from streamq.channels.buffer import WhenFull
from streamq.channels.gaps import Gap
from streamq.channels.listener import Listener, LiveListener
from streamq.events.event import Event
from streamq.events.reading import EventReader, Since, check_since
from streamq.events.wanted import Wanted

BUFFER = 10_000  # events

Words = str | type[Event] | Iterable[str | type[Event]]
"""What types, tasks or queues are chosen by: one word, or some."""


def words_of(some: Words) -> tuple[str, ...]:
    """Make words of what was given; those of a class of events are its type."""
    each = (some,) if isinstance(some, str | type) else tuple(some)
    return tuple(one if isinstance(one, str) else one.TYPE for one in each)


def topics_of(keys: Keys, wanted: Wanted) -> list[tuple[Kind, str]]:
    """Return what to subscribe. Scripts see by the beacon that somebody listens."""
    return [*((Kind.PATTERN, pattern) for pattern in wanted.patterns(keys)), (Kind.CHANNEL, keys.beacon)]


class Events:
    """The events of tasks and workers.

    Args:
        reach: the server where the tasks are, whose scripts tell what happens.
        keys: of the namespace.
    """

    def __init__(self, reach: Reach, keys: Keys) -> None:
        self._reach = reach
        self._keys = keys

    @overload
    def listen(
        self,
        *,
        types: Words = ...,
        tasks: Words = ...,
        queues: Words = ...,
        since: Since | None = ...,
        gaps: Literal[True] = ...,
        buffer: int = ...,
        when_full: WhenFull = ...,
    ) -> Listener[Event | Gap]: ...
    @overload
    def listen(
        self,
        *,
        types: Words = ...,
        tasks: Words = ...,
        queues: Words = ...,
        since: Since | None = ...,
        gaps: Literal[False],
        buffer: int = ...,
        when_full: WhenFull = ...,
    ) -> Listener[Event]: ...
    def listen(
        self,
        *,
        types: Words = (),
        tasks: Words = (),
        queues: Words = (),
        since: Since | None = None,
        gaps: bool = True,
        buffer: int = BUFFER,
        when_full: WhenFull = "drop_oldest",
    ) -> Listener[Any]:
        """Hear what happens: ``async for event in app.events.listen()``, or ``for`` in a thread.

        It listens from the first event on that is asked for, or from ``async with`` (``with``) on. If the connection
        is lost, it comes back by itself. Where the app keeps its events (``durable_events``), those that were missed
        meanwhile, or dropped, are read from the logs. Pub/Sub knows no database numbers: events of all databases of the
        server are heard, so apps that share a server should have namespaces of their own.

        Args:
            types: such as ``task.failed``, ``failed``, ``worker.*``, or `events.TaskFailed`; one, or some. They,
                `tasks` and `queues` may hold ``*`` and ``?``.
            tasks: names of tasks; events of workers are left out.
            queues: names of queues; events of workers are left out.
            since: begin with what happened in the last so many seconds, or this span, or since this time, by the clock
                of Redis; as far as events are kept.
            gaps: give a `Gap` where events are missing; False: they are only logged.
            buffer: so many may wait in this process to be read.
            when_full: what becomes of one more, as in `Channel.listen`.

        Raises:
            ConfigError: one of them cannot be used, or nothing can match them.
            BrokerError: when it begins: the server cannot be reached, or refuses.
        """
        wanted = Wanted(words_of(types), words_of(tasks), words_of(queues))
        start = None if since is None else check_since(since)
        reader = EventReader(self._keys, wanted, start, gaps=gaps, buffer=buffer)
        topics = topics_of(self._keys, wanted)
        return LiveListener(self._reach, topics, reader, buffer=buffer, when_full=when_full)
