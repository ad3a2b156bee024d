"""A task is enqueued, runs on a worker, and its outcome comes back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest

from streamq import (
    ResultTimeout,
    State,
    TaskFailed,
    UnknownTaskId,
)

APP = "tests.apps.basic:app"


def test_sync_and_async_callers(any_server, basic, start_worker):
    """A sync caller gets the results of async and of sync tasks, one by one and in bulk."""
    start_worker(APP)
    assert basic.add.delay(2, 3).get(timeout=10) == 5
    assert basic.square.delay(7).get(timeout=10) == 49
    assert basic.add.apply_async((2,), {"y": 4}).get(timeout=10) == 6
    results = basic.app.enqueue_many(basic.add.s(i, i) for i in range(1000))
    assert [result.get(timeout=10) for result in results] == [2 * i for i in range(1000)]
    assert results[0].status() is State.SUCCEEDED


async def test_async_callers(any_server, basic, start_worker):
    """An async caller has the same, with an ``a`` before each name."""
    start_worker(APP)
    async with basic.app:
        result = await basic.add.adelay(2, 3)
        assert await result.aget(timeout=10) == 5
        assert await result.astatus() is State.SUCCEEDED
        many = await basic.app.aenqueue_many([basic.square.s(i) for i in range(300)])
        assert [await result.aget(timeout=10) for result in many] == [i * i for i in range(300)]
        assert (await (await basic.add.aapply_async((1, 1))).aget(timeout=10)) == 2
        assert await result.aforget()
        with pytest.raises(UnknownTaskId):
            await result.aget(timeout=1)


def test_types_travel(basic, server_url, start_worker):
    """Models, dataclasses, times, ids, decimals, bytes, enums and paths arrive and come back as what they are."""
    start_worker(APP)
    order = basic.Order(
        id=uuid4(),
        at=datetime(2026, 11, 22, 12, 30, tzinfo=UTC),
        items=[basic.Item(name="tea", price=Decimal("3.10"))],
        colour=basic.Colour.RED,
        path=Path("/srv/orders"),
        raw=b"\x00\xff",
    )
    assert basic.ship.delay(order).get(timeout=10) == order
    assert basic.ship.delay(order, gift=True).get(timeout=10) == order


def test_a_failed_task_raises_with_the_remote_traceback(basic, start_worker):
    """What a task raises comes back as plain data: type name, message and traceback."""
    start_worker(APP)
    result = basic.fail.delay("no such shelf")
    with pytest.raises(TaskFailed, match="no such shelf") as caught:
        result.get(timeout=10)
    assert caught.value.type_name == "ValueError"
    assert caught.value.task_id == result.id
    assert "raise ValueError(message)" in caught.value.traceback
    assert "streamq/worker" not in caught.value.traceback, "the user's own frames are what matters"
    assert result.status() is State.FAILED


def test_listed_exceptions_come_back_as_themselves(basic, start_worker):
    """A class in ``raises`` is raised at the caller, with its arguments; the remote traceback is its cause."""
    start_worker(APP)
    with pytest.raises(basic.OutOfStock) as caught:
        basic.sell.delay("tea", 3).get(timeout=10)
    assert caught.value.args == ("tea", 3)
    assert isinstance(caught.value.__cause__, TaskFailed)


@pytest.mark.parametrize(
    ("name", "args", "type_name", "message"),
    [
        ("add", ("a", 2), "streamq.errors.ArgumentError", "argument 'x'"),
        ("unencodable", (), "streamq.errors.ResultEncodeError", "object cannot be stored"),
        ("large", (2_000_000,), "streamq.errors.ResultTooLarge", "max_result"),
        ("slow_async", (), "streamq.errors.TaskTimeout", "0.2 s"),
        ("slow_thread", (), "streamq.errors.TaskTimeout", "0.2 s"),
        ("leave", (), "SystemExit", "3"),
    ],
)
def test_what_goes_wrong_fails_that_task_alone(basic, start_worker, name, args, type_name, message):
    """Arguments and results that do not fit, and runs that take too long, fail clearly; the worker goes on."""
    start_worker(APP)
    with pytest.raises(TaskFailed) as caught:
        getattr(basic, name).delay(*args).get(timeout=10)
    assert caught.value.type_name == type_name
    assert message in caught.value.message
    assert basic.square.delay(3).get(timeout=10) == 9
    assert basic.add.delay(3, 3).get(timeout=10) == 6


def test_a_task_knows_itself(basic, start_worker):
    """The context says what runs, where it came from, and what the lifespan yielded."""
    start_worker(APP)
    before = datetime.now(UTC)
    result = basic.about.delay()
    seen = result.get(timeout=10)
    assert (seen["id"], seen["name"], seen["queue"]) == (result.id, "tests.apps.basic.about", "default")
    assert (seen["attempt"], seen["deliveries"]) == (1, 1)
    assert abs(datetime.fromisoformat(seen["enqueued_at"]) - before) < timedelta(seconds=5)
    assert seen["state"] == "from the lifespan"
    assert seen["same"] is True
    in_thread = basic.about_thread.delay()
    assert in_thread.get(timeout=10) == in_thread.id


def test_waiting_ends_in_time(basic, server_url):
    """Without a worker a wait ends when the caller says, and the task is still there."""
    result = basic.add.delay(1, 1)
    with pytest.raises(ResultTimeout, match=r"has not ended after 0\.05 s"):
        result.get(timeout=0.05)
    assert result.status() is State.QUEUED


def test_an_unknown_id_says_so(basic, server_url):
    """An id that was never enqueued is not waited for."""
    result = basic.app.result("never-enqueued")
    assert result.status() is State.UNKNOWN
    with pytest.raises(UnknownTaskId):
        result.get(timeout=5)
    assert not result.forget()


def test_a_result_by_id_alone(basic, start_worker):
    """Another process finds a result by its id, whatever queue it was on."""
    start_worker(APP, "--queues", "default,slow")
    known = basic.add.using(queue="slow").delay(2, 2)
    known.get(timeout=10)
    assert basic.app.result(known.id).get(timeout=10) == 4


def test_forgetting(basic, start_worker):
    """A forgotten task leaves no record: neither one that has ended, nor one that is still to end."""
    ended_later = basic.add.delay(1, 1)
    assert ended_later.forget()
    start_worker(APP)
    ended = basic.add.delay(2, 2)
    ended.get(timeout=10)
    assert ended.forget()
    assert ended.status() is State.UNKNOWN
    assert ended_later.status() is State.UNKNOWN


def test_one_id_is_one_task(basic, server_url, connection):
    """Enqueueing an id again does nothing, also in bulk."""
    first = basic.add.using(task_id="order-17").delay(1, 1)
    again = basic.add.using(task_id="order-17").delay(1, 1)
    basic.app.enqueue_many([basic.add.using(task_id="order-17").s(1, 1)])
    assert first.id == again.id == "order-17"
    assert connection.client.execute_command("XLEN", "sq:{default}:stream:5") == 1


def test_a_countdown(basic, start_worker):
    """A delayed task waits for its time, by the server's clock, outside any worker."""
    start_worker(APP)
    result = basic.about.using(countdown=0.5).delay()
    assert result.status() is State.DELAYED
    seen = result.get(timeout=10)
    took = result.record().ended_ms / 1000 - datetime.fromisoformat(seen["enqueued_at"]).timestamp()
    assert 0.5 <= took < 3


def test_user_log_lines_carry_the_task(basic, start_worker):
    """What user code logs can be told to belong to a task; arguments are not logged."""
    worker = start_worker(APP, "--log-format", "json")
    result = basic.log_a_line.delay("hunter2")
    result.get(timeout=10)
    worker.until_logged("from user code")
    line = next(line for line in worker.log.splitlines() if "from user code" in line)
    assert f'"task_id": "{result.id}"' in line
    assert '"task_name": "tests.apps.basic.log_a_line"' in line
    assert '"attempt": 1' in line
    assert "hunter2" not in worker.log
