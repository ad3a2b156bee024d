"""Failed runs are tried again, as their tasks, and the servers they talk to, wish; then they are dead letters."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import contextmanager

import pytest

from streamq import State, TaskFailed
from streamq.config import Settings, WorkerSettings
from streamq.worker import clock
from streamq.worker.child import Job, serve
from streamq.worker.stop import Stop
from tests.workers import until

APP = "tests.apps.stubborn:app"


@contextmanager
def heard(connection):
    """Listen to what happens to tasks; give a function that collects the events of one, up to its end."""
    pubsub = connection.client.pubsub()
    pubsub.subscribe("sq:events:listening")
    pubsub.psubscribe("sq:events:default:*")
    assert until(lambda: pubsub.get_message(timeout=1))["type"] == "subscribe"
    assert until(lambda: pubsub.get_message(timeout=1))["type"] == "psubscribe"
    told = []

    def collect(task_id):
        def ended():
            if message := pubsub.get_message(timeout=0.1):
                told.append(json.loads(message["data"]))
            mine = [one for one in told if one["id"] == task_id]
            return mine if mine and mine[-1]["event"] in {"task.succeeded", "task.failed", "task.dead"} else None

        return until(ended)

    try:
        yield collect
    finally:
        pubsub.close()


@pytest.fixture
def stored(connection):
    """Give a function that reads a task's record."""

    def read(result):
        words = connection.client.execute_command("HGETALL", f"sq:{{default}}:task:{result.id}")
        return dict(zip(words[::2], words[1::2], strict=True))

    return read


def test_attempts_are_counted_and_told(any_server, stubborn, start_worker, connection, stored):
    """Each has its events, begins no sooner than it was told to, and ends in one result; wherever it runs."""
    start_worker(APP)
    with heard(connection) as collect:
        result = stubborn.succeed_at.delay(3)
        assert result.get(timeout=10) == 3
        events = collect(result.id)
    kinds = [event["event"].removeprefix("task.") for event in events]
    assert kinds == ["queued", "started", "retried", "queued", "started", "retried", "queued", "started", "succeeded"]
    first, second = (event for event in events if event["event"] == "task.retried")
    assert (first["attempt"], first["error"], second["attempt"]) == (2, "OSError", 3)
    for retried, queued in ((2, 3), (5, 6)):
        assert events[retried]["due"] >= events[retried]["time"] + 50
        assert events[queued]["time"] >= events[retried]["due"]
    record = stored(result)
    assert (record[b"attempt"], record[b"state"]) == (b"3", b"succeeded")
    assert json.loads(record[b"failure"])["message"] == "attempt 2", "the last failure can be looked at"
    assert stubborn.succeed_at_in_thread.delay(2).get(timeout=10) == 2
    assert stubborn.succeed_at_in_process.delay(2).get(timeout=10) == 2
    assert stubborn.until_content.delay().get(timeout=10) == 2, "a result can ask for another attempt, too"


def test_what_gives_up_is_a_dead_letter(any_server, stubborn, start_worker, connection, dead):
    """The caller gets the error of the last attempt, and the message is kept for a human, with all it held."""
    worker = start_worker(APP)
    with heard(connection) as collect:
        result = stubborn.succeed_at.delay(4)
        with pytest.raises(TaskFailed, match="OSError: attempt 3"):
            result.get(timeout=10)
        assert collect(result.id)[-1]["reason"] == "gave up after attempt 3"
    assert result.status() is State.DEAD
    letter = dead()[result.id]
    assert letter[b"reason"] == b"gave up after attempt 3"
    assert json.loads(letter[b"error"])["message"] == "attempt 3"
    assert (letter[b"attempt"], letter[b"args"]) == (b"3", b"[4]")
    assert "attempt 2 in 0.05 s" in worker.log
    assert "to the dead letters: gave up after attempt 3" in worker.log
    assert "Traceback" in worker.log.partition("gave up")[2]
    assert "Traceback" not in worker.log.partition("gave up")[0], "a failure that is not the end is one line"


def test_tasks_and_servers_have_wishes(stubborn, start_worker, dead):
    """They ask for another attempt, or for none, or to be left alone for a while."""
    start_worker(APP)
    asked, rejected, busy = stubborn.ask.delay(), stubborn.reject.delay(), stubborn.busy.delay()
    began = time.monotonic()
    assert asked.get(timeout=10) == 2
    with pytest.raises(TaskFailed, match="TaskRejected: no such customer"):
        rejected.get(timeout=10)
    assert rejected.status() is State.DEAD
    assert busy.get(timeout=10) == 2
    assert time.monotonic() - began > 0.3, "the server's wish is longer than the policy's 0.05 s"
    assert dead()[rejected.id][b"reason"] == b"no such customer"
    assert list(dead()) == [rejected.id]


def test_what_another_attempt_would_not_change_fails_at_once(stubborn, start_worker, tmp_path, dead):
    """It is no dead letter either: the task had its chance."""
    start_worker(APP)
    marker = tmp_path / "runs"
    with pytest.raises(TaskFailed, match="ResultEncodeError"):
        stubborn.unencodable.delay(marker).get(timeout=10)
    assert len(marker.read_text().split()) == 1
    for kind in ("file", "value"):
        result = stubborn.picky.delay(kind)
        with pytest.raises(TaskFailed, match="as asked"):
            result.get(timeout=10)
        assert result.status() is State.FAILED
    assert not dead()


def test_an_error_without_a_text_takes_nothing_along(stubborn, start_worker):
    """Its ``__str__`` raises. The places of such tasks are free again."""
    worker = start_worker(APP, "--concurrency", "1", "--threads", "1")
    for task in (stubborn.unreadable, stubborn.unreadable_in_thread, stubborn.unreadable_in_process) * 2:
        with pytest.raises(TaskFailed, match="the message could not be made"):
            task.delay().get(timeout=10)
    assert "never retrieved" not in worker.log


def test_the_next_attempt_survives_its_worker(stubborn, start_worker):
    """It waits in Redis, and not in the worker that had the one before; that one's death is none of the task's."""
    doomed = start_worker(APP)
    result = stubborn.fail_first.delay()
    until(lambda: result.status() is State.DELAYED)
    doomed.kill()
    start_worker(APP)
    assert result.get(timeout=10) == [2, 2, 0]


def test_a_record_that_is_deleted_under_a_running_task(stubborn, start_worker, connection, tmp_path):
    """Its outcome has no place any more; if it is to be run again, it has a record again. Nothing stays behind."""
    worker = start_worker(APP)
    marker, ready = tmp_path / "runs", tmp_path / "ready"
    results = [stubborn.when_ready.delay(marker, ready, attempts) for attempts in (1, 2)]
    until(lambda: marker.exists() and len(marker.read_text().split()) == 2)
    run = connection.client.execute_command
    for result in results:
        run("DEL", f"sq:{{default}}:task:{result.id}")
    ready.touch()
    until(lambda: len(marker.read_text().split()) == 3)
    until(lambda: run("XLEN", "sq:{default}:stream:5") == run("ZCARD", "sq:{default}:delayed") == 0)
    assert stubborn.succeed_at.delay(1).get(timeout=10) == 1
    assert [result.status() for result in results] == [State.UNKNOWN, State.SUCCEEDED]
    assert "Traceback" not in worker.log


def test_a_message_that_is_far_too_large(stubborn, start_worker, connection):
    """Somebody has written it by hand. Its task fails, and others go on."""
    worker = start_worker(APP)
    run = connection.client.execute_command
    result = stubborn.app.result("by-hand", queue="default")
    run("HSET", "sq:{default}:task:by-hand", "state", "queued", "task", "tests.apps.stubborn.ask")
    args = b'["%b"]' % (b"x" * 100_000_000)
    run("XADD", "sq:{default}:stream:5", "*", "id", "by-hand", "task", "tests.apps.stubborn.ask", "args", args)
    assert stubborn.succeed_at.delay(1).get(timeout=15) == 1
    with pytest.raises(TaskFailed, match="PayloadTooLarge: its 100000004 bytes of arguments are over max_payload"):
        result.get(timeout=10)
    worker.until_logged("[tests.apps.stubborn.ask by-hand attempt 1]")


async def test_a_worker_whose_clock_is_an_hour_off(stubborn, server_url, monkeypatch):
    """Redis's own clock says when a task is due; one that is not known waits, as it does elsewhere."""
    real, real_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + 3600 * 10**9)
    known = {name: task for name, task in stubborn.app.tasks.items() if not name.endswith("innocent")}
    monkeypatch.setattr(clock, "_offset_ms", 0)  # it is noted for the whole process
    job = Job(Settings(server_url), WorkerSettings(), "w-1", APP, known, None, lambda **_: None)
    stop, ready = Stop(), asyncio.Event()
    serving = asyncio.create_task(serve(job, stop, lambda _server: ready.set()))
    await ready.wait()
    began = time.monotonic()
    unknown = await stubborn.innocent.adelay("marker", "ready")
    assert await (await stubborn.ask.adelay()).aget(timeout=10) == 2
    assert await (await stubborn.succeed_at.using(countdown=0.2).adelay(1)).aget(timeout=10) == 1
    assert 0.3 <= time.monotonic() - began < 5
    assert await unknown.astatus() is State.DELAYED
    stop.ask()
    await serving
    await stubborn.app.aclose()
