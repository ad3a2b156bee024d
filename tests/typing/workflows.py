"""Calls that belong together: what type checkers must accept, and, on lines that end with ``# wrong``, must reject."""

from __future__ import annotations

from typing import Any, assert_type

from streamq import (
    AsyncResult,
    Failure,
    Flow,
    FlowProgress,
    FlowResult,
    GroupResult,
    NodeResult,
    NodeStatus,
    Partial,
    Signature,
    StreamQ,
    chain,
    chord,
    group,
)
from streamq.workflows.canvas import Chain
from streamq.workflows.flow import Part
from streamq.workflows.group import Chord, Group

app = StreamQ()


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
async def mul(x: int, y: int) -> int:
    return x * y


@app.task
def text(number: int) -> str:
    return str(number)


@app.task
def total(numbers: list[int], *, style: str = "") -> float:
    return sum(numbers) + len(style)


@app.task
def noted(*, text: str = "") -> None:
    assert text is not None


@app.task
def alarm(failure: Failure) -> None:
    assert failure.traceback is not None


def signatures() -> None:
    assert_type(add.s(2, 2), Signature[int])
    assert_type(add.si(2, 2), Signature[int])
    assert_type(mul.s(4), Partial[int, int])
    assert_type(text.s(), Partial[int, str])
    assert_type(add.using(queue="slow").s(4), Partial[int, int])
    assert_type(mul.s(4).set(queue="slow", countdown=5), Partial[int, int])
    assert_type(add.s(1, 2).set(headers={"trace": "1"}), Signature[int])
    assert_type(add.s(1, 2).on_success(text.s()).on_error(alarm.s()), Signature[int])
    assert_type(add.s(1, 2).delay(), AsyncResult[int])
    assert_type(mul.s(4).delay(3).get(), int)
    assert_type(app.enqueue_many([add.si(1, 2)]), list[AsyncResult[int]])


def chains() -> None:
    assert_type(add.s(2, 2) | mul.s(4), Chain[int])
    assert_type(add.s(2, 2) | mul.s(4) | text.s(), Chain[str])
    assert_type((add.s(2, 2) | mul.s(4)).delay().get(timeout=10), int)
    assert_type(add.s(1, 2) | text.si(3), Chain[str])
    assert_type((add.s(1, 2) | text.s()).set(priority=9).on_error(alarm.s()), Chain[str])
    assert_type(chain(add.s(1, 2), mul.s(4)), Chain[int])
    assert_type(chain(add.s(1, 2), mul.s(4), text.s()), Chain[str])


def groups() -> None:
    assert_type(group(add.s(1, 2), mul.s(3, 4)), Group[int])
    assert_type(group(text.s(number) for number in range(3)), Group[str])
    assert_type(group([add.s(1, 2) | text.s()]), Group[str])
    assert_type(group(add.s(1, 2), mul.s(3, 4)).delay().get(), list[int])
    assert_type(group(add.s(1, 2), add.s(3, 4)) | total.s(style="x"), Chain[float])
    assert_type(chord((add.s(1, n) for n in range(3)), total.s(style="x"), on_error="collect"), Chord[float])
    assert_type(chord(group(add.s(1, 2), add.s(3, 4)), total.s()).delay(), FlowResult[float])
    assert_type(add.s(1, 2) | group(mul.s(2), mul.s(3)), Chain[list[int]])
    assert_type(group(group(add.s(1, 2), add.s(1, 3))), Group[list[int]])


def items() -> None:
    assert_type(text.map([1, 2]), Signature[list[str]])
    assert_type(add.starmap([(1, 2), (3, 4)]), Signature[list[int]])
    assert_type(text.chunks([1, 2], 50), Group[list[str]])
    assert_type(text.chunks([1, 2], 50).delay().get(), list[list[str]])
    assert_type(text.map([1, 2]).delay().get(), list[str])


def flows() -> None:
    flow = Flow()
    first = flow.add(add.s(1, 2))
    assert_type(first, Part[int])
    assert_type(flow.add(text.s(), after=[first]), Part[str])
    flow.connect(first, flow.add(total.s()))
    assert_type(flow.delay(), FlowResult[Any])


def results() -> None:
    numbers = group(add.s(1, 2), mul.s(3, 4)).delay()
    assert_type(numbers, GroupResult[int])
    assert_type(numbers.results[0], NodeResult[int])
    assert_type(numbers.results[0].get(timeout=1), int)
    assert_type(numbers.results[1:], list[NodeResult[int]])
    assert_type([one.get() for one in numbers.as_completed(timeout=1)], list[int])
    assert_type(numbers.nodes(live=True), list[NodeStatus])
    assert_type(numbers.progress(), FlowProgress)
    assert_type((add.s(2, 2) | mul.s(4)).delay(), FlowResult[int])
    assert_type(app.flow("id", queue="default"), FlowResult[Any])


async def async_results() -> None:
    texts = await group(text.s(number) for number in range(3)).adelay()
    assert_type(texts, GroupResult[str])
    assert_type(await texts.aget(), list[str])
    assert_type([one async for one in texts.as_completed()], list[NodeResult[str]])
    assert_type(await (await texts.aresults())[0].aget(), str)
    assert_type(await (await (add.s(2, 2) | text.s()).adelay()).aget(), str)
    wrong: int = await texts.results[0].aget()  # wrong
    print(wrong)  # noqa: T201 - uses it


def rejected() -> None:
    mul.s("4")  # wrong
    mul.s(1, 2, 3)  # wrong
    noted.s(1)  # wrong
    add.si(1)  # wrong
    app.enqueue_many([mul.s(4)])  # wrong
    app.transaction().enqueue(text.s())  # wrong
    mul.s(4).delay()  # wrong
    mul.s(4).delay("3")  # wrong
    add.s(1, 2) | total.s()  # wrong
    text.s(1) | mul.s(4)  # wrong
    add.s(1, 2) | text.s() | text.s()  # wrong
    group(text.s(1), text.s(2)) | total.s()  # wrong
    chord((text.s(n) for n in range(3)), total.s())  # wrong
    chord([add.s(1, 2)], total.s(), on_error="ignore")  # wrong
    add.s(1, 2).set(priority="high")  # wrong
    add.s(1, 2).set(headers={"x": 1})  # wrong
    add.s(1, 2).on_error(alarm)  # wrong
    text.map(["a"])  # wrong
    text.chunks([1, 2], "50")  # wrong
    Flow().add(add.s(1, 2), after=add.s(1, 2))  # wrong
    wrong: str = (add.s(2, 2) | mul.s(4)).delay().get()  # wrong
    print(wrong)  # noqa: T201 - uses it
    print((add.s(2, 2) | mul.s(4)).delay().results)  # noqa: T201  # wrong
    group(add.s(1, 2)).delay().progress(0.5)  # wrong
