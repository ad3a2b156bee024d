"""Events are heard as they happen; those that were missed are told, or come from the logs where events are kept."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from streamq import ResultTimeout, StreamQ, UnknownTaskId, events
from streamq._redis.connections import SyncConnection
from streamq.broker.walking import complete
from streamq.channels.buffer import Missing
from streamq.channels.gaps import Gap
from streamq.errors import BrokerError, BrokerUnavailable
from streamq.events.reading import EventReader
from streamq.events.wanted import Wanted
from tests.serving import job_of, serving
from tests.workers import until


@pytest.fixture
def make_app():
    """Give a function that makes apps, which are closed at the end."""
    made = []

    def make(url, **options):
        app = StreamQ(url, **options)
        app.task(name="shop.add")(add)
        app.task(name="shop.fail")(fail)
        made.append(app)
        return app

    yield make
    for app in made:
        app.close()


async def add(x, y):
    return x + y


async def fail():
    raise ValueError("no")


@pytest.fixture
def app(make_app, server_url):
    return make_app(server_url)


@pytest.fixture
def durable(make_app, server_url):
    return make_app(server_url, durable_events=True)


def put(app, *ids, name="shop.add", queue="default"):
    """Enqueue tasks, each of which makes one event."""
    for task_id in ids:
        app.tasks[name].using(task_id=task_id, queue=queue).delay(*((1, 2) if name == "shop.add" else ()))


def ids(listener, number):
    """Return the ids of the next events, and the reasons of gaps."""
    found = (next(listener) for _ in range(number))
    return [one.reason if isinstance(one, Gap) else one.id for one in found]


def cut(url, kind="pubsub"):
    connection = SyncConnection(url)
    connection.client.execute_command("CLIENT", "KILL", "TYPE", kind)
    connection.close()


@pytest.mark.usefixtures("any_server")
async def test_tasks_and_workers_are_heard_by_their_types(app):
    """On an event loop; each event has its class."""
    job = job_of(app.settings, "x:app", app.tasks, "w-1")
    async with app, app.events.listen(gaps=False) as listener:
        async with serving(job):
            good, bad = await app.tasks["shop.add"].adelay(1, 2), await app.tasks["shop.fail"].adelay()
            await bad.aprogress(0.4, "some")
            with pytest.raises(Exception, match="no"):
                await bad.aget(timeout=10)
            assert await good.aget(timeout=10) == 3
        heard = []
        async for event in listener:
            heard.append(event)
            if isinstance(event, events.WorkerOffline):
                break
        kinds = {task: [type(one) for one in heard if one.id == task] for task in (good.id, bad.id)}
        assert kinds[good.id] == [events.TaskQueued, events.TaskStarted, events.TaskSucceeded]
        assert [kind for kind in kinds[bad.id] if kind is not events.TaskProgress] == [
            *(events.TaskQueued, events.TaskStarted, events.TaskFailed)
        ]
        [failed] = [one for one in heard if isinstance(one, events.TaskFailed)]
        assert failed.error == "ValueError"
        assert isinstance(next(one for one in heard if one.type == "worker.online"), events.WorkerOnline)


@pytest.mark.usefixtures("any_server")
def test_several_words_hear_each_event_once(app):
    choice = {"types": (events.TaskQueued, "cancelled"), "tasks": ("shop.add", "shop.fail"), "queues": ("a", "b")}
    with app.events.listen(**choice) as listener:
        put(app, "1", queue="a")
        put(app, "no", queue="c")
        put(app, "2", queue="b", name="shop.fail")
        app.result("1", queue="a").cancel()
        put(app, "3", queue="a")
        found = [next(listener) for _ in range(4)]
        assert [(one.id, one.type) for one in found] == [
            *(("1", "task.queued"), ("2", "task.queued"), ("1", "task.cancelled"), ("3", "task.queued"))
        ]
        assert listener.counts.received == 4, "the server has left out the rest"


def test_what_is_no_event_is_counted_and_skipped(app, caplog):
    with app.events.listen() as listener:
        for _ in range(3):
            app.broker.sync.client.execute_command("PUBLISH", "sq:events:default:x:failed", b"\xffnonsense")
        put(app, "1")
        assert ids(listener, 1) == ["1"]
        assert listener.counts.unreadable == 3
    [said] = [one.getMessage() for one in caplog.records if one.name == "streamq.channels"]
    assert said.startswith("skipped what is no event on channel sq:events:default:x:failed: not JSON: ")
    assert said.endswith("(1 so far)")


@pytest.mark.usefixtures("any_server")
def test_a_lost_connection_is_a_gap_where_no_events_are_kept(app, server_url):
    with app.events.listen() as listener:
        put(app, "1")
        assert ids(listener, 1) == ["1"]
        cut(server_url)
        assert ids(listener, 1) == ["reconnected"]
        put(app, "2")
        assert ids(listener, 1) == ["2"]
        assert listener.counts.reconnected


def test_without_gaps_they_are_logged(app, server_url, caplog):
    with app.events.listen(gaps=False) as listener:
        cut(server_url)
        until(lambda: listener.counts.reconnected)
        put(app, "1")
        assert ids(listener, 1) == ["1"]
    assert "events are missing: Gap(reason='reconnected'" in caplog.text


def test_a_slow_listener_is_told_what_it_lost(app):
    with app.events.listen(buffer=5) as listener:
        put(app, *(str(number) for number in range(20)))
        until(lambda: listener.counts.received == 20)
        gap = next(listener)
        assert (gap.reason, gap.missed) == ("overflow", 15)
        assert ids(listener, 5) == ["15", "16", "17", "18", "19"]


@pytest.mark.usefixtures("any_server")
def test_a_slow_listener_loses_nothing_that_is_kept(durable):
    every = [str(number) for number in range(300)]
    with durable.events.listen(buffer=5) as listener:
        put(durable, *every)
        until(lambda: listener.counts.received == 300)
        assert ids(listener, 300) == every
        put(durable, "last")
        assert ids(listener, 1) == ["last"], "and nothing comes twice"


@pytest.mark.usefixtures("any_server")
def test_what_is_kept_fills_the_gap_of_a_lost_connection(durable, make_app, server_url, monkeypatch):
    """In order, and nothing twice, though more than is missing is read again."""
    other = make_app(server_url, durable_events=True)
    with durable.events.listen() as listener:
        put(other, "1", "2")
        assert ids(listener, 2) == ["1", "2"]
        hub = durable.broker.hub
        opened, wait = hub._open, threading.Event()
        monkeypatch.setattr(hub, "_open", lambda: (wait.wait(10), opened()))
        cut(server_url)
        until(lambda: hub._error is not None)
        put(other, "3")
        put(other, "4", queue="slow")
        wait.set()
        until(lambda: listener.counts.reconnected)
        put(other, "5")
        assert ids(listener, 3) == ["3", "4", "5"]
        put(other, "6")
        assert ids(listener, 1) == ["6"]


@pytest.mark.usefixtures("any_server")
def test_a_late_dashboard_begins_in_the_past(durable):
    put(durable, "1", "2")
    put(durable, "3", queue="slow")
    put(durable, "no", name="shop.fail")
    begun = datetime.now(UTC)
    for number, since in enumerate((3600, timedelta(hours=1), begun - timedelta(hours=1))):
        with durable.events.listen(tasks="shop.*dd", since=since) as listener:
            put(durable, f"live-{number}")
            assert ids(listener, 4)[:3] == ["1", "2", "3"]
    with durable.events.listen(since=0, queues="default") as listener:
        put(durable, "4")
        assert ids(listener, 1) == ["4"]


def test_a_past_of_many_pages_and_a_present_join(durable, make_app, server_url):
    """While it is read events go on: each comes once, in the order of its queue."""
    every = [str(number) for number in range(2500)]
    durable.enqueue_many([durable.tasks["shop.add"].using(task_id=one).s(1, 2) for one in every[:2000]])
    other = make_app(server_url, durable_events=True)
    going_on = threading.Thread(target=put, args=(other, *every[2000:]))
    with durable.events.listen(since=60) as listener:
        going_on.start()
        assert ids(listener, 2500) == every
        going_on.join()
        put(durable, "last")
        assert ids(listener, 1) == ["last"]


def test_where_no_events_are_kept_the_past_is_empty(app):
    put(app, "1")
    with app.events.listen(since=3600) as listener:
        put(app, "2")
        assert ids(listener, 1) == ["2"]


def test_a_server_that_was_killed_is_heard_again(make_app, private_server):
    server = private_server("--appendfsync", "always")
    app = make_app(f"redis://127.0.0.1:{server.port}", durable_events=True)
    with app.events.listen() as listener:
        put(app, "1")
        assert ids(listener, 1) == ["1"]
        server.kill()
        server.start()
        put(app, "2")
        assert ids(listener, 1) == ["2"]
        put(app, "3")
        assert ids(listener, 1) == ["3"]


def test_a_gap_longer_than_the_logs_last_is_told_as_well(durable, server_url, monkeypatch):
    with durable.events.listen() as listener:
        put(durable, "1")
        assert ids(listener, 1) == ["1"]
        monkeypatch.setattr("streamq.events.reading._KEPT_SECONDS", -1)
        cut(server_url)
        assert ids(listener, 1) == ["reconnected"]
        put(durable, "2")
        assert ids(listener, 1) == ["2"]


def test_what_was_removed_from_the_logs_is_told(durable, server_url, monkeypatch):
    """A log has a bound; what was missed and is not there any more stays missing."""
    monkeypatch.setattr("streamq.broker.event_log.MOST", 2)
    monkeypatch.setattr("streamq.events.reading._OVERLAP_MS", 0)
    run = durable.broker.sync.client.execute_command
    with durable.events.listen() as listener:
        put(durable, "1")
        assert ids(listener, 1) == ["1"]
        hub = durable.broker.hub
        opened, wait = hub._open, threading.Event()
        monkeypatch.setattr(hub, "_open", lambda: (wait.wait(10), opened()))
        cut(server_url)
        until(lambda: hub._error is not None)
        put(durable, "2", "3", "4")
        run("XTRIM", "sq:{default}:events", "MAXLEN", 2)
        wait.set()
        assert ids(listener, 3) == ["trimmed", "3", "4"]


def test_what_was_dropped_may_have_waited_for_long(durable):
    """It is looked for from the last event on that was read before it, whenever it was dropped."""
    put(durable, "1")
    reader = EventReader(durable.broker.keys, Wanted(), None, gaps=True, buffer=10)
    reader.missing(Missing("overflow", time.time() + 60))
    found = []
    while reader.is_behind:
        found += complete(durable.broker.sync, reader.catch_up())
    assert [event.id for event in found] == ["1"]


def test_a_loss_that_each_name_tells_of_is_one_gap(app):
    """Names are subscribed one by one, and the first may have been read of before the last is."""
    reader = EventReader(app.broker.keys, Wanted(), None, gaps=True, buffer=10)
    found = []
    for since in (5.0, 5.0, 7.0):
        assert reader.missing(Missing("reconnected", since)) == []
        while reader.is_behind:
            found += complete(app.broker.sync, reader.catch_up())
    assert [gap.since.timestamp() for gap in found] == [5.0, 7.0]


def test_a_server_that_is_away_is_an_error_at_once(make_app):
    app = make_app("redis://localhost:1")
    with pytest.raises(BrokerUnavailable), app.events.listen():
        pass


# ---- of one task


@pytest.mark.usefixtures("any_server")
async def test_the_events_of_a_task_end_with_it(app):
    job = job_of(app.settings, "x:app", app.tasks, "w-1")
    async with app:
        result = await app.tasks["shop.fail"].adelay()
        heard = []
        async with result.events(timeout=10) as listener:
            await result.aprogress(0.4, "some")
            async with serving(job):
                await app.tasks["shop.fail"].adelay()
                heard += [event async for event in listener]
        assert [type(event) for event in heard] == [events.TaskProgress, events.TaskStarted, events.TaskFailed]
        assert {event.id for event in heard} == {result.id}
        assert heard[0].fraction == 0.4
        assert [event.error async for event in result.events()] == ["ValueError"], "it has ended already"


@pytest.mark.usefixtures("any_server")
def test_a_lost_end_is_found(app):
    """The record says so, within a second or two; the event is made of it."""
    put(app, "1")
    with app.result("1").events(timeout=10) as listener:
        app.result("1").progress(0.5)
        assert next(listener).fraction == 0.5
        app.broker.hub.unsubscribe(*listener._topics[0], listener._buffer)
        going_on = threading.Timer(0.2, app.result("1").cancel)
        going_on.start()
        [event] = listener
        going_on.join()
    assert isinstance(event, events.TaskCancelled)
    assert (event.id, event.task, event.queue) == ("1", "shop.add", "default")
    assert abs(event.time.timestamp() - time.time()) < 5


def test_the_end_of_a_task_is_found_after_its_server_was_killed(make_app, private_server):
    server = private_server("--appendfsync", "always")
    app, other = (make_app(f"redis://127.0.0.1:{server.port}") for _ in range(2))
    put(app, "1")
    with app.result("1").events(timeout=20) as listener:
        server.kill()
        server.start()
        assert until(lambda: other.result("1").cancel(), seconds=5)
        assert [type(event) for event in listener] == [events.TaskCancelled]


def test_each_end_of_a_task_is_made_of_its_record(app):
    run, keys = app.broker.sync.client.execute_command, app.broker.keys.queue("default")
    error = json.dumps({"type": "a.B", "message": "unknown task", "args": None, "traceback": ""})
    ends = {
        "succeeded": (("result", "3"), events.TaskSucceeded),
        "failed": (("error", error), events.TaskFailed),
        "dead": (("error", error, "deaths", "2"), events.TaskDead),
        "expired": (("error", error), events.TaskExpired),
        "cancelled": (("error", error), events.TaskCancelled),
    }
    for state, (fields, kind) in ends.items():
        run("HSET", keys.record(state), "state", state, "task", "t", "ended", 1_795_348_800_123, *fields)
        run("PEXPIRE", keys.record(state), 60_000)
        [event] = app.result(state, queue="default").events()
        assert type(event) is kind
        assert event.to_dict()["time"] == "2026-11-22T12:00:00.123+00:00"
    [failed], [dead] = (app.result(state, queue="default").events() for state in ("failed", "dead"))
    assert failed.error == "a.B"
    assert (dead.reason, dead.deaths) == ("unknown task", 2)


def test_a_task_that_is_not_known_or_says_nothing(app):
    with pytest.raises(UnknownTaskId):
        next(app.result("nobody").events())
    put(app, "1")
    with app.result("1").events(timeout=0.05) as listener:
        for _ in range(2):
            with pytest.raises(ResultTimeout):
                next(listener)
        app.result("1").progress(1)
        assert next(listener).fraction == 1
        app.result("1").cancel()
        assert [event.type for event in listener] == ["task.cancelled"]


def test_a_task_that_is_forgotten_meanwhile_is_unknown(app):
    put(app, "1")
    with app.result("1").events(timeout=10) as listener:
        app.broker.sync.client.execute_command("DEL", app.broker.keys.queue("default").record("1"))
        with pytest.raises(UnknownTaskId):
            next(listener)


def test_many_results_hear_only_their_own(app):
    put(app, *(f"id-{number}" for number in range(50)))
    listeners = [app.result(f"id-{number}", queue="default").events(timeout=10) for number in range(50)]
    for listener in listeners:
        listener.__enter__()
    for number in range(50):
        app.result(f"id-{number}", queue="default").cancel()
    for number, listener in enumerate(listeners):
        assert [(event.type, event.id) for event in listener] == [("task.cancelled", f"id-{number}")]
        assert listener.counts.received <= 1


def test_a_server_that_is_away_is_told_to_who_asks_for_a_task(make_app):
    app = make_app("redis://localhost:1")
    with pytest.raises(BrokerError):
        next(app.result("1", queue="default").events())
