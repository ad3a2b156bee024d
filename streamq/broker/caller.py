"""The broker as callers see it: they enqueue tasks, and look after what became of them."""

from __future__ import annotations

from streamq.broker.cancels import cancel_one
from streamq.broker.chunks import Page, Place, progress_there, read_chunks_there
from streamq.broker.flow_retry import retry_flow
from streamq.broker.moving import forget_there, look_there, watch_there
from streamq.broker.producer import Producer
from streamq.broker.reads import find_record
from streamq.broker.records import Record
from streamq.broker.turns import Stake, settle_weight
from streamq.broker.walking import acomplete, complete
from streamq.config import Settings
from streamq.message import Delivery
from streamq.progress import Progress


class Broker(Producer):
    """A producer that also reads records and changes what is there; every method has a sync form and an ``a`` form."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.ttl_ms = round(settings.result_ttl * 1000)

    def watch(self, queue: str, task_id: str) -> Record:
        """Read a record, and have the doorbell rung when the task ends."""
        return complete(self.sync, watch_there(self.keys, queue, task_id, self.client_id))

    async def awatch(self, queue: str, task_id: str) -> Record:
        """Read a record, and have the doorbell rung when the task ends."""
        return await acomplete(self.on_loop, watch_there(self.keys, queue, task_id, self.client_id))

    def look(self, queue: str, task_id: str) -> Record:
        """Read a record."""
        return complete(self.sync, look_there(self.keys, queue, task_id))

    async def alook(self, queue: str, task_id: str) -> Record:
        """Read a record."""
        return await acomplete(self.on_loop, look_there(self.keys, queue, task_id))

    def read_chunks(self, queue: str, task_id: str, after: Place) -> Page:
        """Read what a task has emitted after one chunk, and have the doorbell rung when there is more."""
        return complete(self.sync, read_chunks_there(self.keys, queue, task_id, self.client_id, after))

    async def aread_chunks(self, queue: str, task_id: str, after: Place) -> Page:
        """Read what a task has emitted after one chunk, and have the doorbell rung when there is more."""
        return await acomplete(self.on_loop, read_chunks_there(self.keys, queue, task_id, self.client_id, after))

    def progress(self, queue: str, task_id: str, said: Progress) -> bool:
        """Note how far a task is; False if it has ended, or is not known."""
        return complete(self.sync, progress_there(self.keys, queue, task_id, said))

    async def aprogress(self, queue: str, task_id: str, said: Progress) -> bool:
        """Note how far a task is; False if it has ended, or is not known."""
        return await acomplete(self.on_loop, progress_there(self.keys, queue, task_id, said))

    def settle_weight(self, delivery: Delivery, stake: Stake, units: float) -> bool:
        """Have a run count as so many units of a rate; False if it is another's by now."""
        return self.sync.run(settle_weight(self.keys.queue(delivery.message.queue), delivery, stake, units))

    async def asettle_weight(self, delivery: Delivery, stake: Stake, units: float) -> bool:
        """Have a run count as so many units of a rate, as `settle_weight` does."""
        return await self.on_loop.run(settle_weight(self.keys.queue(delivery.message.queue), delivery, stake, units))

    def forget(self, queue: str, task_id: str) -> bool:
        """Delete a record, now or when its task ends; False if there is none."""
        return complete(self.sync, forget_there(self.keys, queue, task_id))

    async def aforget(self, queue: str, task_id: str) -> bool:
        """Delete a record, now or when its task ends; False if there is none."""
        return await acomplete(self.on_loop, forget_there(self.keys, queue, task_id))

    def cancel(self, queue: str, task_id: str) -> bool:
        """Cancel a task that has not ended; False if it has, or is not known."""
        return complete(self.sync, cancel_one(self.keys, queue, task_id, self.ttl_ms))

    async def acancel(self, queue: str, task_id: str) -> bool:
        """Cancel a task that has not ended; False if it has, or is not known."""
        return await acomplete(self.on_loop, cancel_one(self.keys, queue, task_id, self.ttl_ms))

    def retry_flow(self, queue: str, flow_id: str) -> int:
        """Have what has failed of a flow run again; returns how many tasks do. See `streamq.broker.flow_retry`."""
        return complete(self.sync, retry_flow(self.keys, queue, flow_id, self.ttl_ms))

    async def aretry_flow(self, queue: str, flow_id: str) -> int:
        """Have what has failed of a flow run again, as `retry_flow` does."""
        return await acomplete(self.on_loop, retry_flow(self.keys, queue, flow_id, self.ttl_ms))

    def find_queue(self, task_id: str) -> str | None:
        """Look through all known queues for the one that has a record of this id."""
        return complete(self.sync, find_record(self.keys, task_id))[0]

    async def afind_queue(self, task_id: str) -> str | None:
        """Look through all known queues for the one that has a record of this id."""
        return (await acomplete(self.on_loop, find_record(self.keys, task_id)))[0]
