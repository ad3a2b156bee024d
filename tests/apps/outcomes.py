"""Tasks whose results are put together, for tests of the results of flows. ``$STREAMQ_URL`` says which server."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

from pydantic import BaseModel

from streamq import Context, Failure, StreamQ, group
from streamq.workflows.group import Group

app = StreamQ()


class OutOfStock(Exception):
    pass


class Item(BaseModel):
    name: str
    price: Decimal


@app.task
async def add(x: int, y: int) -> int:
    return x + y


@app.task
async def mul(x: int, y: int) -> int:
    return x * y


@app.task
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
async def item(name: str) -> Item:
    return Item(name=name, price=Decimal("1.50"))


@app.task
async def fail(message: str) -> int:
    raise ValueError(message)


@app.task(raises=(OutOfStock,))
async def buy(name: str) -> str:
    raise OutOfStock(name)


@app.task
async def long_text(length: int) -> str:
    return "x" * length


@app.task
async def note(failure: Failure) -> str:
    return failure.message


@app.task(bind=True)
async def until_there(context: Context, path: Path, value: int = 0) -> int:
    while not path.exists():  # noqa: ASYNC110, ASYNC240 - what tests create
        await asyncio.sleep(0.01)
    return value


@app.task(queue="elsewhere")
async def far(x: int) -> int:
    return -x


@app.task
async def hold(path: Path) -> list[int] | Group[int]:
    return group(until_there.s(path, number) for number in range(3))
