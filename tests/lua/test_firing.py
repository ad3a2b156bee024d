"""Schedules: each instant is fired once, whoever tries and whatever got lost."""

from __future__ import annotations

import pytest

from streamq.broker import schedules
from streamq.broker.schedules import DueSchedule
from streamq.errors import BrokerOutOfMemory, BrokerReset
from streamq.message import Lock, Message, Terms
from tests.workers import until

DUE, NEXT = 1_000_000, 2_000_000_000_000  # long ago, and in some years
WHAT = b'{"task":"shop.buy"}'


def define(q, name="nightly", what=WHAT, next_ms=DUE, since=None):
    return q.run(schedules.define_schedule(q.queue, name, what, next_ms, since))


def read(q, name="nightly"):
    return q.run(schedules.read_schedules(q.queue, [name])).schedules[0]


def due(q, passed_over=0, limit=10):
    return q.run(schedules.due_schedules(q.queue, passed_over, limit)).due


def fire(q, one, *ids, next_ms=NEXT, options=b""):
    messages = [Message(task_id, "shop.buy", "q", b"[]", options=options) for task_id in ids]
    last = str(one.due_ms) if ids else ""
    call = schedules.fire(q.keys, q.queue, one, messages, next_ms=next_ms, last=last)
    return q.run(call) is not None


def ids(q):
    return [entry["id"] for entry in q.entries(q.ready)]


# ---- what is due


def test_nothing_is_due_where_there_is_nothing(q):
    found = q.run(schedules.due_schedules(q.queue, 0, 10))
    assert found.due == []
    assert found.next_ms is None
    assert abs(found.now_ms - q.now()) < 1000


def test_what_is_due_comes_oldest_first_with_what_is_known_of_it(q):
    define(q, "later", next_ms=DUE + 1)
    define(q, "first", next_ms=DUE, since=7)
    assert [(one.name, one.due_ms, one.definition) for one in due(q)] == [
        ("first", DUE, WHAT),
        ("later", DUE + 1, WHAT),
    ]
    first, later = due(q)
    assert first.declaration.stored.startswith(b"7 ")
    assert abs(first.declaration.repeated_ms - q.now()) < 1000
    assert later.declaration is None
    assert due(q, limit=1) == [first]
    assert due(q, passed_over=1) == [later]


def test_the_time_until_the_next_one_is_told(q):
    """Of those that are not due, and in ms."""
    define(q)
    define(q, "soon", next_ms=q.now() + 5_000)
    define(q, "much later", next_ms=q.now() + 50_000)
    found = q.run(schedules.due_schedules(q.queue, 0, 10))
    assert [one.name for one in found.due] == ["nightly"]
    assert 4_000 < found.next_ms <= 5_000


# ---- fire


def test_a_schedule_that_is_due_puts_its_message(q):
    """As an enqueue would have done it; and it is due again later."""
    define(q)
    assert fire(q, due(q)[0], "a", options=b'{"scheduled_ms":1000000}') is True
    (delivery,) = q.fetch()
    assert delivery.message == Message("a", "shop.buy", "q", b"[]", options=b'{"scheduled_ms":1000000}')
    assert q.record("a")["state"] == "queued"
    assert due(q) == []
    assert read(q)[:3] == (WHAT, NEXT, DUE)


def test_one_of_two_workers_fires(q):
    """Both have seen that it is due."""
    define(q)
    [one], [other] = due(q), due(q)
    assert [fire(q, one, "a"), fire(q, other, "a")] == [True, False]
    assert ids(q) == ["a"]


def test_an_instant_is_not_fired_again_when_its_record_has_gone(q):
    """The reply got lost, and the task has ended and is forgotten when the script is sent again."""
    define(q)
    [one] = due(q)
    fire(q, one, "a")
    q.finish(*q.fetch(), ttl_ms=1)
    until(lambda: q.record("a") == {})
    assert fire(q, one, "a") is False
    assert ids(q) == []


def test_a_record_of_the_same_id_is_left_as_it_is(q):
    """Somebody has enqueued it by hand, or the schedule was set back."""
    q.enqueue("a")
    before = q.record("a")
    define(q)
    assert fire(q, due(q)[0], "a") is True
    assert ids(q) == ["a"]
    assert q.record("a") == before
    assert read(q).next_ms == NEXT


def test_several_instants_at_once(q):
    define(q)
    assert fire(q, due(q)[0], "a", "b", "c") is True
    assert ids(q) == ["a", "b", "c"]


def test_a_message_goes_to_its_level(q):
    define(q)
    assert fire(q, due(q)[0], "a", options=b'{"level":7}') is True
    assert [entry["id"] for entry in q.entries(q.queue.levels[7])] == ["a"]
    assert q.redis("EXISTS", q.ready) == 0


def test_a_message_is_put_on_the_terms_of_its_task(q):
    """The one before it has not ended: the instant is over without another; whose lock it is takes a second call."""
    terms = Terms(Lock("shop.buy:", "running", 60_000))
    before = None
    define(q)
    for task_id, next_ms in (("a", DUE + 1), ("b", NEXT), ("b", NEXT)):
        [one] = due(q)
        message = Message(task_id, "shop.buy", "q", b"[]", terms=terms)
        call = schedules.fire(q.keys, q.queue, one, [message], next_ms=next_ms, last=str(one.due_ms), before=before)
        before = q.run(call)
    assert before.there == {0: "a"}
    assert ids(q) == ["a"]
    assert read(q)[1:3] == (NEXT, DUE + 1)


def test_instants_that_are_skipped_put_nothing(q):
    define(q)
    assert fire(q, due(q)[0]) is True
    assert q.redis("EXISTS", q.ready) == 0
    assert read(q)[1:3] == (NEXT, None)


@pytest.mark.parametrize("step", ["paused", "removed", "changed", "set back", "resumed"])
def test_what_was_changed_after_the_look_is_not_fired(q, step):
    """It is looked at again."""
    define(q)
    [one] = due(q)
    if step in {"paused", "resumed"}:
        q.run(schedules.pause_schedule(q.queue, "nightly"))
    match step:
        case "removed":
            q.run(schedules.remove_schedule(q.queue, "nightly"))
        case "changed":
            define(q, what=b"{}")
        case "set back":
            q.redis("ZADD", q.queue.timetable[0], DUE - 1, "nightly")
        case "resumed":
            q.run(schedules.resume_schedule(q.queue, "nightly", NEXT))
    before = q.everything()
    assert fire(q, one, "a") is False
    assert q.everything() == before


def test_a_full_server_fires_nothing(q):
    """It is due as before, and fired when there is room again."""
    define(q)
    [one] = due(q)
    _, before = q.redis("CONFIG", "GET", "maxmemory")
    q.redis("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(BrokerOutOfMemory):
            fire(q, one, "a")
    finally:
        q.redis("CONFIG", "SET", "maxmemory", before)
    assert due(q) == [one]
    assert fire(q, one, "a") is True
    assert ids(q) == ["a"]


@pytest.mark.parametrize("wrong", ["ready", "record", "fired"])
def test_a_key_of_another_type_loses_no_instant(q, wrong):
    """It is said before any message is there, and when it is sent again each is put."""
    define(q)
    [one] = due(q)
    key = {"ready": q.ready, "record": q.queue.record("b"), "fired": q.queue.timetable[2]}[wrong]
    q.redis("SET", key, "by hand", "PX", 60_000)
    with pytest.raises(BrokerReset):
        fire(q, one, "a", "b")
    assert due(q) == [one]
    assert q.record("a") == {}
    q.redis("DEL", key)
    assert fire(q, one, "a", "b") is True
    assert ids(q) == ["a", "b"]


def test_listeners_hear_of_what_is_fired(q):
    define(q)
    with q.listening("sq:events:*", pattern=True) as next_message:
        fire(q, due(q)[0], "a")
        assert next_message()[0] == "sq:events:q:shop.buy:queued"


# ---- what a schedule is


def test_what_is_said_again_is_nothing_new(q):
    """Its next instant stays, also if that has come."""
    assert define(q) == 1
    before = q.everything()
    assert define(q, next_ms=NEXT) == 0
    assert q.everything() == before


def test_what_is_changed_is_due_anew(q):
    define(q)
    assert define(q, what=b"{}", next_ms=NEXT) == 1
    assert read(q)[:2] == (b"{}", NEXT)


@pytest.mark.parametrize("since", [None, 5])
def test_what_is_paused_stays_so_when_it_is_changed(q, since):
    define(q, since=since)
    assert q.run(schedules.pause_schedule(q.queue, "nightly")) is True
    assert define(q, what=b"{}", since=since) == 1
    assert read(q)[:2] == (b"{}", None)
    assert q.run(schedules.pause_schedule(q.queue, "nightly")) is False


@pytest.mark.parametrize(("first", "then"), [(None, 5), (5, None)])
def test_what_is_declared_and_what_is_added_are_kept_apart(q, first, then):
    """The first one stands."""
    define(q, since=first)
    before = q.everything()
    assert define(q, what=b"{}", since=then) == -1
    assert q.everything() == before


def test_the_worker_that_was_started_last_decides(q):
    """However often an older one repeats what it says."""
    assert define(q, what=b"old", since=5) == 1
    assert define(q, what=b"new", since=6) == 1
    assert define(q, what=b"old", since=5) == 0
    assert read(q).definition == b"new"
    assert define(q, what=b"newer", since=6) == 1
    assert read(q).definition == b"newer"


def test_an_older_worker_that_says_the_same_makes_nothing_older(q):
    define(q, what=b"new", since=6)
    assert define(q, what=b"new", since=5) == 0
    assert define(q, what=b"old", since=5) == 0
    assert read(q).definition == b"new"


def test_what_no_worker_repeats_any_more_gives_way(q):
    """The worker that was started last is gone, and with it its code."""
    define(q, what=b"new", since=6)
    q.redis("HSET", q.queue.timetable[3], "nightly", f"6 {q.now() - schedules.STALE_MS}")
    assert define(q, what=b"old", since=5) == 1
    assert read(q).definition == b"old"
    assert define(q, what=b"new", since=6) == 1


def test_a_declaration_is_repeated(q):
    define(q, since=5)
    q.redis("HSET", q.queue.timetable[3], "nightly", "5 1")
    assert define(q, since=5) == 0
    assert read(q).declaration.repeated_ms > 1


# ---- pause, resume, remove


def test_what_is_paused_is_not_due_until_it_is_resumed(q):
    define(q)
    q.run(schedules.pause_schedule(q.queue, "nightly"))
    assert due(q) == []
    assert q.run(schedules.resume_schedule(q.queue, "nightly", DUE + 5)) is True
    assert due(q) == [DueSchedule("nightly", DUE + 5, WHAT, None)]
    assert q.run(schedules.resume_schedule(q.queue, "nightly", NEXT)) is False


def test_what_is_not_there_is_neither_resumed_nor_removed(q):
    assert q.run(schedules.resume_schedule(q.queue, "nightly", DUE)) is False
    assert q.run(schedules.remove_schedule(q.queue, "nightly")) is False
    assert q.everything() == {}


def test_what_is_removed_leaves_nothing(q):
    define(q, since=5)
    fire(q, due(q)[0])
    q.redis("HSET", q.queue.timetable[2], "nightly", DUE)
    assert q.run(schedules.schedule_names(q.queue)) == ["nightly"]
    assert q.run(schedules.remove_schedule(q.queue, "nightly")) is True
    assert q.everything() == {}


def test_a_declaration_that_was_repeated_meanwhile_is_not_removed(q):
    define(q, since=5)
    seen = read(q).declaration
    q.redis("HSET", q.queue.timetable[3], "nightly", "7 1")
    assert q.run(schedules.remove_schedule(q.queue, "nightly", seen)) is False
    assert q.run(schedules.remove_schedule(q.queue, "nightly", read(q).declaration)) is True
