"""A message of a priority level: it is on its level's stream whenever it waits, and is found there."""

from __future__ import annotations

import pytest

from streamq.broker import batch, calls, letters
from streamq.broker.records import Record
from streamq.broker.rescue import rescue
from streamq.config import LEVELS, Settings
from streamq.lifecycle import State
from streamq.message import Message
from streamq.sending import Steering, read_steering

SEVEN = b'{"level":7}'


def place(q, level=7):
    return q.queue.levels[level]


def test_a_message_goes_on_the_stream_of_its_level(q):
    """The record says which it is, and the entry too, for those who put it back later."""
    assert q.enqueue("1", level=7).to_note
    assert not q.enqueue("2", level=7).to_note
    assert [(one["id"], one["options"]) for one in q.entries(place(q))] == [(n, SEVEN.decode()) for n in ("1", "2")]
    assert q.record()["stream"] == "7"
    assert not q.redis("EXISTS", q.ready)


def test_the_default_level_leaves_no_trace(q):
    """What most messages have costs them nothing."""
    q.enqueue("1")
    assert q.entries(q.ready) == [{"id": "1", "task": "shop.buy", "args": '["1"]'}]
    assert "stream" not in q.record()


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_is_found(q, level):
    """By those who ask, those who wait, and the worker, which reads what it says."""
    (delivery,) = q.deliver("1", level=level)
    assert q.run(calls.look(q.queue, "1")) == Record(State.RUNNING, "shop.buy", worker="w-1")
    assert q.run(calls.watch(q.queue, "1", "c")).state is State.QUEUED
    assert delivery.stream == place(q, level)
    assert read_steering(delivery.message.options).level == (None if level == 5 else level)
    assert q.finish(delivery) == []
    assert q.entries(place(q, level)) == []


def test_nobody_waits_for_a_message_of_a_level_that_has_vanished(q):
    q.enqueue("1", level=7)
    q.redis("DEL", place(q))
    assert q.run(calls.watch(q.queue, "1", "c")).state is State.UNKNOWN


def test_a_delayed_message_is_promoted_to_its_level(q):
    q.enqueue("1", delay_ms=60_000, level=7)
    q.enqueue("2", delay_ms=60_000)
    q.make_due("1", "2")
    assert q.run(calls.promote(q.queue, ["1", "2"])) == 2
    assert [one["id"] for one in q.entries(place(q))] == ["1"]
    assert [one["id"] for one in q.entries(q.ready)] == ["2"]
    assert (q.record("1")["stream"], q.record("2").get("stream")) == ("7", None)


def test_a_retry_keeps_its_level(q):
    (delivery,) = q.deliver("1", level=7)
    q.park(delivery, error=b"{}")
    assert "stream" not in q.record()
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    (again,) = q.fetch(stream=place(q))
    assert (again.attempt, again.message.options) == (2, SEVEN)


def test_a_message_that_was_given_back_keeps_its_level(q):
    """It is read first, with the others that were returned; when it is put back later it is on its level again."""
    (delivery,) = q.deliver("1", level=7)
    assert q.give_back(delivery, died="signal SIGKILL") == (1, 0)
    (again,) = q.fetch()
    assert (again.stream, again.message.options) == (q.returned, SEVEN)
    q.park(again)
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    (last,) = q.fetch(stream=place(q))
    assert last.deaths == 1


@pytest.mark.parametrize("reset", [True, False])
def test_a_dead_letter_is_redriven_to_its_level(q, reset):
    (delivery,) = q.deliver("1", level=7)
    assert q.bury(delivery)
    ((letter, _),) = q.redis("XRANGE", q.queue.dead, "-", "+")
    assert q.run(letters.redrive(q.queue, [(letter, "1")], reset=reset)) == (1, 0)
    assert [one["id"] for one in q.entries(place(q))] == ["1"]
    assert q.record()["stream"] == "7"
    assert q.run(calls.look(q.queue, "1")).state is State.QUEUED


def test_a_transaction_puts_each_message_on_its_level(q):
    messages = [Message(str(level), "shop.buy", "q", b"[]", 0, Steering(level=level).encode()) for level in LEVELS]
    q.run(batch.enqueue_all(q.keys, messages))
    for level in LEVELS:
        assert [one["id"] for one in q.entries(place(q, level))] == [str(level)]


def test_a_text_that_looks_like_a_level_is_none(q):
    """The level is looked for without reading all of the options, which may hold words of the user's."""
    options = Steering(ordering_key='{"level":7}').encode()
    q.run(calls.enqueue(q.queue, [Message("1", "shop.buy", "q", b"[]", 60_000, options)]))
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    assert [one["id"] for one in q.entries(q.ready)] == ["1"]


def test_what_is_due_says_which_levels_are_there(q):
    """And whether the queue is paused, so that a worker needs no further look."""
    assert q.run(calls.due(q.queue, 10)).levels == []
    q.enqueue("1", level=7)
    q.enqueue("2")
    q.enqueue("3", level=0)
    assert q.run(calls.due(q.queue, 10)).levels == [0, 5, 7]


def test_the_tasks_of_a_dead_worker_come_back_from_each_level(q, server_url):
    """The supervisor hands them back, and no consumer is left behind."""
    for level in LEVELS:
        q.deliver(str(level), level=level)
    given = rescue(Settings(url=server_url), ["q"], "w-1", "signal SIGKILL")
    assert given == (10, 0)
    assert {one["id"] for one in q.entries(q.returned)} == set(map(str, LEVELS))
    for level in LEVELS:
        assert q.entries(place(q, level)) == []
        assert q.run(calls.consumers(place(q, level))) == []
