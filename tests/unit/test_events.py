"""Events are read from what servers and workers publish, and chosen by type, task and queue."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

import pytest

from streamq import events
from streamq._redis import scripts
from streamq._redis.keys import Keys
from streamq.broker import event_log
from streamq.errors import ConfigError
from streamq.events import TYPES, Event, Wanted, of_task, read_event
from streamq.events.reading import Window

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
    assert event == events.TaskDelayed(
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
    ("wanted", "patterns"),
    [
        (Wanted(), ["*:*:*"]),
        (Wanted(("failed",), ("mail",), ("slow",)), ["slow:mail:failed"]),
        (Wanted(("failed", "dead"), ("a", "b")), ["*:a:failed", "*:a:dead", "*:b:failed", "*:b:dead"]),
        (Wanted(("failed", "dead", "task.failed"), ("a*", "b")), ["*:*:failed", "*:*:dead"]),
        (Wanted(("worker.online",)), ["worker:*:online"]),
        (Wanted(("worker.on*",)), ["worker:*:on*"]),
        (Wanted(("worker.online", "task.failed")), ["*:*:online", "*:*:failed"]),
        (Wanted(("task.*", "worker.*")), ["*:*:*"]),
        (Wanted(("failed", "task.d*")), ["*:*:*"]),
        (Wanted(tasks=("a[b",), queues=("a\\b",)), ["*:*:*"]),
        (Wanted(tasks=("b", "a:b")), ["*:*:*"]),
        (Wanted(tasks=("a:b",)), ["*:a:b:*"]),
        (Wanted(("failed",), tuple("abcdefghijklmnopqrst")), ["*:*:failed"]),
    ],
)
def test_the_server_leaves_out_what_patterns_can(wanted, patterns):
    assert wanted.patterns(Keys("sq")) == [f"sq:events:{pattern}" for pattern in patterns]


@pytest.mark.parametrize(
    "wanted", [Wanted(("failed", "dead"), ("a", "b"), ("q", "r")), Wanted(("online", "failed", "dead"))]
)
def test_no_event_comes_twice(wanted):
    """Whatever names there are, one pattern at most fits a channel, and one does if it is wanted."""
    names = ["a", "b", "a:b", "q", "worker", "x"]
    for queue, task, kind in itertools.product(names, names, TYPES):
        event = Event(kind, datetime.now(UTC), queue, task)
        channel = f"sq:events:{queue}:{task}:{kind.split('.')[1]}"
        fitting = [pattern for pattern in wanted.patterns(Keys("sq")) if fnmatchcase(channel, pattern)]
        assert len(fitting) <= 1
        assert fitting or event not in wanted


def read(kind, **details):
    return read_event(
        json.dumps({"event": kind, "time": _NOON, "queue": "q", "task": "t", "id": "1", **details}).encode()
    )


def test_each_type_has_a_class_with_what_is_told():
    later = datetime(2026, 11, 22, 12, 0, 1, 123_000, tzinfo=UTC)
    delayed = read("task.delayed", due=_NOON + 1000)
    assert isinstance(delayed, events.TaskDelayed)
    assert (delayed.due, delayed.reason) == (later, None)
    assert read("task.held", reason="fair").reason == "fair"
    assert read("task.started", deliveries=2).deliveries == 2
    retried = read("task.retried", due=_NOON + 1000, attempt=3, error="E")
    assert (retried.due, retried.attempt, retried.error) == (later, 3, "E")
    assert read("task.reclaimed", deaths=1).deaths == 1
    assert read("task.failed", error="builtins.ValueError").error == "builtins.ValueError"
    dead = read("task.dead", reason="unknown task")
    assert (dead.reason, dead.deaths) == ("unknown task", None)
    progress = read("task.progress", fraction=1, text="done")
    assert (progress.fraction, progress.text) == (1.0, "done")
    beat = read("worker.heartbeat", pid=7, queues=["a", "b"], running=3)
    assert isinstance(beat, events.WorkerEvent)
    assert (beat.pid, beat.queues, beat.running) == (7, ("a", "b"), 3)
    for kind in TYPES:
        name = "".join(part.capitalize() for part in kind.split("."))
        assert type(read(kind)) is getattr(events, name)
        assert kind == getattr(events, name).TYPE
    assert type(read("task.paused")) is Event


def test_what_has_another_type_than_today_counts_as_not_told():
    """An event of a newer version is no mistake."""
    assert read("task.delayed", due="soon").due is None
    assert read("task.progress", fraction=True, text=5).fraction == 0
    assert read("worker.online", queues=[1, "a"], running="many", pid=None).queues == ("a",)


@pytest.mark.parametrize(
    ("task_id", "needle"),
    [
        ("a1b2-c3", b'"a1b2-c3"'),
        ("{x}:~", b'"{x}:~"'),
        ('x"long_part"y', b"long_part"),
        ("ab/c", b"ab"),
        ("\\/", b""),
    ],
)
def test_an_id_is_found_in_whatever_json_makes_of_it(task_id, needle):
    found = of_task.needle_of(task_id)
    assert found == needle
    assert found in json.dumps({"id": task_id}).replace("/", "\\/").encode()
    assert found in json.dumps({"id": task_id}).encode()


def test_a_window_forgets_the_oldest():
    window = Window(2)
    for data in (b"1", b"2", b"2", b"3"):
        window.add(data)
    assert [data in window for data in (b"1", b"2", b"3")] == [False, True, True]


@pytest.mark.parametrize(
    "options",
    [
        {"since": -1},
        {"since": "1h"},
        {"since": True},
        {"since": datetime(2026, 1, 1)},  # noqa: DTZ001 - what is refused
        {"since": timedelta(seconds=-1)},
        {"buffer": 0},
        {"when_full": "cry"},
        {"types": "faild"},
        {"types": events.WorkerOnline, "tasks": "x"},
    ],
)
def test_what_cannot_be_listened_to_is_refused_at_once(app, options):
    with pytest.raises(ConfigError):
        app.events.listen(**options)


def test_handlers_are_registered_with_what_they_want(app):
    @app.on("task.failed", tasks="mail", queues=["slow", "fast"])
    def by_word(event):
        return event

    @app.on(events.TaskFailed, "dead", tasks=["other"])
    async def by_class(event):
        return event

    assert by_word(5) == 5
    first, second = app.on.all
    assert first.wanted == Wanted(("task.failed",), ("mail",), ("slow", "fast"))
    assert (first.is_async, second.is_async) == (False, True)
    assert first.name.endswith("by_word")
    assert app.on.wanted() == Wanted(("dead", "task.failed"), ("mail", "other"))
    app.on(events.WorkerEvent)(by_class)
    assert app.on.wanted() == Wanted(("dead", "task.failed", "worker.*"))
    app.on()(by_class)
    assert app.on.wanted() == Wanted()


def test_a_handler_that_can_never_be_called_is_refused(app):
    with pytest.raises(ConfigError, match="no events of type 'faild'"):
        app.on("faild")
    with pytest.raises(ConfigError, match="say which events"):
        app.on(lambda event: event)
    with pytest.raises(ConfigError, match="must be a function"):
        app.on("failed")(5)


def test_the_bound_of_a_log_is_the_one_that_scripts_have():
    assert f"'MAXLEN', '~', {event_log.MOST}," in scripts.load("announce").text
