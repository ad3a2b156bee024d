"""Goes on with flows for a worker, on its connection."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from streamq._redis.connections import AsyncConnection
from streamq._redis.keys import Keys
from streamq.broker import flowing, flows, gathering, reads
from streamq.broker.walking import acomplete
from streamq.message import Delivery, Message
from streamq.nodes import Drawing, split_id
from streamq.sending import part_of

_log = logging.getLogger("streamq.worker")

_SPOILED = (LookupError, ValueError, TypeError)  # what comes of what was written by hand


class Courier:
    """Goes on with flows where a commit could not do so itself."""

    def __init__(self, connection: AsyncConnection, keys: Keys, ttl_ms: int) -> None:
        self._connection = connection
        self._keys = keys
        self._ttl_ms = ttl_ms

    async def see_to(self, work: Iterable[flowing.Work]) -> None:
        """Do what is to be done for flows, and what that leads to.

        Raises:
            BrokerError: Redis does not do what is asked. What was done until then stays done.
        """
        todo = [*work]
        try:
            await acomplete(self._connection, flowing.carry(self._keys, todo, self._ttl_ms))
        except _SPOILED:  # others must not wait behind it
            if len(todo) > 1:
                for one in todo:
                    await self.see_to([one])
            else:
                _log.exception("cannot go on with %s of queue %s", todo[0][1], todo[0][0])

    async def sweep(self, queue: str) -> None:
        """Do what has been in a queue's outbox for some time: whoever put it there has not come to it."""
        now_ms = await self._connection.run(reads.now())
        seen: set[str] = set()
        while members := {*await self._connection.run(flows.outbox(self._keys.queue(queue), now_ms))} - seen:
            seen |= members
            await self.see_to([(queue, member) for member in members])

    async def become(self, delivery: Delivery, drawing: Drawing, own: bytes | None) -> flows.Begun:
        """Have a task that has run become a flow; `own`: its own result, if the flow only adds to it."""
        home = flows.Home.of(self._keys, delivery.message.queue, self._ttl_ms)
        return await acomplete(self._connection, flowing.become(home, delivery, drawing, own))

    async def arguments(self, message: Message) -> bytes:
        """Put the arguments of a task of a flow together, where that was too much for its message.

        Raises:
            UnknownTaskId: the flow was deleted meanwhile.
        """
        part = part_of(message)
        flow_id, node = split_id(message.id)
        home = self._keys.queue(part.home if part else message.queue)
        return await acomplete(self._connection, gathering.arguments(home, flow_id, int(node)))
