"""Events are made while somebody is subscribed to the beacon, and cost nothing otherwise."""

from __future__ import annotations

import json

import pytest

from streamq import StreamQ
from streamq.broker import calls
from streamq.events import read_event
from streamq.lifecycle import State
from tests.lua.conftest import ERROR
from tests.workers import until


@pytest.fixture
def next_event(q):
    """Listen to all events; give a function that returns the next one, checked against its channel."""
    with q.listening(q.keys.events(), pattern=True) as next_message:

        def read():
            channel, data = next_message()
            told = json.loads(data)
            assert channel == f"sq:events:q:{told['task']}:{told['event'].removeprefix('task.')}"
            assert told["queue"] == "q"
            assert abs(told["time"] - q.now()) < 10_000
            read_event(data)
            return {name: value for name, value in told.items() if name not in {"queue", "task", "time"}}

        assert q.has_listeners()
        yield read


def test_a_task_is_heard_of_from_enqueue_to_result(q, next_event):
    (delivery,) = q.deliver("1")
    assert next_event() == {"event": "task.queued", "id": "1"}
    q.finish(delivery)
    assert next_event() == {"event": "task.succeeded", "id": "1", "worker": "w-1"}


def test_a_failure_is_heard_of_with_its_kind_and_without_its_text(q, next_event):
    """What the error says may be nobody else's business."""
    (delivery,) = q.deliver("1")
    next_event()
    q.finish(delivery, state=State.FAILED, body=ERROR)
    assert next_event() == {"event": "task.failed", "id": "1", "worker": "w-1", "error": "ValueError"}


def test_that_a_task_has_expired_is_heard_of(q, next_event):
    (delivery,) = q.deliver("1")
    next_event()
    q.finish(delivery, state=State.EXPIRED, body=ERROR)
    assert next_event() == {"event": "task.expired", "id": "1", "worker": "w-1"}


@pytest.mark.parametrize(
    "args",
    [b"[NaN,Infinity,-Infinity]", b"[" * 190 + b"]" * 190, b"[1e400]", rb'["\u0000\ud83c\udf75"]', b"null"],
)
def test_whatever_an_error_holds_it_can_be_committed_and_heard_of(q, next_event, args):
    """The script reads what was stored, and must not stumble over it."""
    (delivery,) = q.deliver("1")
    next_event()
    body = b'{"type":"E","message":"","args":%b,"traceback":""}' % args
    assert q.finish(delivery, state=State.FAILED, body=body) == []
    assert next_event()["error"] == "E"
    assert q.record()["state"] == "failed"
    assert q.pending(q.ready) == {}


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"{}"])
def test_an_error_of_another_form_is_committed(q, next_event, body):
    """Its kind is not known, and that is all."""
    (delivery,) = q.deliver("1")
    next_event()
    assert q.finish(delivery, state=State.FAILED, body=body) == []
    assert "error" not in next_event()


@pytest.mark.parametrize("body", [b"", b"no json"])
def test_an_error_that_is_no_json_is_committed_all_the_same(q, next_event, body):
    """News may be lost, work may not: the entry is not left pending beside an ended record."""
    (delivery,) = q.deliver("1")
    next_event()
    assert q.finish(delivery, state=State.FAILED, body=body) == []
    assert q.record()["state"] == "failed"
    assert q.pending(q.ready) == {}


def test_a_delayed_task_is_heard_of_twice(q, next_event):
    """When it is put off, with the time, and when it is due."""
    q.enqueue("1", delay_ms=60_000)
    assert next_event() == {"event": "task.delayed", "id": "1", "due": q.delayed()["1"]}
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    assert next_event() == {"event": "task.queued", "id": "1"}


def test_a_reclaim_is_heard_of_and_a_return_is_not(q, next_event):
    """Only a death is news."""
    (delivery,) = q.deliver("1")
    assert next_event()["event"] == "task.queued"
    q.give_back(delivery, died="")
    (delivery,) = q.fetch("w-2")
    q.give_back(delivery, owner="w-2", died="signal SIGKILL")
    assert next_event() == {"event": "task.reclaimed", "id": "1", "worker": "w-2", "deaths": 1}


def test_a_retry_is_heard_of_with_the_kind_of_its_error(q, next_event):
    """And not with its text, which may hold what is nobody else's business."""
    (delivery,) = q.deliver("1")
    next_event()
    q.park(delivery, error=b'{"type":"ValueError","message":"secret"}')
    due = q.delayed()["1"]
    assert next_event() == {
        "event": "task.retried",
        "id": "1",
        "due": due,
        "attempt": 2,
        "error": "ValueError",
        "worker": "w-1",
    }


def test_what_is_parked_or_buried_is_heard_of_with_the_reason(q, next_event):
    parked, buried = q.deliver("1", "2")
    next_event()
    next_event()
    q.park(parked)
    assert next_event() == {"event": "task.delayed", "id": "1", "due": q.delayed()["1"], "reason": "why"}
    q.bury(buried)
    assert next_event() == {"event": "task.dead", "id": "2", "worker": "w-1", "reason": "why"}


def test_what_changes_nothing_is_not_news(q, next_event):
    """Enqueued again, refused, committed again, buried again: nobody hears of it."""
    (old,) = q.deliver("1")
    assert next_event()["event"] == "task.queued"
    q.enqueue("1")
    q.give_back(old)
    q.finish(old)
    q.bury(old)
    (new,) = q.fetch()
    q.finish(new)
    assert next_event()["event"] == "task.succeeded"
    q.finish(new)
    q.bury(new)
    q.enqueue("2")
    assert next_event() == {"event": "task.queued", "id": "2"}


def assert_that_nothing_is_made(q, next_message):
    """Enqueue a task, and see by the next message that nobody told of it."""
    channel = "sq:events:q:shop.buy:queued"
    assert not q.has_listeners()
    q.enqueue("1")
    q.redis("PUBLISH", channel, "the end")
    assert next_message() == (channel, b"the end")


def test_without_a_listener_no_event_is_made(q):
    """One who is subscribed to the channel alone, and not to the beacon, is no listener."""
    with q.listening("sq:events:q:shop.buy:queued") as next_message:
        assert_that_nothing_is_made(q, next_message)


@pytest.mark.parametrize("pattern", ["*", "sq:*", "sq:events:*:*:*"])
def test_for_one_who_is_subscribed_by_a_pattern_no_event_is_made(q, pattern):
    """Channels that are no events can be subscribed by patterns too."""
    with q.listening(pattern, pattern=True, beacon=False) as next_message:
        assert_that_nothing_is_made(q, next_message)


def test_for_listeners_of_another_namespace_no_event_is_made(q):
    with q.listening("sq2:events:listening"), q.listening("sq:events:q:shop.buy:queued") as next_message:
        assert_that_nothing_is_made(q, next_message)


@pytest.fixture
def heard(any_server):
    """Listen to events as an app does."""
    with StreamQ(any_server) as app, app.events.listen() as listener:
        yield listener


def test_a_listener_that_has_gone_is_known_to_be_gone(q, heard):
    assert q.has_listeners()
    q.enqueue("0")
    assert next(heard).id == "0"
    heard.close()
    until(lambda: not q.has_listeners())
    with q.listening("sq:events:q:shop.buy:queued") as next_message:
        assert_that_nothing_is_made(q, next_message)


def test_a_listener_that_lost_its_connection_is_counted_again(q, heard):
    q.redis("CLIENT", "KILL", "TYPE", "pubsub")
    assert next(heard).reason == "reconnected"
    q.enqueue("1")
    assert next(heard).id == "1"


def test_workers_announce_what_they_like(q):
    """Each text on its channel, in order, as it is."""
    with q.listening("a", "b") as next_message:
        q.run(calls.announce(None, [("a", b"1"), ("b", b"\xff\x00"), ("a", b"")]))
        assert [next_message() for _ in range(3)] == [("a", b"1"), ("b", b"\xff\x00"), ("a", b"")]
    q.run(calls.announce(None, []))
