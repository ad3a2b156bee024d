"""Simple tasks, for tests that run workers. ``$STREAMQ_URL`` says which server."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from uuid import UUID

from pydantic import BaseModel

from streamq import Context, StreamQ, current


@asynccontextmanager
async def lifespan(_app: StreamQ) -> AsyncIterator[str]:
    logging.getLogger("tests").info("lifespan entered")
    yield "from the lifespan"
    logging.getLogger("tests").info("lifespan left")


app = StreamQ(lifespan=lifespan)


class OutOfStock(Exception):
    pass


class Colour(Enum):
    RED = "red"


class Item(BaseModel):
    name: str
    price: Decimal


@dataclass
class Order:
    id: UUID
    at: datetime
    items: list[Item]
    colour: Colour
    path: Path
    raw: bytes


@app.task
async def add(x: int, y: int) -> int:
    return x + y


@app.task
def square(x: int) -> int:
    return x * x


@app.task
async def ship(order: Order, *, gift: bool = False) -> Order:
    assert isinstance(order, Order)
    assert gift in (True, False)
    return order


@app.task
async def fail(message: str) -> None:
    raise ValueError(message)


@app.task(raises=(OutOfStock,))
def sell(item: str, count: int) -> None:
    raise OutOfStock(item, count)


@app.task(bind=True)
async def about(context: Context) -> dict[str, object]:
    return {
        "id": context.id,
        "name": context.name,
        "queue": context.queue,
        "attempt": context.attempt,
        "deliveries": context.deliveries,
        "enqueued_at": context.enqueued_at,
        "state": context.state,
        "same": current() == context,
    }


@app.task
def about_thread() -> str:
    return current().id


@app.task
async def log_a_line(secret: str) -> None:
    logging.getLogger("shop").warning("from user code")


@app.task
async def unencodable() -> object:
    return object()


@app.task
async def large(size: int) -> str:
    return "x" * size


@app.task(timeout=0.2)
async def slow_async() -> None:
    await asyncio.sleep(30)


@app.task(timeout=0.2)
def slow_thread() -> None:
    while True:
        time.sleep(0.001)


@app.task
async def leave() -> None:
    raise SystemExit(3)


@app.task
async def until_file(marker: Path, ready: Path) -> int:
    """Run until a file is there; return how often this task was delivered."""
    with marker.open("a") as out:
        out.write(f"{os.getpid()}\n")
    while not ready.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(0.01)
    return current().deliveries


@app.task
def until_file_in_thread(marker: Path, ready: Path) -> int:
    with marker.open("a") as out:
        out.write(f"{os.getpid()}\n")
    while not ready.exists():
        time.sleep(0.01)
    return current().deliveries


@app.task
async def block(seconds: float) -> int:
    time.sleep(seconds)  # noqa: ASYNC251 - a mistake that users make
    return current().deliveries
