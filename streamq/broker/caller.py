"""The broker as callers see it: they enqueue tasks, and look after what became of them."""

from __future__ import annotations

from streamq.broker import calls
from streamq.broker.cancels import cancel_one
from streamq.broker.moving import forget_there, look_there, watch_there
from streamq.broker.producer import Producer
from streamq.broker.reads import find_record
from streamq.broker.records import Record
from streamq.broker.turns import Stake, settle_weight
from streamq.broker.walking import afollow, follow
from streamq.config import Settings
from streamq.lifecycle import State
from streamq.message import Delivery


class Broker(Producer):
    """A producer that also reads records and changes what is there; every method has a sync form and an ``a`` form."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.ttl_ms = round(settings.result_ttl * 1000)

    def watch(self, queue: str, task_id: str) -> Record:
        """Read a record, and have the doorbell rung when the task ends."""
        [record] = follow(self.sync, watch_there(self.keys, queue, task_id, self.client_id))
        return record

    async def awatch(self, queue: str, task_id: str) -> Record:
        """Read a record, and have the doorbell rung when the task ends."""
        [record] = [one async for one in afollow(self.on_loop, watch_there(self.keys, queue, task_id, self.client_id))]
        return record

    def look(self, queue: str, task_id: str) -> Record:
        """Read a record."""
        [record] = follow(self.sync, look_there(self.keys, queue, task_id))
        return record

    async def alook(self, queue: str, task_id: str) -> Record:
        """Read a record."""
        [record] = [one async for one in afollow(self.on_loop, look_there(self.keys, queue, task_id))]
        return record

    def settle_weight(self, delivery: Delivery, stake: Stake, units: float) -> bool:
        """Have a run count as so many units of a rate; False if it is another's by now."""
        return self.sync.run(settle_weight(self.keys.queue(delivery.message.queue), delivery, stake, units))

    async def asettle_weight(self, delivery: Delivery, stake: Stake, units: float) -> bool:
        """Have a run count as so many units of a rate, as `settle_weight` does."""
        return await self.on_loop.run(settle_weight(self.keys.queue(delivery.message.queue), delivery, stake, units))

    def forget(self, queue: str, task_id: str) -> bool:
        """Delete a record, now or when its task ends; False if there is none."""
        [found] = follow(self.sync, forget_there(self.keys, queue, task_id))
        return found

    async def aforget(self, queue: str, task_id: str) -> bool:
        """Delete a record, now or when its task ends; False if there is none."""
        [found] = [one async for one in afollow(self.on_loop, forget_there(self.keys, queue, task_id))]
        return found

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
            record = await self.on_loop.run(calls.look(self.keys.queue(name), task_id))
            if record.state is not State.UNKNOWN and not record.moved_to:
                return name
        return None
