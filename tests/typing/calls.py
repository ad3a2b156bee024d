"""What type checkers must accept, and, on lines that end with ``# wrong``, must reject."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import date
from typing import Any, assert_type

import streamq
from streamq import AsyncResult, Context, Signature, StreamQ, by

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


def rejected(context: Context) -> None:
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
