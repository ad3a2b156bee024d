"""Uses of events that type checkers must accept, and, on lines marked ``# wrong``, uses that they must reject."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import assert_type

from streamq import Gap, StreamQ, events

app = StreamQ()


@app.task
async def add(x: int, y: int) -> int:
    return x + y


@app.on(events.TaskFailed, tasks="shop.*")
async def by_class(event: events.TaskFailed) -> None:
    assert_type(event.error, str | None)


@app.on("task.failed", events.TaskDead, queues=["slow", "fast"])
def by_words(event: events.Event) -> None:
    assert_type(event.time, datetime)


@app.on(events.TaskProgress)
def of_a_base(event: events.TaskEvent) -> None:
    assert_type(event.id, str | None)


@app.on()
async def of_all(event: events.Event) -> None:
    match event:
        case events.TaskProgress(fraction=fraction):
            assert_type(fraction, float)
        case events.WorkerHeartbeat():
            assert_type(event.queues, tuple[str, ...])
        case _:
            pass


async def accepted() -> None:
    async for item in app.events.listen(types="task.*", since=3600):
        assert_type(item, events.Event | Gap)
    for event in app.events.listen(types=[events.TaskFailed, "dead"], gaps=False, since=timedelta(hours=1)):
        assert_type(event, events.Event)
    app.events.listen(since=datetime.now(UTC), when_full="drop_newest")
    async for event in (await add.adelay(1, 2)).events(timeout=5):
        assert_type(event, events.Event)


def rejected() -> None:
    app.on(events.TaskFailed)(of_another)  # wrong
    app.events.listen(when_full="cry")  # wrong
    app.events.listen(since="1h")  # wrong
    app.events.listen(types=5)  # wrong


def of_another(event: events.WorkerOnline) -> None:
    assert_type(event.pid, int | None)
