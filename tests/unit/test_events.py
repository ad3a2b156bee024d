"""Events are read from what servers and workers publish, and chosen by type, task and queue."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from streamq.errors import ConfigError
from streamq.events import TYPES, Event, Wanted, read_event

_NOON = 1_795_348_800_123
_TASK_EVENT = Event("task.failed", datetime.now(UTC), queue="slow", task="shop.mail", id="1", worker="w-1")
_WORKER_EVENT = Event("worker.online", datetime.now(UTC), worker="w-1")


def test_an_event_has_typed_fields_and_details():
    told = {
        "event": "task.delayed",
        "queue": "q",
        "task": "t",
        "id": "1",
        "time": _NOON,
        "due": _NOON + 1000,
        "new": [1],
    }
    event = read_event(json.dumps(told).encode())
    assert event == Event(
        "task.delayed",
        datetime(2026, 11, 22, 12, 0, 0, 123_000, tzinfo=UTC),
        queue="q",
        task="t",
        id="1",
        details={"due": datetime(2026, 11, 22, 12, 0, 1, 123_000, tzinfo=UTC), "new": [1]},
    )
    assert json.loads(json.dumps(event.to_dict())) == {
        "type": "task.delayed",
        "time": "2026-11-22T12:00:00.123+00:00",
        "queue": "q",
        "task": "t",
        "id": "1",
        "due": "2026-11-22T12:00:01.123+00:00",
        "new": [1],
    }


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"nonsense", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "no event"),
        (b"{}", "no event"),
        (b'{"event": "task.failed"}', "no time"),
        (b'{"event": 1, "time": 1}', "no event"),
        (b'{"event": "task.failed", "time": "noon"}', "no time"),
        (b'{"event": "task.failed", "time": 1e300}', "no time in ms"),
        (b'{"event": "task.failed", "time": NaN}', "no time in ms"),
        (b'{"event": "task.failed", "time": 1, "id": 5}', "its id is not text"),
    ],
)
def test_what_is_no_event_is_refused_with_a_reason(data, reason):
    with pytest.raises(ValueError, match=reason):
        read_event(data)


@pytest.mark.parametrize(
    ("words", "types"),
    [
        ((), set(TYPES)),
        (("task.failed",), {"task.failed"}),
        (("failed", "dead"), {"task.failed", "task.dead"}),
        (("worker",), {"worker.online", "worker.heartbeat", "worker.offline"}),
        (("worker.o*",), {"worker.online", "worker.offline"}),
        (("*",), set(TYPES)),
        (("task.?ueued",), {"task.queued"}),
    ],
)
def test_types_are_chosen_by_whole_by_part_and_by_pattern(words, types):
    wanted = Wanted(words)
    assert {kind for kind in TYPES if Event(kind, datetime.now(UTC)) in wanted} == types


def test_a_choice_of_task_or_queue_leaves_out_events_of_workers():
    assert _TASK_EVENT in Wanted(tasks=("shop.*",))
    assert _TASK_EVENT in Wanted(tasks=("other", "shop.mail"), queues=("slow",))
    assert _TASK_EVENT not in Wanted(tasks=("shop.mail",), queues=("fast",))
    assert _TASK_EVENT not in Wanted(tasks=("mail",))
    assert _WORKER_EVENT in Wanted()
    assert _WORKER_EVENT not in Wanted(queues=("*",))


def test_types_of_a_newer_version_are_heard_too():
    newer = Event("task.cancelled", datetime.now(UTC), queue="q", task="t")
    assert newer in Wanted()
    assert newer in Wanted(("task",), queues=("q",))


@pytest.mark.parametrize("words", [{"types": ("faild",)}, {"types": ("worker",), "tasks": ("t",)}, {"types": ("",)}])
def test_a_choice_that_nothing_can_match_is_refused(words):
    with pytest.raises(ConfigError):
        Wanted(**words)


@pytest.mark.parametrize(
    ("wanted", "channels"),
    [
        (Wanted(), {"queue": "*", "task": "*", "event": "*"}),
        (Wanted(("failed",), ("mail",), ("slow",)), {"queue": "slow", "task": "mail", "event": "failed"}),
        (Wanted(("failed", "dead"), ("a", "b")), {"queue": "*", "task": "*", "event": "*"}),
        (Wanted(("worker.online",)), {"queue": "worker", "event": "online"}),
        (Wanted(("task.*", "worker.*")), {"queue": "*", "task": "*", "event": "*"}),
        (Wanted(tasks=("a[b",), queues=("a\\b",)), {"queue": "*", "task": "*", "event": "*"}),
    ],
)
def test_the_server_leaves_out_what_one_pattern_can(wanted, channels):
    assert wanted.channels() == channels
