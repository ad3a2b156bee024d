"""watch, look and forget: what is known of a task, told by its record alone."""

from __future__ import annotations

import pytest

from streamq.broker import calls, server
from streamq.broker.records import UNKNOWN, Record
from streamq.lifecycle import State
from tests.lua.conftest import ERROR


def look(q, task_id="1"):
    return q.run(calls.look(q.queue, task_id))


def watch(q, client="c-1", task_id="1"):
    return q.run(calls.watch(q.queue, task_id, client))


@pytest.mark.parametrize("read", [look, watch])
def test_of_an_unknown_task_nothing_is_known_and_nothing_noted(q, read):
    assert read(q) == UNKNOWN
    assert q.everything() == {}


def test_a_task_is_followed_through_its_life(q):
    """Delayed, queued, running and by whom, returned, running elsewhere, ended."""
    q.enqueue("1", delay_ms=60_000)
    assert look(q) == Record(State.DELAYED, "shop.buy")
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    assert look(q) == Record(State.QUEUED, "shop.buy")
    (delivery,) = q.fetch("w-1")
    assert look(q) == Record(State.RUNNING, "shop.buy", worker="w-1")
    q.give_back(delivery, died="signal SIGKILL")
    assert look(q) == Record(State.QUEUED, "shop.buy", deaths=1)
    (delivery,) = q.fetch("w-2")
    assert look(q) == Record(State.RUNNING, "shop.buy", deaths=1, worker="w-2")
    before = q.now()
    q.finish(delivery, body=b"[1]")
    record = look(q)
    assert record == Record(State.SUCCEEDED, "shop.buy", b"[1]", record.ended_ms, deaths=1)
    assert before <= record.ended_ms <= q.now()


@pytest.mark.parametrize("read", [look, watch])
def test_an_ended_task_has_its_body(q, read):
    """A result, or the error of one that failed or is dead."""
    done, failed, dead = q.deliver("1", "2", "3")
    q.finish(done, body=b'{"a":1}')
    q.finish(failed, state=State.FAILED, body=ERROR)
    q.bury(dead)
    assert [(record.state, record.body) for record in (read(q, task_id=one) for one in "123")] == [
        (State.SUCCEEDED, b'{"a":1}'),
        (State.FAILED, ERROR),
        (State.DEAD, ERROR),
    ]


def test_looking_changes_nothing(q):
    q.deliver("1")
    before = q.everything()
    look(q)
    assert q.everything() == before


def test_a_task_whose_stream_has_vanished_is_still_known(q):
    """The group was destroyed, or the stream deleted: who holds it cannot be said."""
    q.deliver("1")
    q.redis("XGROUP", "DESTROY", q.ready, "workers")
    assert look(q) == Record(State.QUEUED, "shop.buy")
    q.redis("DEL", q.ready)
    assert look(q) == Record(State.QUEUED, "shop.buy")


def test_nobody_waits_for_a_message_that_has_vanished(q):
    """To wait for a task whose stream was deleted is to learn that it is lost; it is so for its worker too."""
    (delivery,) = q.deliver("1")
    q.redis("DEL", q.ready)
    assert watch(q) == UNKNOWN
    assert q.record() == {}
    q.finish(delivery)
    assert q.record() == {}


def test_one_waits_for_a_message_wherever_it_is(q):
    """Waiting or pending, in either stream, without its group, or delayed."""
    (delivery,) = q.deliver("1")
    assert watch(q).state is State.QUEUED
    q.redis("XGROUP", "DESTROY", q.ready, "workers")
    assert watch(q).state is State.QUEUED
    q.redis("XGROUP", "CREATE", q.ready, "workers", "0")
    (delivery,) = q.fetch()
    q.give_back(delivery)
    q.redis("DEL", q.ready)
    assert watch(q).state is State.QUEUED
    (delivery,) = q.fetch()
    q.park(delivery)
    q.redis("DEL", q.returned)
    assert watch(q).state is State.DELAYED


def test_a_client_that_waits_is_noted_once(q):
    """Also when it looks again each second; a name that is part of another is another."""
    q.enqueue("1")
    for client in ("c-11", "c-1", "c-11", "c-1", "1"):
        assert watch(q, client) == Record(State.QUEUED, "shop.buy")
    assert q.record()["waiters"] == "c-11 c-1 1"


def test_at_an_ended_task_nobody_waits(q):
    q.finish(*q.deliver("1"))
    before = q.record()
    watch(q)
    assert q.record() == before


def test_who_waits_stays_noted_while_the_task_changes_hands(q):
    """However it moves, they are woken at the end."""
    (delivery,) = q.deliver("1")
    watch(q)
    q.give_back(delivery)
    (delivery,) = q.fetch()
    q.park(delivery)
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    (delivery,) = q.fetch()
    with q.listening("sq:done:c-1") as next_message:
        q.finish(delivery)
        assert next_message() == ("sq:done:c-1", b"1")


def test_an_ended_task_is_forgotten_at_once(q):
    q.finish(*q.deliver("1"))
    assert q.run(calls.forget(q.queue, "1")) is True
    assert q.record() == {}
    assert q.run(calls.forget(q.queue, "1")) is False


@pytest.mark.parametrize("delay_ms", [0, 60_000])
def test_a_task_that_has_not_ended_runs_before_it_is_forgotten(q, delay_ms):
    q.enqueue("1", delay_ms=delay_ms)
    assert q.run(calls.forget(q.queue, "1")) is True
    assert look(q).state is (State.DELAYED if delay_ms else State.QUEUED)
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    (delivery,) = q.fetch()
    q.give_back(delivery, died="signal SIGKILL")
    q.finish(*q.fetch())
    assert look(q) == UNKNOWN
    assert q.record() == {}


def test_an_unknown_task_cannot_be_forgotten(q):
    assert q.run(calls.forget(q.queue, "1")) is False
    assert q.everything() == {}


def test_queues_are_noted_by_name(q):
    q.run(calls.register_queues(q.keys, ["b", "a"]))
    q.run(calls.register_queues(q.keys, ["a"]))
    assert q.run(calls.queue_names(q.keys)) == ["a", "b"]


def test_the_server_says_what_it_is(q):
    info = q.run(server.server_info())
    assert info["redis_version"][0].isdigit()
    assert info.get("server_name", "redis") in {"redis", "valkey"}
