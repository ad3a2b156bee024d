"""The broker as those see it who enqueue tasks."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from streamq._redis.connections import AsyncConnection, SyncConnection
from streamq._redis.keys import Keys
from streamq._redis.scripts import Call
from streamq._redis.subscriptions import Doorbell
from streamq._redis.urls import read_url
from streamq.broker import bulk, calls, flowing, flows
from streamq.broker.batch import Put, clarified, enqueue_all, have_terms
from streamq.broker.durability import confirmation, require
from streamq.broker.flows import Home
from streamq.broker.reach import Reach
from streamq.broker.walking import Steps, acomplete, complete
from streamq.config import DEFAULT_LEVEL, Durability, Settings, check_durability
from streamq.errors import BrokerError, BrokerReset, NotDurable
from streamq.message import Message
from streamq.nodes import Stored
from streamq.sending import level_of

T = TypeVar("T")


def new_task_id() -> str:
    """Make a UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix time in ms, then 74 random bits."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class Producer(Reach):
    """Enqueues messages; every method has a sync form and an ``a`` form.

    Raises:
        ConfigError: the URL cannot be used; it is that of a cluster, for example.
    """

    sync: SyncConnection
    on_loop: AsyncConnection

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = Keys(settings.namespace, durable_events=settings.durable_events)
        read_url(settings.url)  # refuses a cluster
        super().__init__(settings.url)

    def _forget_connections(self) -> None:
        super()._forget_connections()
        self._doorbell: Doorbell | None = None
        self._can_confirm: set[Durability] = set()

    @property
    def doorbell(self) -> Doorbell:
        """What wakes the waiting results of this process."""
        hub = self.hub
        with self._lock:
            if self._doorbell is None:
                self._doorbell = Doorbell(hub, self.keys.done + secrets.token_hex(8))
            return self._doorbell

    @property
    def client_id(self) -> str:
        """The last part of this process's channel."""
        return self.doorbell.channel.removeprefix(self.keys.done)

    def enqueue(self, message: Message, durability: Durability | None = None) -> str | None:
        """Put one message on its queue: one script, one round trip.

        Returns:
            None if it was put; else the id of the task that is there in its place: the message's own if it was known,
            or that of the task that has its lock.
        """
        if message.terms is not None or (durability or self.settings.durability) != "async":
            return self.enqueue_many((message,), durability).get(0)
        level = level_of(message.options) if message.options else DEFAULT_LEVEL
        found = self.sync.run(calls.enqueue(self.keys.queue(message.queue), (message,), level))
        if found.to_note:
            self.sync.run(calls.register_queues(self.keys, [message.queue]))
        return message.id if found.known else None

    async def aenqueue(self, message: Message, durability: Durability | None = None) -> str | None:
        """Put one message on its queue, as `enqueue` does."""
        if message.terms is not None or (durability or self.settings.durability) != "async":
            return (await self.aenqueue_many((message,), durability)).get(0)
        level = level_of(message.options) if message.options else DEFAULT_LEVEL
        found = await self.on_loop.run(calls.enqueue(self.keys.queue(message.queue), (message,), level))
        if found.to_note:
            await self.on_loop.run(calls.register_queues(self.keys, [message.queue]))
        return message.id if found.known else None

    def enqueue_many(self, messages: Sequence[Message], durability: Durability | None = None) -> dict[int, str]:
        """Put messages on their queues, some hundred to a script, in the order given for each queue and level.

        Returns:
            By position, for those that were not put: the id of the task that is there in their place.

        Raises:
            BrokerRefused: the server cannot give the durability asked for; nothing was sent.
            NotDurable: it could have, but has not confirmed in time the messages that were sent last.
        """
        wanted = self._wanted(durability)
        return self._send(self._put_many(messages, wanted), wanted)

    async def aenqueue_many(self, messages: Sequence[Message], durability: Durability | None = None) -> dict[int, str]:
        """Put messages on their queues, as `enqueue_many` does."""
        wanted = self._wanted(durability)
        return await self._asend(self._put_many(messages, wanted), wanted)

    def enqueue_all(self, messages: Sequence[Message], durability: Durability | None = None) -> dict[int, str]:
        """Put messages on their queues, all or none: one script, one round trip, or two where a lock is not free.

        Returns:
            By position, for those that were not put: the id of the task that is there in their place.

        Raises:
            BrokerRefused: the server cannot give the durability asked for, or cannot take these queues at once.
            NotDurable: all are in Redis, but have not been confirmed in time.
        """
        wanted = self._wanted(durability)
        try:
            return self._send(self._put_all(messages, wanted), wanted)
        except BrokerError as error:
            raise clarified(error, messages) from error.__cause__

    async def aenqueue_all(self, messages: Sequence[Message], durability: Durability | None = None) -> dict[int, str]:
        """Put messages on their queues, all or none, as `enqueue_all` does."""
        wanted = self._wanted(durability)
        try:
            return await self._asend(self._put_all(messages, wanted), wanted)
        except BrokerError as error:
            raise clarified(error, messages) from error.__cause__

    def start_flow(self, graph: Stored, durability: Durability | None = None) -> bool:
        """Store a graph and have its flow begin; nothing of it runs before all of it is stored.

        Returns:
            Whether it has begun by this; not if its id was known.

        Raises:
            BrokerRefused: the server cannot give the durability asked for.
            NotDurable: it has begun, but that has not been confirmed in time.
        """
        wanted = self._wanted(durability)
        return self._send(self._start(graph, wanted), wanted)

    async def astart_flow(self, graph: Stored, durability: Durability | None = None) -> bool:
        """Store a graph and have its flow begin, as `start_flow` does."""
        wanted = self._wanted(durability)
        return await self._asend(self._start(graph, wanted), wanted)

    # ---- what both forms share: messages are put by calls that are answered together, with what is missing if they
    # are to be confirmed and are not

    def _put_many(self, messages: Sequence[Message], wanted: Durability) -> Steps[dict[int, str]]:
        there: dict[int, str] = {}
        if have_terms(messages):
            for positions in bulk.by_queue(messages):
                found = yield from self._put_all([messages[position] for position in positions], wanted)
                there |= {positions[nth]: task_id for nth, task_id in found.items()}
            return there
        for parts in bulk.divide(self.keys, messages, 1 if wanted == "async" else bulk.CONFIRMED_TOGETHER):
            replies, missing = yield [part.call for part in parts]
            known, to_note = bulk.read(parts, replies)
            yield from self._note(to_note, missing, wanted)
            there |= {position: messages[position].id for position in known}
        return there

    def _put_all(self, messages: Sequence[Message], wanted: Durability) -> Steps[dict[int, str]]:
        put: Put | None = None
        missing = ""
        while put is None or put.seen:
            [put], missing = yield [enqueue_all(self.keys, messages, put)]
        yield from self._note(put.queues, missing, wanted)
        return put.there

    def _start(self, graph: Stored, wanted: Durability) -> Steps[bool]:
        home = Home.of(self.keys, graph.home, round(self.settings.result_ttl * 1000))
        plan = yield from flowing.prepare(home, graph, graph.flow_id)
        if plan is None:
            return False
        [begun], missing = yield [flows.start(home, graph.flow_id, plan)]
        if begun.is_lost:
            raise BrokerReset(f"what was stored of flow {graph.flow_id} has gone; nothing of it has run")
        yield from self._note([graph.home] if begun.to_note else [], missing, wanted)
        if begun.goes_on:
            yield from flowing.carry(self.keys, [(graph.home, f"flow:{graph.flow_id}")], home.ttl_ms)
        is_new: bool = begun.is_new
        return is_new

    def _note(self, queues: Collection[str], missing: str, wanted: Durability) -> Steps[None]:
        """Note the names of queues, which must be also if the messages are not as safe as they should."""
        if queues:
            yield calls.register_queues(self.keys, queues)
        if missing:
            raise self._not_durable(wanted, missing)

    def _send(self, puts: Steps[T], wanted: Durability) -> T:
        connection = self.sync
        if wanted == "async":
            return complete(connection, puts, lambda some: ([connection.run(call) for call in some], ""))
        self._require(wanted)
        return complete(connection, puts, lambda some: connection.run_confirmed(some, confirmation(wanted)))

    async def _asend(self, puts: Steps[T], wanted: Durability) -> T:
        connection = self.on_loop
        if wanted not in ("async", *self._can_confirm):
            await asyncio.to_thread(self._require, wanted)

        async def put(some: Sequence[Call[Any]]) -> tuple[list[Any], str]:
            if wanted == "async":
                return [await connection.run(call) for call in some], ""
            return await connection.run_confirmed(some, confirmation(wanted))

        return await acomplete(connection, puts, put)

    def _wanted(self, durability: Durability | None) -> Durability:
        return check_durability(self.settings.durability if durability is None else durability)

    def _require(self, wanted: Durability) -> None:
        if wanted not in self._can_confirm:
            require(self.sync, wanted)
            self._can_confirm.add(wanted)

    def _not_durable(self, wanted: Durability, missing: str) -> NotDurable:
        self._can_confirm.discard(wanted)  # another server may be the master by now: the next call asks again
        return NotDurable(f"enqueued, but not as safe as durability={wanted!r} asks: {missing}")

    def close(self) -> None:
        """Close the connections of threads, and stop listening for results. They open again at the next use."""
        self._doorbell = None
        super().close()
