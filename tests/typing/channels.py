"""Uses of channels that type checkers must accept, and, on lines marked ``# wrong``, uses that they must reject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

from streamq import Channel, Envelope, Gap, StreamQ

app = StreamQ()


@dataclass
class Order:
    id: int


orders = app.channel("orders", Order)
anything = app.channel("anything")
log = app.channel("log", Order, durable=True)


async def accepted() -> None:
    assert_type(orders, Channel[Order])
    assert_type(anything, Channel[Any])
    assert_type((await orders.publish(Order(1))).heard, int)
    assert_type(orders.publish_sync(Order(1)).entry, str | None)
    await anything.publish({"whatever": [1, "x"]})
    async for item in orders.listen():
        assert_type(item, Envelope[Order] | Gap)
    async for message in orders.listen(gaps=False, when_full="disconnect", buffer=10):
        assert_type(message.payload, Order)
    for message in orders.listen(gaps=False):
        assert_type(message, Envelope[Order])
    async with log.group("billing", auto_ack=False) as billing:
        async for taken in billing:
            if isinstance(taken, Envelope):
                assert_type(await billing.ack(taken), bool)
    async for kept in log.replay(Gap("overflow")):
        assert_type(kept, Envelope[Order] | Gap)


async def rejected() -> None:
    await orders.publish(1)  # wrong
    orders.publish_sync("x")  # wrong
    orders.listen(when_full="drop")  # wrong
    app.channel("x", durable="yes")  # wrong
    async for item in orders.listen():
        _ = item.payload  # wrong
    async for message in orders.listen(gaps=False):
        number: str = message.payload.id  # wrong
        print(number)  # noqa: T201 - uses it
    log.group("billing", lease="long")  # wrong
