"""The broker as workers see it."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from streamq._redis.connections import AsyncConnection, SyncConnection
from streamq._redis.keys import Keys, QueueKeys
from streamq.broker import calls
from streamq.broker.records import stored_error
from streamq.config import Settings
from streamq.errors import BrokerError, BrokerRefused, BrokerReset, WorkerDied
from streamq.lifecycle import Park, State, is_suspect
from streamq.message import Delivery, Malformed

_FETCH_MARGIN_SECONDS = 5.0  # how much longer than its BLOCK a read may take before the connection is given up
_RESCUE_BATCH = 100
_RETIRE_MOST = 100
# A suspect runs in a process of its own, so if the process that holds it dies or stands still, that was another's
# doing. But not for ever: it may be the fetching of it that kills.
_DEATHS_OF_OTHERS = 10
_OLDEST_REDIS = 7

T = TypeVar("T")


def name_server(info: Mapping[str, str]) -> str:
    """Name a server by what it says of itself.

    Raises:
        BrokerRefused: it is too old: the scripts need what came with Redis 7.0, which each Valkey has.
    """
    version = info.get("redis_version", "0")
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    if int(version.partition(".")[0]) < _OLDEST_REDIS:
        raise BrokerRefused(f"this is Redis {version}; streamq needs Redis 7.0 or newer, or Valkey")
    return f"Redis {version}"


class Fetched(NamedTuple):
    """What one read brought, and whether anybody listens to events."""

    deliveries: list[Delivery]
    malformed: list[Malformed]
    listening: bool


class Fleet:
    """Fetches and settles for one consumer. Reads that block have a connection of their own.

    Args:
        settings: those of the app.
        queues: names of the queues to serve, in order.
        consumer: the name under which entries are pending.
        block: seconds that a read waits for a message.

    Attributes:
        ahead_ms: by how much the server's clock is ahead of this host's, ms; known after `server`.
    """

    def __init__(self, settings: Settings, queues: Sequence[str], consumer: str, block: float) -> None:
        self.keys = Keys(settings.namespace)
        self.consumer = consumer
        self.queues = [self.keys.queue(name) for name in queues]
        self.ttl_ms = round(settings.result_ttl * 1000)
        self.ahead_ms = 0
        self._settings = settings
        self._block_ms = round(block * 1000)
        self._streams = {stream: queue.name for queue in self.queues for stream in queue.streams}
        self._fetching = AsyncConnection(settings.url, read_timeout=block + _FETCH_MARGIN_SECONDS)
        self._commands = AsyncConnection(settings.url)
        self._reader: int | None = None  # the server's id of the connection that reads

    async def server(self) -> str:
        """Return the server's name and version, such as ``Redis 7.0.15``.

        Raises:
            BrokerUnavailable: it cannot be reached.
            BrokerRefused: it is no Redis, wants another password, or is too old.
        """
        asked = time.time()
        info = await self._commands.run(calls.server_info())
        if "server_time_usec" in info:
            here = (asked + time.time()) / 2
            self.ahead_ms = round(int(info["server_time_usec"]) / 1000 - here * 1000)
        return name_server(info)

    async def prepare(self) -> None:
        """Create the streams and groups that are not there, and note the queues."""
        for stream in self._streams:
            try:
                await self._commands.run(calls.create_group(stream))
            except BrokerError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
        await self._commands.run(calls.register_queues(self.keys, [queue.name for queue in self.queues]))

    async def fetch(self, count: int) -> Fetched:
        """Wait for messages and take about `count`; never cancel this, for its reply would be lost."""
        each = max(1, count // len(self.queues))
        if self._reader is None:
            self._reader = await self._fetching.run(calls.client_id())
        try:
            found, listening = await self._fetching.run_together(
                calls.fetch(self._streams, self.consumer, each, self._block_ms), calls.listeners()
            )
        except BrokerError:
            self._reader = None  # there may be another connection next time
            raise
        deliveries = [one for one in found if type(one) is Delivery]
        malformed = [one for one in found if type(one) is Malformed] if len(deliveries) < len(found) else []
        return Fetched(deliveries, malformed, listening)

    async def keep(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Start the leases of deliveries anew; returns those that still are this consumer's."""
        kept: list[Delivery] = []
        for stream, group in _by_stream(deliveries, lambda one: one.stream).items():
            call = calls.renew(stream, self.consumer, [one.entry for one in group])
            lost = await self._commands.run(call)
            kept += [one for one in group if one.entry not in lost]
        return kept

    async def interrupt(self) -> None:
        """Have the read that is under way return at once, with nothing or with what it already has."""
        if self._reader is not None:
            await self._commands.run(calls.unblock(self._reader))

    async def commit(self, settlements: Iterable[calls.Settlement]) -> list[Delivery]:
        """Commit outcomes; returns the deliveries whose outcome was refused because they are another's by now."""
        refused = []
        for stream, group in _by_stream(settlements, lambda one: one.delivery.stream).items():
            queue = self.keys.queue(group[0].delivery.message.queue)
            call = calls.finish(queue, stream, group, done=self.keys.done, worker=self.consumer, ttl_ms=self.ttl_ms)
            refused += [group[position].delivery for position in await self._commands.run(call)]
        return refused

    async def bury(self, what: Delivery | Malformed, reason: str, error: bytes) -> bool:
        """Move one entry to the dead letters; False if it is another's by now."""
        queue = self.keys.queue(what.message.queue if isinstance(what, Delivery) else what.queue)
        call = calls.bury(queue, what, reason, error, done=self.keys.done, worker=self.consumer, ttl_ms=self.ttl_ms)
        return await self._commands.run(call)

    async def park(self, parked: Iterable[tuple[Delivery, Park]]) -> list[Delivery]:
        """Put deliveries back for later; returns those that are another's by now."""
        refused: list[Delivery] = []
        for stream, group in _by_stream(parked, lambda one: one[0].stream).items():
            queue = self.keys.queue(group[0][0].message.queue)
            positions = await self._commands.run(calls.park(queue, stream, group, worker=self.consumer))
            refused += [group[position][0] for position in positions]
        return refused

    async def give_back(self, deliveries: Iterable[Delivery], *, died: str = "") -> calls.GivenBack:
        """Give deliveries of this consumer back to the fleet; `died`: how the process died that ran them."""
        return await self._give_back(_owner(self._settings, self.consumer, died), deliveries)

    async def reclaim(self, deliveries: Iterable[Delivery], *, died: str) -> calls.GivenBack:
        """Give back what was claimed from another consumer, of which is known only that it gives no sign of life."""
        given = buried = 0
        for owner, group in _blamed(_owner(self._settings, self.consumer, died), self._settings, deliveries):
            found = await self._give_back(owner, group)
            given, buried = given + found.given, buried + found.buried
        return calls.GivenBack(given, buried)

    async def _give_back(self, owner: calls.Owner, deliveries: Iterable[Delivery]) -> calls.GivenBack:
        given = buried = 0
        for stream, group in _by_stream(deliveries, lambda one: one.stream).items():
            queue = self.keys.queue(group[0].message.queue)
            call = calls.give_back(queue, stream, owner, group, done=self.keys.done, ttl_ms=self.ttl_ms)
            found = await self._commands.run(call)
            given, buried = given + found.given, buried + found.buried
        return calls.GivenBack(given, buried)

    async def claim(self, stream: str, lease_ms: int, cursor: bytes, count: int) -> calls.Claimed:
        """Take over entries of `stream` that nobody has renewed for a lease."""
        queue = self.keys.queue(self._streams[stream])
        return await self._commands.run(
            calls.claim(queue, stream, self.consumer, lease_ms=lease_ms, cursor=cursor, count=count)
        )

    async def promote(self, queue: str, limit: int) -> calls.Due:
        """Move delayed tasks whose time has come to their stream; returns what was due."""
        keys = self.keys.queue(queue)
        found = await self._commands.run(calls.due(keys, limit))
        if found.task_ids:
            await self._commands.run(calls.promote(keys, found.task_ids))
        return found

    async def state(self, delivery: Delivery) -> State:
        """Look up where the task of a delivery is in its life."""
        message = delivery.message
        record = await self._commands.run(calls.look(self.keys.queue(message.queue), message.id))
        return record.state

    async def announce(self, events: Iterable[tuple[str, bytes]]) -> None:
        """Publish events."""
        await self._commands.run(calls.announce(events))

    @property
    def streams(self) -> list[str]:
        """The keys of all streams that are read."""
        return list(self._streams)

    async def retire(self) -> None:
        """Remove this consumer from the groups where it has nothing pending."""
        for stream in self._streams:
            await self._commands.run(calls.retire(stream, self.consumer))

    async def retire_idle(self, stream: str, idle_ms: int) -> int:
        """Remove consumers of others that have nothing pending and have asked for nothing for so long."""
        found = await self._commands.run(calls.consumers(stream))
        idle = [one.name for one in found if not one.pending and one.idle_ms > idle_ms and one.name != self.consumer]
        return sum([await self._commands.run(calls.retire(stream, name)) for name in idle[:_RETIRE_MOST]])

    async def close(self) -> None:
        """Close the connections."""
        await self._fetching.close()
        await self._commands.close()


def _by_stream(items: Iterable[T], stream: Callable[[T], str]) -> dict[str, list[T]]:
    groups: defaultdict[str, list[T]] = defaultdict(list)
    for item in items:
        groups[stream(item)].append(item)
    return groups


def _owner(settings: Settings, consumer: str, died: str) -> calls.Owner:
    most = settings.max_deaths
    message = f"the worker died under it {most} times (max_deaths), at last {consumer}: {died}"
    return calls.Owner(consumer, died, most, stored_error(WorkerDied, message))


def _blamed(
    owner: calls.Owner, settings: Settings, deliveries: Iterable[Delivery]
) -> list[tuple[calls.Owner, list[Delivery]]]:
    """Divide what a process held that has died, or seems to have, by how many deaths are too many."""
    by_suspicion: dict[bool, list[Delivery]] = {False: [], True: []}
    for one in deliveries:
        by_suspicion[is_suspect(one.deaths, settings.max_deaths)].append(one)
    lenient = owner._replace(max_deaths=owner.max_deaths + _DEATHS_OF_OTHERS)
    return [(lenient if suspect else owner, group) for suspect, group in by_suspicion.items() if group]


class Renewals:
    """Renews leases, from a thread and over a connection of its own."""

    def __init__(self, settings: Settings, consumer: str, read_timeout: float) -> None:
        self._consumer = consumer
        self._connection = SyncConnection(settings.url, read_timeout=read_timeout)

    def renew(self, stream: str, entries: Sequence[bytes]) -> list[bytes]:
        """Start the lease of entries anew; returns those that belong to another by now."""
        return self._connection.run(calls.renew(stream, self._consumer, entries))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def rescue(settings: Settings, queues: Sequence[str], consumer: str, died: str) -> calls.GivenBack:
    """Give back all that is pending under a dead consumer, and remove it.

    Args:
        settings: those of the app.
        queues: the names of those that it served.
        consumer: the name under which it read.
        died: how it died, such as ``signal SIGKILL``.

    Raises:
        BrokerError: Redis cannot be asked; the lease brings them back.
    """
    keys, given, buried = Keys(settings.namespace), 0, 0
    connection = SyncConnection(settings.url)
    owner = _owner(settings, consumer, died)
    try:
        for queue in map(keys.queue, queues):
            for stream in queue.streams:
                with contextlib.suppress(BrokerReset):  # the stream is gone, and with it all that was pending there
                    while moved := _rescue_some(connection, settings, queue, stream, owner):
                        given, buried = given + moved.given, buried + moved.buried
                    connection.run(calls.retire(stream, consumer))
    finally:
        connection.close()
    return calls.GivenBack(given, buried)


def _rescue_some(
    connection: SyncConnection, settings: Settings, queue: QueueKeys, stream: str, owner: calls.Owner
) -> calls.GivenBack | None:
    """Give back some hundred entries; None if there are no more."""
    held = connection.run(calls.held_by(queue, stream, owner.consumer, _RESCUE_BATCH))
    # What cannot be read stays pending: the next reclaim buries it.
    good = [one for one in held if isinstance(one, Delivery)]
    done, ttl_ms = Keys(settings.namespace).done, round(settings.result_ttl * 1000)
    given = buried = 0
    for by, group in _blamed(owner, settings, good):
        moved = connection.run(calls.give_back(queue, stream, by, group, done=done, ttl_ms=ttl_ms))
        given, buried = given + moved.given, buried + moved.buried
    return calls.GivenBack(given, buried) if given or buried else None
