"""Tasks that have something else run in their place, or add to their group. ``$STREAMQ_URL`` says which server."""

from __future__ import annotations

import asyncio
from typing import Any

from streamq import Context, Signature, StreamQ, group

OTHER = "other"  # a second queue

app = StreamQ()


@app.task
async def add(a: int, b: int) -> int:
    return a + b


@app.task(queue=OTHER)
async def double(a: int) -> int:
    return 2 * a


@app.task
async def total(values: list[int]) -> int:
    return sum(values)


@app.task
async def give(value: Any = None) -> Any:
    return value


@app.task(raises=(ValueError,))
async def fail(text: str) -> int:
    raise ValueError(text)


@app.task(bind=True)
async def swap(context: Context, a: int) -> int:
    raise context.replace(add.s(a, 1) | double.s())


@app.task
async def count_down(n: int, so_far: int = 0) -> int | Signature[int | Signature[int]]:
    return count_down.s(n - 1, so_far + n) if n else so_far


@app.task
async def spread(n: int) -> Any:
    return group(add.s(k, 1) for k in range(n))


@app.task(queue=OTHER)
async def spread_there(n: int) -> Any:
    return group(add.s(k, 1) for k in range(n)) | total.s()


@app.task
async def swap_for_failure() -> Any:
    return fail.s("no tea") | add.s(1)


@app.task
async def swap_for_nonsense() -> Any:
    return add.s(1)


@app.task
async def swap_for_nothing() -> Any:
    return group([])


@app.task(pool="process")
def swap_in_process(a: int) -> Any:
    return add.s(a, 1) | double.s()


@app.task
def swap_in_thread(a: int) -> Any:
    return add.s(a, 1) | double.s()


@app.task(bind=True)
async def grow(context: Context, n: int, *, fails: bool = False) -> int:
    context.add_to(group(add.s(k, 10) for k in range(n)), double.s(50))
    if fails:
        context.add_to(fail.s("no tea"))
    return -1


@app.task(bind=True)
async def grow_then_retry(context: Context) -> int:
    context.add_to(add.s(context.attempt, 100))
    if context.attempt == 1:
        context.retry(countdown=0)
    return -1


@app.task(bind=True)
async def place(context: Context, _value: Any = None) -> list[Any]:
    headers = dict(context.headers)
    return [context.flow_id, context.root_id, context.parent_ids, context.child_ids, headers]


@app.task
async def linger() -> None:
    await asyncio.sleep(60)


@app.task
async def swap_for_long() -> Any:
    return linger.s() | give.s()


@app.task
async def swap_for_place() -> Any:
    return place.s() | give.s()
