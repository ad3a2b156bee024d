"""What type checkers must accept, and, on lines that end with ``# wrong``, must reject."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Iterator
from datetime import date
from typing import Any, assert_type

import streamq
from streamq import (
    Agent,
    AsyncResult,
    Chunk,
    Claim,
    Context,
    ResultStream,
    Schedule,
    Signature,
    StreamQ,
    Yields,
    by,
    cron,
    every,
)
from streamq.channels.envelope import Envelope
from streamq.channels.gaps import Gap

app = StreamQ()


@app.task
async def add(x: int, y: int = 0) -> int:
    return x + y


@app.task(queue="files", timeout=30)
def count(path: str, *, day: date) -> list[str]:
    return [path, str(day)]


@app.task(bind=True)
async def about(context: Context, name: str) -> str:
    return context.id + name


@app.task(bind=True, raises=(ValueError,))
def about_thread(context: Context, *names: str) -> bytes:
    return context.id.encode() + "".join(names).encode()


@app.task(schedule=[cron("0 9 * * mon-fri", tz="Europe/Berlin"), every(seconds=30, jitter=5)], missed="skip")
async def tick() -> int:
    return 1


@streamq.task
def greet(name: str) -> str:
    return name


@streamq.task(bind=True)
def noted(context: Context, count: int) -> None:
    assert context.attempt == count


@app.task(unique=by("name", ttl=60, while_="queued"))
async def sole(name: str) -> str:
    return name


@app.task(bind=True, debounce=by(lambda call: call["name"], seconds=5, max_wait=60))
def last(context: Context, name: str) -> str:
    return context.id + name


@app.task
async def chat(prompt: str) -> AsyncIterator[str]:
    yield prompt


@app.task(bind=True, queue="llm")
async def chat_bound(context: Context, prompt: str) -> AsyncGenerator[bytes, None]:
    context.progress(0.5, prompt)
    await context.emit(1)
    yield b""


@app.task(timeout=30)
def rows(path: str) -> Generator[dict[str, int], None, float]:
    yield {path: 1}
    return 1.0


@streamq.task
def lines(path: str) -> Iterator[str]:
    yield path


@app.task(bind=True)
def rows_bound(context: Context, path: str) -> Generator[int, None, str]:
    yield context.attempt
    return path


def without_context(name: str) -> str:
    return name


@streamq.task(name="shared")
async def shared(flag: bool) -> None:  # noqa: FBT001 - the type is what matters
    assert flag


def right() -> None:
    assert_type(add.delay(1, 2), AsyncResult[int])
    assert_type(add.delay(1), AsyncResult[int])
    assert_type(add.delay(x=1, y=2).get(timeout=1), int)
    assert_type(count.delay("a", day=date.min), AsyncResult[list[str]])
    assert_type(count.using(queue="slow", countdown=3).delay("a", day=date.min).get(), list[str])
    assert_type(count.using(durability="replica").delay("a", day=date.min).get(), list[str])
    assert_type(about.delay("x").get(), str)
    assert_type(about_thread.delay("x", "y").get(), bytes)
    assert_type(greet.delay("x").get(), str)
    assert_type(add.apply_async((1, 2), queue="slow").get(), int)
    assert_type(add.s(1, 2), Signature[int])
    assert_type(app.enqueue_many([add.s(1, 2), add.s(2)]), list[AsyncResult[int]])
    assert_type(tick.delay(), AsyncResult[int])
    assert_type(app.schedules.add("x", add.s(1), every(hours=1), missed="all"), Schedule)
    assert_type(app.schedules.list(), tuple[Schedule, ...])
    app.schedules.add("x", add.s(1), every(hours=1), missed="some")  # wrong
    app.schedules.add("x", add.s(1), "0 9 * * *")  # wrong
    assert_type(count("a", day=date.min), list[str])
    coroutine = assert_type(add(1, 2), Coroutine[Any, Any, int])
    coroutine.close()
    assert_type(greet("x"), str)
    assert_type(about_thread("x", "y"), bytes)
    assert_type(noted.delay(3).get(), None)
    assert_type(app.enqueue_many((greet.s(name) for name in "ab"), durability="fsync"), list[AsyncResult[str]])
    assert_type(count.using(task_id="1").s("a", day=date.min), Signature[list[str]])
    assert_type(app.result("1"), AsyncResult[Any])
    assert_type(sole.delay("x"), AsyncResult[str])
    assert_type(sole.delay("x").duplicate, bool)
    assert_type(last.delay("x").get(), str)
    assert_type(add.using(throttle=by("x", seconds=1)).delay(1).get(), int)
    with app.transaction() as batch:
        assert_type(batch.enqueue(add.s(1, 2)), AsyncResult[int])
        assert_type(batch.enqueue(count.using(queue="slow").s("a", day=date.min)), AsyncResult[list[str]])


async def right_async() -> None:
    assert_type(await add.adelay(1, 2), AsyncResult[int])
    assert_type(await (await add.using(task_id="x").adelay(1)).aget(timeout=1), int)
    assert_type(await (await count.adelay("a", day=date.min)).aget(), list[str])
    assert_type(await app.aenqueue_many([greet.s("x")]), list[AsyncResult[str]])
    async with app.transaction() as batch:
        assert_type(batch.enqueue(greet.s("x")), AsyncResult[str])
    assert_type(await add(1, 2), int)
    assert_type(await about("x"), str)
    assert_type(await (await about.using(queue="slow").adelay(name="x")).aget(), str)
    assert_type(await (await greet.aapply_async(("x",), durability="fsync")).aget(), str)
    assert_type(await shared.adelay(flag=True), AsyncResult[None])


def streamed() -> None:
    assert_type(chat.delay("x"), AsyncResult[Yields[str, None]])
    assert_type(chat.delay("x").stream(), ResultStream[str])
    assert_type(chat.delay("x").get(), None)
    assert_type([chunk.value for chunk in chat_bound.delay("x").stream(after="1-1", timeout=3)], list[bytes])
    assert_type(next(rows.delay("x").stream()), Chunk[dict[str, int]])
    assert_type(rows.delay("x").get(timeout=1), float)
    assert_type(rows.using(queue="slow").delay("x").get(), float)
    assert_type(rows_bound.delay("x").get(), str)
    assert_type(rows_bound.delay("x").stream(), ResultStream[int])
    assert_type(next(lines.delay("x").stream()).value, str)
    assert_type(app.enqueue_many([chat.s("x")])[0].stream(), ResultStream[str])
    assert_type(rows("x"), Generator[dict[str, int], Any, float])
    assert_type(add.delay(1).stream(), ResultStream[Any])
    assert_type(add.delay(1).progress(0.5, "half"), bool)


async def streamed_async() -> None:
    result = await chat.adelay("x")
    assert_type([chunk async for chunk in result.stream()], list[Chunk[str]])
    assert_type(await result.aget(), None)
    assert_type(await (await rows.adelay("x")).aget(), float)
    assert_type(chat("x"), AsyncGenerator[str, None])
    async for chunk in result.stream():
        assert_type((chunk.id, chunk.value, chunk.attempt, chunk.delivery, chunk.index), tuple[str, str, int, int, int])


def rejected(context: Context) -> None:
    chat.delay(1)  # wrong
    chat_bound.delay(context, "x")  # wrong
    rows.delay()  # wrong
    rows.delay("x").stream(after=3)  # wrong
    number_of_chunk: int = next(chat.delay("x").stream()).value  # wrong
    text_of_rows: str = rows.delay("x").get()  # wrong
    add.delay(1).progress("half")  # wrong
    context.progress(0.5, 5)  # wrong
    print(number_of_chunk, text_of_rows)  # noqa: T201 - uses them
    add.delay("1", 2)  # wrong
    add.delay()  # wrong
    add.delay(1, 2, 3)  # wrong
    add.delay(1, z=2)  # wrong
    count.delay("a")  # wrong
    count.delay("a", date.min)  # wrong
    count.using(queue="slow").delay(1, day=date.min)  # wrong
    about.delay(1)  # wrong
    about.delay(context, "x")  # wrong
    about_thread(context, "x")  # wrong
    about_thread.delay("x", 1)  # wrong
    greet.delay(1)  # wrong
    add.s("1")  # wrong
    add.using(countdown=1).s("1")  # wrong
    add.using(priority="high")  # wrong
    add.using(durability="sync")  # wrong
    StreamQ(durability="sync")  # wrong
    add.using(task_id=17)  # wrong
    noted.delay("3")  # wrong
    by("x", while_="ended")  # wrong
    by(7)  # wrong
    add.using(unique="x")  # wrong
    app.task(throttle=5)  # wrong
    last.delay(context, "x")  # wrong
    app.enqueue_many([add.delay(1)])  # wrong
    app.transaction().enqueue(add.delay(1))  # wrong
    app.task(timeout="soon")  # wrong
    app.task(raises=(int,))  # wrong
    app.task(bind=True)(without_context)  # wrong
    add("1")  # wrong
    text: str = add.delay(1, 2).get()  # wrong
    number: int = count("a", day=date.min)  # wrong
    print(text, number)  # noqa: T201 - uses them


async def rejected_async() -> None:
    await add.adelay("1", 2)  # wrong
    await shared.adelay(3)  # wrong
    await about.using(queue="slow").adelay(1)  # wrong
    await add("1")  # wrong
    await greet("x")  # wrong
    text: str = await (await add.adelay(1)).aget()  # wrong
    print(text)  # noqa: T201 - uses it


planner = Agent("planner", app, capabilities=("plan",))


@planner.on(date)
async def on_date(message: Envelope[date]) -> int:
    return message.payload.year


@planner.on("named")
def on_named(message: Envelope[Any]) -> None: ...


@planner.on(Gap)
def on_gap(gap: Gap) -> None: ...


@planner.takes(date, capability="read")
async def read(job: date) -> str:
    return job.isoformat()


@planner.on(date)  # wrong
def on_number(message: Envelope[int]) -> None: ...


@planner.takes(date)  # wrong
def take_number(job: int) -> None: ...


async def asks() -> None:
    assert_type(await on_date(Envelope(date(2026, 1, 1), "a", "date", "x", 0, "s", 1)), int)
    assert_type(await planner.request("reader", 1, reply=int, timeout=2), int)
    assert_type(await planner.request("reader", 1), Any)
    assert_type(await planner.assign(1, reply=str, durable=False), str)
    assert_type(await planner.claim("invoice", seconds=10), Claim | None)
    await planner.claim("invoice")  # wrong
    for info in await streamq.agents(app):
        assert_type(info.capabilities, tuple[str, ...])
    async for change in streamq.presence(app):
        assert_type(change, streamq.Joined | streamq.Left)
