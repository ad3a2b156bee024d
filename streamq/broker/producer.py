"""The broker as those see it who enqueue tasks."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import weakref
from collections.abc import Sequence

from streamq._redis.connections import AsyncConnection, SyncConnection
from streamq._redis.keys import Keys
from streamq._redis.subscriptions import Doorbell
from streamq._redis.urls import check_url
from streamq.broker import bulk, calls
from streamq.broker.batch import clarified, enqueue_all, have_terms
from streamq.broker.durability import confirmation, require
from streamq.config import DEFAULT_LEVEL, Durability, Settings, check_durability
from streamq.errors import BrokerError, NotDurable
from streamq.message import Message
from streamq.sending import level_of


class Producer:
    """Enqueues messages; every method has a sync form and an ``a`` form.

    Connections are opened at first use, one pool for all threads and one for each event loop.
    """

    def __init__(self, settings: Settings) -> None:
        check_url(settings.url)
        self.settings = settings
        self.keys = Keys(settings.namespace)
        self._lock = threading.Lock()
        self._forget_connections()

    def _forget_connections(self) -> None:
        self._pid = os.getpid()
        self._sync: SyncConnection | None = None
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncConnection]
        self._loops = weakref.WeakKeyDictionary()
        self._doorbell: Doorbell | None = None
        self._can_confirm: set[Durability] = set()

    @property
    def sync(self) -> SyncConnection:
        """The connection for threads."""
        if self._sync is None or self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():  # sockets must not be shared with a parent process
                    self._forget_connections()
                if self._sync is None:
                    self._sync = SyncConnection(self.settings.url, patient=True)
        return self._sync

    @property
    def on_loop(self) -> AsyncConnection:
        """The connection for the running event loop."""
        loop = asyncio.get_running_loop()
        connection = self._loops.get(loop)
        if connection is None or self._pid != os.getpid():
            if self._pid != os.getpid():
                self._forget_connections()
            connection = self._loops[loop] = AsyncConnection(self.settings.url, patient=True)
        return connection

    @property
    def doorbell(self) -> Doorbell:
        """What wakes the waiting results of this process."""
        connection = self.sync
        with self._lock:
            if self._doorbell is None:
                self._doorbell = Doorbell(connection, self.keys.done + secrets.token_hex(8))
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
        if have_terms(messages):
            return self._enqueue_on_terms(messages, durability)
        wanted, there, missing = self._wanted(durability), dict[int, str](), ""
        if wanted != "async":
            self._require(wanted)
        for parts in bulk.divide(self.keys, messages, 1 if wanted == "async" else bulk.CONFIRMED_TOGETHER):
            if wanted == "async":
                found = [self.sync.run(parts[0].call)]
            else:
                found, missing = self.sync.run_confirmed([part.call for part in parts], confirmation(wanted))
            known_now, to_note = bulk.read(parts, found)
            if to_note:
                self.sync.run(calls.register_queues(self.keys, to_note))
            if missing:
                raise self._not_durable(wanted, missing)
            there |= {position: messages[position].id for position in known_now}
        return there

    def _enqueue_on_terms(self, messages: Sequence[Message], durability: Durability | None) -> dict[int, str]:
        there: dict[int, str] = {}
        for positions in bulk.by_queue(messages):
            found = self.enqueue_all([messages[position] for position in positions], durability)
            there |= {positions[nth]: task_id for nth, task_id in found.items()}
        return there

    async def aenqueue_many(self, messages: Sequence[Message], durability: Durability | None = None) -> dict[int, str]:
        """Put messages on their queues, as `enqueue_many` does."""
        if have_terms(messages):
            return await self._aenqueue_on_terms(messages, durability)
        wanted, there, missing = self._wanted(durability), dict[int, str](), ""
        if wanted not in ("async", *self._can_confirm):
            await asyncio.to_thread(self._require, wanted)
        for parts in bulk.divide(self.keys, messages, 1 if wanted == "async" else bulk.CONFIRMED_TOGETHER):
            if wanted == "async":
                found = [await self.on_loop.run(parts[0].call)]
            else:
                found, missing = await self.on_loop.run_confirmed([part.call for part in parts], confirmation(wanted))
            known_now, to_note = bulk.read(parts, found)
            if to_note:
                await self.on_loop.run(calls.register_queues(self.keys, to_note))
            if missing:
                raise self._not_durable(wanted, missing)
            there |= {position: messages[position].id for position in known_now}
        return there

    async def _aenqueue_on_terms(self, messages: Sequence[Message], durability: Durability | None) -> dict[int, str]:
        there: dict[int, str] = {}
        for positions in bulk.by_queue(messages):
            found = await self.aenqueue_all([messages[position] for position in positions], durability)
            there |= {positions[nth]: task_id for nth, task_id in found.items()}
        return there

    def _wanted(self, durability: Durability | None) -> Durability:
        return check_durability(self.settings.durability if durability is None else durability)

    def _require(self, wanted: Durability) -> None:
        if wanted not in self._can_confirm:
            require(self.sync, wanted)
            self._can_confirm.add(wanted)

    def _not_durable(self, wanted: Durability, missing: str) -> NotDurable:
        self._can_confirm.discard(wanted)  # another server may be the master by now: the next call asks again
        return NotDurable(f"enqueued, but not as safe as durability={wanted!r} asks: {missing}")

    def enqueue_all(self, messages: Sequence[Message], durability: Durability | None = None) -> dict[int, str]:
        """Put messages on their queues, all or none: one script, one round trip, or two where a lock is not free.

        Returns:
            By position, for those that were not put: the id of the task that is there in their place.

        Raises:
            BrokerRefused: the server cannot give the durability asked for, or cannot take these queues at once.
            NotDurable: all are in Redis, but have not been confirmed in time.
        """
        wanted, put, missing = self._wanted(durability), None, ""
        if wanted != "async":
            self._require(wanted)
        try:
            while put is None or put.seen:
                call = enqueue_all(self.keys, messages, put)
                if wanted == "async":
                    put = self.sync.run(call)
                else:
                    [put], missing = self.sync.run_confirmed([call], confirmation(wanted))
        except BrokerError as error:
            raise clarified(error, messages) from error.__cause__
        if put.queues:
            self.sync.run(calls.register_queues(self.keys, put.queues))
        if missing:
            raise self._not_durable(wanted, missing)
        return put.there

    async def aenqueue_all(self, messages: Sequence[Message], durability: Durability | None = None) -> dict[int, str]:
        """Put messages on their queues, all or none, as `enqueue_all` does."""
        wanted, put, missing = self._wanted(durability), None, ""
        if wanted not in ("async", *self._can_confirm):
            await asyncio.to_thread(self._require, wanted)
        try:
            while put is None or put.seen:
                call = enqueue_all(self.keys, messages, put)
                if wanted == "async":
                    put = await self.on_loop.run(call)
                else:
                    [put], missing = await self.on_loop.run_confirmed([call], confirmation(wanted))
        except BrokerError as error:
            raise clarified(error, messages) from error.__cause__
        if put.queues:
            await self.on_loop.run(calls.register_queues(self.keys, put.queues))
        if missing:
            raise self._not_durable(wanted, missing)
        return put.there

    def close(self) -> None:
        """Close the connections of threads, and stop listening for results. They open again at the next use."""
        with self._lock:
            doorbell, self._doorbell = self._doorbell, None
            sync, self._sync = self._sync, None
        if doorbell:
            doorbell.close()
        if sync:
            sync.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop, and then as `close` does."""
        connection = self._loops.pop(asyncio.get_running_loop(), None)
        if connection:
            await connection.close()
        await asyncio.to_thread(self.close)
