"""The broker as workers see it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from streamq._redis.connections import AsyncConnection
from streamq._redis.keys import Keys
from streamq._redis.scripts import Call
from streamq.broker import calls, flowing, flows, moving, server
from streamq.broker.blame import blamed, owner_of
from streamq.broker.courier import Courier
from streamq.broker.order import Order
from streamq.broker.rooms import Rooms
from streamq.broker.walking import acomplete
from streamq.config import Settings, WorkerSettings
from streamq.errors import BrokerError, BrokerReset
from streamq.lifecycle import Park, State
from streamq.message import Delivery, Malformed
from streamq.sending import part_of

_FETCH_MARGIN_SECONDS = 5.0  # how much longer than its BLOCK a read may take before the connection is given up
_RETIRE_MOST = 100

T = TypeVar("T")
K = TypeVar("K")


class Fetched(NamedTuple):
    """What one read brought, and whether events are kept or anybody listens to them."""

    deliveries: list[Delivery]
    malformed: list[Malformed]
    listening: bool


class Committed(NamedTuple):
    """What came of a commit.

    Attributes:
        refused: deliveries whose outcome was refused because they are another's by now.
        more: what there is to do for flows.
    """

    refused: list[Delivery]
    more: list[flowing.Work]


class Fleet:
    """Fetches and settles for one consumer. Reads that block have a connection of their own.

    Args:
        settings: those of the app.
        worker: those of the worker: the names of the queues to serve, in order, and weights.
        consumer: the name under which entries are pending.
        block: seconds that a read waits for a message.

    Attributes:
        rooms: where tasks wait for their turn.
        courier: goes on with flows.
        ahead_ms: by how much the server's clock is ahead of this host's, ms; known after `server`.
    """

    def __init__(self, settings: Settings, worker: WorkerSettings, consumer: str, block: float) -> None:
        self.keys = Keys(settings.namespace, durable_events=settings.durable_events)
        self.consumer = consumer
        self.queues = [self.keys.queue(name) for name in worker.queues]
        self.ttl_ms = round(settings.result_ttl * 1000)
        self.ahead_ms = 0
        self._settings = settings
        self._block_ms = round(block * 1000)
        self._order = Order(self.queues, worker.queue_weights, worker.level_weights)
        self._is_idle = False  # there was nothing to read a moment ago
        self._interrupted = asyncio.Event()
        self._fetching = AsyncConnection(settings.url, read_timeout=block + _FETCH_MARGIN_SECONDS)
        self._commands = AsyncConnection(settings.url)
        self.rooms = Rooms(self._commands, self.keys)
        self.courier = Courier(self._commands, self.keys, self.ttl_ms)
        self._reader: int | None = None  # the server's id of the connection that reads

    async def server(self) -> str:
        """Return the server's name and version, such as ``Redis 7.0.15``.

        Raises:
            BrokerUnavailable: it cannot be reached.
            BrokerRefused: it is no Redis, wants another password, or is too old.
        """
        asked = time.time()
        info = await self._commands.run(server.server_info())
        if "server_time_usec" in info:
            here = (asked + time.time()) / 2
            self.ahead_ms = round(int(info["server_time_usec"]) / 1000 - here * 1000)
        return server.name_server(info)

    async def prepare(self) -> None:
        """Create the streams and groups that are not there, note the queues, and look at them."""
        for queue in self.queues:
            with contextlib.suppress(BrokerReset):  # the delayed set is none; the promoter says so
                self._learn(queue.name, await self._commands.run(calls.due(queue, 0)))
        for stream in self._order.streams:
            try:
                await self._commands.run(calls.create_group(stream))
            except BrokerError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
        await self._commands.run(calls.register_queues(self.keys, [queue.name for queue in self.queues]))

    async def fetch(self, count: int) -> Fetched:
        """Wait for messages and take about `count`; never cancel this, for its reply would be lost."""
        self._interrupted.clear()
        groups = self._order.groups()
        if not groups:  # all queues are paused
            await self._rest()
            return Fetched([], [], listening=False)
        if len(groups) > 1 and not self._is_idle:
            found = await self._fetch_in_turn(groups, count)
            if found.deliveries or found.malformed or self._interrupted.is_set():
                return found
        # If all streams were empty a moment ago, what comes first is read first.
        every = {stream: queue for group in groups for stream, queue in group.items()}
        found = await self._read(every, max(1, count // len(groups)), self._block_ms)
        self._is_idle = not (found.deliveries or found.malformed)
        return found

    async def _fetch_in_turn(self, groups: Sequence[dict[str, str]], count: int) -> Fetched:
        """Take what there is of the first streams, then of the next while there is room."""
        found = Fetched([], [], listening=False)
        for group in groups:
            try:
                more = await self._read(group, count - len(found.deliveries), 0)
            except BrokerError:
                if found.deliveries or found.malformed:  # nobody else has these; the next read says what is wrong
                    break
                raise
            found = Fetched(found.deliveries + more.deliveries, found.malformed + more.malformed, more.listening)
            if len(found.deliveries) >= count:
                break
        return found

    async def _read(self, streams: dict[str, str], each: int, block_ms: int) -> Fetched:
        if self._reader is None:
            self._reader = await self._fetching.run(server.client_id())
        try:
            found, listening = await self._fetching.run_together(
                calls.fetch(streams, self.consumer, each, block_ms), server.listeners(self.keys.beacon)
            )
        except BrokerError:
            self._reader = None  # there may be another connection next time
            raise
        deliveries = [one for one in found if type(one) is Delivery]
        malformed = [one for one in found if type(one) is Malformed] if len(deliveries) < len(found) else []
        return Fetched(deliveries, malformed, listening or self._settings.durable_events)

    async def _rest(self) -> None:
        """Wait, as long as a read would, for a queue that is not paused."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._block_ms / 1000):
                await self._interrupted.wait()

    async def keep(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Start the leases of deliveries anew; returns those that still are this consumer's."""
        kept: list[Delivery] = []
        for stream, group in _grouped(deliveries, lambda one: one.stream).items():
            call = calls.renew(stream, self.consumer, [one.entry for one in group])
            lost = await self._commands.run(call)
            kept += [one for one in group if one.entry not in lost]
        return kept

    async def interrupt(self) -> None:
        """Have the read that is under way return at once, with nothing or with what it already has."""
        self._interrupted.set()
        if self._reader is not None:
            await self._commands.run(server.unblock(self._reader))

    async def commit(self, settlements: Iterable[calls.Settlement]) -> Committed:
        """Commit outcomes, and have what follows in flows begin."""
        refused: list[Delivery] = []
        more: list[flowing.Work] = []
        for (stream, is_of_flow), group in _grouped(settlements, _place).items():
            queue = self.keys.queue(group[0].delivery.message.queue)
            if is_of_flow:
                home = flows.Home(queue, self.keys.done, self.ttl_ms)
                found = await self._commands.run(flows.finish(home, stream, group, worker=self.consumer))
                more += [(queue.name, member) for member in found.more]
                refused += [group[position].delivery for position in found.refused]
                continue
            call = calls.finish(queue, stream, group, done=self.keys.done, worker=self.consumer, ttl_ms=self.ttl_ms)
            refused += [group[position].delivery for position in await self._commands.run(call)]
        return Committed(refused, more)

    async def bury(self, what: Delivery | Malformed, reason: str, error: bytes) -> bool:
        """Move one entry to the dead letters; False if it is another's by now."""
        queue = self.keys.queue(what.message.queue if isinstance(what, Delivery) else what.queue)
        call = calls.bury(queue, what, reason, error, done=self.keys.done, worker=self.consumer, ttl_ms=self.ttl_ms)
        return await self._commands.run(call)

    async def park(self, parked: Iterable[tuple[Delivery, Park]]) -> list[Delivery]:
        """Put deliveries back for later; returns those that are another's by now."""
        refused: list[Delivery] = []
        for stream, group in _grouped(parked, lambda one: one[0].stream).items():
            queue = self.keys.queue(group[0][0].message.queue)
            positions = await self._commands.run(calls.park(queue, stream, group, worker=self.consumer))
            refused += [group[position][0] for position in positions]
        return refused

    async def give_back(self, deliveries: Iterable[Delivery], *, died: str = "") -> calls.GivenBack:
        """Give deliveries of this consumer back to the fleet; `died`: how the process died that ran them."""
        return await self._give_back(owner_of(self._settings, self.consumer, died), deliveries)

    async def reclaim(self, deliveries: Iterable[Delivery], *, died: str) -> calls.GivenBack:
        """Give back what was claimed from another consumer, of which is known only that it gives no sign of life."""
        given = buried = 0
        for owner, group in blamed(owner_of(self._settings, self.consumer, died), self._settings, deliveries):
            found = await self._give_back(owner, group)
            given, buried = given + found.given, buried + found.buried
        return calls.GivenBack(given, buried)

    async def _give_back(self, owner: calls.Owner, deliveries: Iterable[Delivery]) -> calls.GivenBack:
        given = buried = 0
        for stream, group in _grouped(deliveries, lambda one: one.stream).items():
            queue = self.keys.queue(group[0].message.queue)
            call = calls.give_back(queue, stream, owner, group, done=self.keys.done, ttl_ms=self.ttl_ms)
            found = await self._commands.run(call)
            given, buried = given + found.given, buried + found.buried
        return calls.GivenBack(given, buried)

    async def claim(self, stream: str, lease_ms: int, cursor: bytes, count: int) -> calls.Claimed:
        """Take over entries of `stream` that nobody has renewed for a lease."""
        queue = self.keys.queue(self._order.streams[stream])
        return await self._commands.run(
            calls.claim(queue, stream, self.consumer, lease_ms=lease_ms, cursor=cursor, count=count)
        )

    async def promote(self, queue: str, limit: int) -> calls.Due:
        """Move delayed tasks whose time has come to their streams, and learn which there are; returns what was due."""
        keys = self.keys.queue(queue)
        found = await self._commands.run(calls.due(keys, limit))
        if self._learn(queue, found):
            await self.interrupt()  # what is read now are other streams
        if found.task_ids:
            await self._commands.run(calls.promote(keys, found.task_ids))
        return found

    async def state(self, delivery: Delivery) -> State:
        """Look up where the task of a delivery is in its life."""
        message = delivery.message
        record = await self._commands.run(calls.look(self.keys.queue(message.queue), message.id))
        return record.state

    async def carry(self, queue: str) -> None:
        """Go on with a move of messages to another queue that may have been interrupted."""
        await acomplete(self._commands, moving.carry(self.keys, self.keys.queue(queue)))

    def _learn(self, queue: str, found: calls.Due) -> bool:
        is_news = self._order.learn(queue, found.levels, paused=found.paused)
        if is_news:
            self._is_idle = False
        return is_news

    async def run(self, call: Call[T]) -> T:
        """Send a call of those that need nothing of this consumer's."""
        return await self._commands.run(call)

    async def run_each(self, some: Sequence[Call[T]]) -> list[T | BrokerError]:
        """Send such calls in one round trip; each has its own answer, or error."""
        return await self._commands.run_each(some)

    async def announce(self, events: Iterable[tuple[str | None, str, bytes]]) -> None:
        """Publish events, given as log, channel and text, and keep those that have a log."""
        for log, group in _grouped(events, lambda one: one[0]).items():
            await self._commands.run(calls.announce(log, [(channel, text) for _, channel, text in group]))

    @property
    def streams(self) -> list[str]:
        """The keys of all streams that are read."""
        return list(self._order.streams)

    async def retire(self) -> None:
        """Remove this consumer from the groups where it has nothing pending."""
        for stream in self._order.streams:
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


def _place(settlement: calls.Settlement) -> tuple[str, bool]:
    """Say in which call an outcome is committed."""
    delivery = settlement.delivery
    return delivery.stream, bool(delivery.message.options) and part_of(delivery.message) is not None


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: defaultdict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups
