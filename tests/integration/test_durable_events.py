"""What workers and their supervisors do is in the logs, if events are kept, for those who come late."""

from __future__ import annotations

import pytest

from streamq import TaskFailed
from streamq._redis.keys import Keys
from streamq.broker import event_log, walking
from streamq.events import read_event
from tests.workers import until

APP = "tests.apps.stubborn:app"
QUEUE_LOG, WORKER_LOG = "sq:{default}:events", "sq:worker-events"


@pytest.fixture
def durable(monkeypatch):
    monkeypatch.setenv("MAX_DEATHS", "2")
    monkeypatch.setenv("DURABLE_EVENTS", "1")


@pytest.fixture
def read(connection):
    """Give a function that reads all logs, oldest first, as somebody does who was not there."""

    def read_all():
        pages = walking.follow(connection, event_log.since(Keys("sq")))
        return [(one.log, read_event(one.event)) for page in pages for one in page]

    return read_all


def test_who_comes_late_reads_what_happened(any_server, durable, stubborn, start_worker, read):
    """Nobody listened: of the tasks, of the processes that died under one, and of the workers."""
    worker = start_worker(APP)
    until(read, why="the worker is ready, and soon says so")
    retried = stubborn.succeed_at.delay(2)
    assert retried.get(timeout=15) == 2
    deadly = stubborn.poison.delay("kill")  # not before: it would take the other one with it
    with pytest.raises(TaskFailed, match="WorkerDied"):
        deadly.get(timeout=15)
    worker.terminate()
    found = read()
    assert all(log == (WORKER_LOG if event.type.startswith("worker.") else QUEUE_LOG) for log, event in found)
    events = [event for _, event in found]
    kinds = {task.id: [event.type for event in events if event.id == task.id] for task in (retried, deadly)}
    once_more = ["task.queued", "task.started"]
    assert kinds[retried.id] == [*once_more, "task.retried", *once_more, "task.succeeded"]
    assert kinds[deadly.id] == [*once_more, "task.reclaimed", "task.started", "task.dead"]
    about = [event.type for event in events if event.type.startswith("worker.")]
    assert about[0] == "worker.online"
    assert about[-1] == "worker.offline"
    assert events[0].type == "worker.online", "merged by time"


def test_where_no_events_are_kept_no_worker_keeps_any(stubborn, start_worker, connection):
    worker = start_worker(APP)
    assert stubborn.succeed_at.delay(2).get(timeout=15) == 2
    worker.terminate()
    assert connection.client.execute_command("KEYS", "*events*") == []
