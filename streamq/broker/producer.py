"""The broker as those see it who enqueue tasks and wait for results."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import attrgetter, itemgetter

from streamq._redis.connections import AsyncConnection, SyncConnection
from streamq._redis.keys import Keys
from streamq._redis.scripts import Call
from streamq._redis.subscriptions import Doorbell
from streamq._redis.urls import check_url
from streamq.broker import calls
from streamq.broker.batch import clarified, enqueue_all
from streamq.broker.cancels import cancel_one
from streamq.broker.durability import confirmation, require
from streamq.broker.reads import find_record
from streamq.broker.records import Record
from streamq.broker.walking import afollow, follow
from streamq.config import Durability, Settings, check_durability
from streamq.errors import BrokerError, NotDurable
from streamq.lifecycle import State
from streamq.message import Message

_BULK = 250  # messages in one script; more would hold up other clients for over a millisecond
_CONFIRMED_TOGETHER = 8  # scripts: an fsync can take a second, so that one for each would make a bulk slow


class Broker:
    """Enqueues messages and reads records; every method has a sync form and an ``a`` form.

    Connections are opened at first use, one pool for all threads and one for each event loop.

    The name of a queue is noted when it is new; and when a message was there already, because the reply that said that
    the queue is new may have got lost.
    """

    def __init__(self, settings: Settings) -> None:
        check_url(settings.url)
        self.settings = settings
        self.keys = Keys(settings.namespace)
        self.ttl_ms = round(settings.result_ttl * 1000)
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

    def _bulk(self, messages: Iterable[Message]) -> Iterator[tuple[str, Call[calls.Enqueued]]]:
        by_queue = attrgetter("queue")
        for queue, group in groupby(sorted(messages, key=by_queue), key=by_queue):
            while some := list(islice(group, _BULK)):
                yield queue, calls.enqueue(self.keys.queue(queue), some)

    def _bulk_confirmed(self, messages: Iterable[Message]) -> Iterator[tuple[str, list[Call[calls.Enqueued]]]]:
        for queue, group in groupby(self._bulk(messages), key=itemgetter(0)):
            while some := [call for _, call in islice(group, _CONFIRMED_TOGETHER)]:
                yield queue, some

    def enqueue(self, message: Message, durability: Durability | None = None) -> None:
        """Put one message on its queue: one script, one round trip."""
        if (durability or self.settings.durability) != "async":
            self.enqueue_many((message,), durability)
            return
        found = self.sync.run(calls.enqueue(self.keys.queue(message.queue), (message,)))
        if found.new_queue or found.known:
            self.sync.run(calls.register_queues(self.keys, [message.queue]))

    async def aenqueue(self, message: Message, durability: Durability | None = None) -> None:
        """Put one message on its queue: one script, one round trip."""
        if (durability or self.settings.durability) != "async":
            await self.aenqueue_many((message,), durability)
            return
        found = await self.on_loop.run(calls.enqueue(self.keys.queue(message.queue), (message,)))
        if found.new_queue or found.known:
            await self.on_loop.run(calls.register_queues(self.keys, [message.queue]))

    def enqueue_many(self, messages: Iterable[Message], durability: Durability | None = None) -> None:
        """Put messages on their queues, some hundred to a round trip, in the order given for each queue.

        Raises:
            BrokerRefused: the server cannot give the durability asked for; nothing was sent.
            NotDurable: it could have, but has not confirmed in time the messages that were sent last.
        """
        wanted = self._wanted(durability)
        if wanted != "async":
            self._enqueue_confirmed(messages, wanted)
            return
        for queue, call in self._bulk(messages):
            found = self.sync.run(call)
            if found.new_queue or found.known:
                self.sync.run(calls.register_queues(self.keys, [queue]))

    async def aenqueue_many(self, messages: Iterable[Message], durability: Durability | None = None) -> None:
        """Put messages on their queues, as `enqueue_many` does."""
        wanted = self._wanted(durability)
        if wanted != "async":
            await self._aenqueue_confirmed(messages, wanted)
            return
        for queue, call in self._bulk(messages):
            found = await self.on_loop.run(call)
            if found.new_queue or found.known:
                await self.on_loop.run(calls.register_queues(self.keys, [queue]))

    def _enqueue_confirmed(self, messages: Iterable[Message], wanted: Durability) -> None:
        self._require(wanted)
        for queue, some in self._bulk_confirmed(messages):
            found, missing = self.sync.run_confirmed(some, confirmation(wanted))
            if any(one.new_queue or one.known for one in found):
                self.sync.run(calls.register_queues(self.keys, [queue]))
            if missing:
                raise self._not_durable(wanted, missing)

    async def _aenqueue_confirmed(self, messages: Iterable[Message], wanted: Durability) -> None:
        if wanted not in self._can_confirm:
            await asyncio.to_thread(self._require, wanted)
        for queue, some in self._bulk_confirmed(messages):
            found, missing = await self.on_loop.run_confirmed(some, confirmation(wanted))
            if any(one.new_queue or one.known for one in found):
                await self.on_loop.run(calls.register_queues(self.keys, [queue]))
            if missing:
                raise self._not_durable(wanted, missing)

    def _wanted(self, durability: Durability | None) -> Durability:
        return check_durability(self.settings.durability if durability is None else durability)

    def _require(self, wanted: Durability) -> None:
        if wanted not in self._can_confirm:
            require(self.sync, wanted)
            self._can_confirm.add(wanted)

    def _not_durable(self, wanted: Durability, missing: str) -> NotDurable:
        self._can_confirm.discard(wanted)  # another server may be the master by now: the next call asks again
        return NotDurable(f"enqueued, but not as safe as durability={wanted!r} asks: {missing}")

    def enqueue_all(self, messages: Sequence[Message], durability: Durability | None = None) -> None:
        """Put messages on their queues, all or none: one script, one round trip.

        Raises:
            BrokerRefused: the server cannot give the durability asked for, or cannot take these queues at once.
            NotDurable: all are in Redis, but have not been confirmed in time.
        """
        wanted, call, missing = self._wanted(durability), enqueue_all(self.keys, messages), ""
        try:
            if wanted == "async":
                new = self.sync.run(call)
            else:
                self._require(wanted)
                [new], missing = self.sync.run_confirmed([call], confirmation(wanted))
        except BrokerError as error:
            raise clarified(error, messages) from error.__cause__
        if new:
            self.sync.run(calls.register_queues(self.keys, new))
        if missing:
            raise self._not_durable(wanted, missing)

    async def aenqueue_all(self, messages: Sequence[Message], durability: Durability | None = None) -> None:
        """Put messages on their queues, all or none, as `enqueue_all` does."""
        wanted, call, missing = self._wanted(durability), enqueue_all(self.keys, messages), ""
        try:
            if wanted == "async":
                new = await self.on_loop.run(call)
            else:
                await asyncio.to_thread(self._require, wanted)
                [new], missing = await self.on_loop.run_confirmed([call], confirmation(wanted))
        except BrokerError as error:
            raise clarified(error, messages) from error.__cause__
        if new:
            await self.on_loop.run(calls.register_queues(self.keys, new))
        if missing:
            raise self._not_durable(wanted, missing)

    def watch(self, queue: str, task_id: str) -> Record:
        """Read a record, and have the doorbell rung when the task ends."""
        return self.sync.run(calls.watch(self.keys.queue(queue), task_id, self.client_id))

    async def awatch(self, queue: str, task_id: str) -> Record:
        """Read a record, and have the doorbell rung when the task ends."""
        return await self.on_loop.run(calls.watch(self.keys.queue(queue), task_id, self.client_id))

    def look(self, queue: str, task_id: str) -> Record:
        """Read a record."""
        return self.sync.run(calls.look(self.keys.queue(queue), task_id))

    async def alook(self, queue: str, task_id: str) -> Record:
        """Read a record."""
        return await self.on_loop.run(calls.look(self.keys.queue(queue), task_id))

    def forget(self, queue: str, task_id: str) -> bool:
        """Delete a record, now or when its task ends; False if there is none."""
        return self.sync.run(calls.forget(self.keys.queue(queue), task_id))

    async def aforget(self, queue: str, task_id: str) -> bool:
        """Delete a record, now or when its task ends; False if there is none."""
        return await self.on_loop.run(calls.forget(self.keys.queue(queue), task_id))

    def cancel(self, queue: str, task_id: str) -> bool:
        """Cancel a task that has not ended; False if it has, or is not known."""
        return any(follow(self.sync, cancel_one(self.keys, queue, task_id, self.ttl_ms)))

    async def acancel(self, queue: str, task_id: str) -> bool:
        """Cancel a task that has not ended; False if it has, or is not known."""
        steps = afollow(self.on_loop, cancel_one(self.keys, queue, task_id, self.ttl_ms))
        return True in [found async for found in steps]

    def find_queue(self, task_id: str) -> str | None:
        """Look through all known queues for the one that has a record of this id."""
        return find_record(self.sync, self.keys, task_id)[0]

    async def afind_queue(self, task_id: str) -> str | None:
        """Look through all known queues for the one that has a record of this id."""
        names = await self.on_loop.run(calls.queue_names(self.keys))
        for name in names:
            if (await self.alook(name, task_id)).state is not State.UNKNOWN:
                return name
        return None

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
