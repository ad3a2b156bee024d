"""cancel: wherever a task is, it ends at once and for good, and nothing that comes later changes that."""

from __future__ import annotations

import json

import pytest

from streamq.broker import calls, cancels
from streamq.broker.cancels import Place, Seen
from streamq.broker.signals import Cancelled, read_signal
from streamq.lifecycle import State
from tests.lua.conftest import ERROR


def cancel(q, *ids, stream="", running=True, ttl_ms=60_000):
    places = [Place(one, stream) for one in ids]
    return q.run(cancels.cancel(q.queue, places, done=q.keys.done, ttl_ms=ttl_ms, running=running))


def hold(q, task_id):
    """Have a task wait for its turn: its message lies in the record."""
    q.enqueue(task_id, delay_ms=60_000)
    q.redis("ZREM", q.queue.delayed, task_id)
    q.redis("HSET", q.queue.record(task_id), "state", "held")


def is_gone(q):
    return not (q.delayed() or q.entries(q.ready) or q.entries(q.returned) or q.pending(q.ready))


def content(q):
    """Return the whole content of the server; of hashes as dicts, because a dump of one may change its order."""
    found = q.everything()
    for key in found:
        if b":task:" in key:
            words = q.redis("HGETALL", key)
            found[key] = dict(zip(words[::2], words[1::2], strict=True))
    return found


STATES = {
    "delayed": lambda q: q.enqueue("1", delay_ms=60_000),
    "held": lambda q: hold(q, "1"),
    "queued": lambda q: q.enqueue("1"),
    "running": lambda q: q.deliver("1"),
    "to be retried": lambda q: q.park(*q.deliver("1"), error=ERROR),
}


@pytest.mark.parametrize("state", STATES)
def test_a_task_ends_wherever_it_is(q, state):
    """Its message is gone from there; its record says what has become of it, and expires."""
    STATES[state](q)
    before = q.now()
    assert cancel(q, "1") == [True]
    assert is_gone(q)
    record = q.record()
    assert before <= int(record.pop("ended")) <= q.now()
    assert record.pop("state") == "cancelled"
    assert json.loads(record.pop("error"))["type"] == "streamq.errors.TaskCancelled"
    assert not record.keys() & {"args", "at", "more"}
    assert 50_000 < q.ttl_ms() <= 60_000
    read = q.run(calls.look(q.queue, "1"))
    assert read.state is State.CANCELLED


@pytest.mark.parametrize("state", STATES)
def test_a_cancel_whose_reply_was_lost_can_be_sent_again(q, state):
    """The second time finds the work done, says the same and changes nothing."""
    STATES[state](q)
    cancel(q, "1")
    before = content(q)
    assert cancel(q, "1") == [True]
    assert content(q) == before


def test_what_has_ended_otherwise_is_left_alone(q):
    done, failed, dead = q.deliver("1", "2", "3")
    q.finish(done)
    q.finish(failed, state=State.FAILED, body=ERROR)
    q.bury(dead)
    before = content(q)
    assert cancel(q, "1", "2", "3", "never enqueued") == [False] * 4
    assert content(q) == before


def test_a_task_that_was_returned_is_found_where_it_is(q):
    """Who does not know the stream is told what the record calls it."""
    q.give_back(*q.deliver("1"))
    before = content(q)
    assert cancel(q, "1") == ["returned"]
    assert content(q) == before
    assert cancel(q, "1", stream="returned") == [True]
    assert is_gone(q)


def test_a_task_that_is_no_longer_in_the_stream_is_found_where_it_is(q):
    """It was seen in the stream of returned messages, and promoted meanwhile."""
    (delivery,) = q.deliver("1")
    q.give_back(delivery)
    q.park(*q.fetch("w-2"))
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    (where,) = cancel(q, "1", stream="returned")
    assert cancel(q, "1", stream=where) == [True]
    assert is_gone(q)


def test_a_part_of_the_tasks_that_cannot_be_cancelled_does_not_stop_the_others(q):
    q.finish(*q.deliver("2"))
    q.enqueue("1", "3")
    q.enqueue("4", delay_ms=60_000)
    assert cancel(q, "1", "2", "3", "4") == [True, False, True, True]


def test_what_workers_have_can_be_left_to_them(q):
    q.deliver("1")
    q.enqueue("2")
    before = q.record("1")
    assert cancel(q, "1", "2", running=False) == [False, True]
    assert q.record("1") == before
    assert len(q.pending(q.ready)) == 1


def test_a_message_that_was_deleted_by_hand_is_no_hindrance(q):
    q.enqueue("1")
    q.redis("DEL", q.ready)
    assert cancel(q, "1") == [True]


# ---- what comes later


def test_the_outcome_of_a_cancelled_run_is_refused(q):
    """Neither the result nor the acknowledgement counts, and the worker learns that."""
    (delivery,) = q.deliver("1")
    cancel(q, "1")
    before = content(q)
    assert q.finish(delivery) == [0]
    assert content(q) == before


def test_a_task_that_ended_before_it_was_cancelled_keeps_its_outcome(q):
    (delivery,) = q.deliver("1")
    assert q.finish(delivery) == []
    assert cancel(q, "1") == [False]
    assert q.record()["result"] == "1"


@pytest.mark.parametrize(
    "late",
    [
        lambda q, delivery: q.park(delivery, error=ERROR),
        lambda q, delivery: q.park(delivery),
        lambda q, delivery: q.give_back(delivery),
        lambda q, delivery: q.give_back(delivery, died="signal SIGKILL"),
        lambda q, delivery: q.give_back(delivery, died="signal SIGKILL", max_deaths=1),
        lambda q, delivery: q.bury(delivery),
    ],
    ids=["retry", "put back", "hand back", "death", "last death", "reject"],
)
def test_a_cancelled_run_comes_to_nothing(q, late):
    """Whatever its worker, or the supervisor of a dead one, wants to do with it."""
    (delivery,) = q.deliver("1")
    cancel(q, "1")
    q.give_back(delivery)  # which makes the stream of returned messages, if nothing else
    before = content(q)
    late(q, delivery)
    assert content(q) == before


def test_a_cancelled_entry_is_not_renewed(q):
    """So a worker that was not told finds out."""
    (delivery,) = q.deliver("1")
    cancel(q, "1")
    assert q.run(calls.renew(q.ready, "w-1", [delivery.entry])) == [delivery.entry]


def test_a_cancelled_task_is_not_promoted(q):
    """Also not by a promoter that has looked at the delayed tasks before."""
    q.enqueue("1", delay_ms=60_000)
    q.make_due("1")
    found = q.run(calls.due(q.queue, 10))
    cancel(q, "1")
    assert q.run(calls.promote(q.queue, found.task_ids)) == 0
    assert is_gone(q)
    assert q.record()["state"] == "cancelled"


def test_a_cancelled_task_is_not_fetched(q):
    q.enqueue("1", "2", "3")
    cancel(q, "2")
    assert [one.message.id for one in q.fetch()] == ["1", "3"]


def test_enqueueing_the_id_again_does_not_bring_it_back(q):
    """As with any ended task: the id is known for as long as its record lives."""
    q.enqueue("1")
    cancel(q, "1")
    assert q.enqueue("1").known == [0]
    assert is_gone(q)


def test_an_outcome_of_the_cancelled_task_does_not_end_the_next_of_its_id(q):
    """The record was forgotten and the id used anew."""
    (old,) = q.deliver("1")
    cancel(q, "1")
    q.run(calls.forget(q.queue, "1"))
    (new,) = q.deliver("1")
    assert q.finish(old) == [0]
    assert q.finish(new) == []


# ---- who is told


def test_those_who_wait_are_woken(q):
    q.enqueue("1", delay_ms=60_000)
    q.run(calls.watch(q.queue, "1", "c-1"))
    with q.listening("sq:done:c-1") as next_message:
        cancel(q, "1")
        assert next_message() == ("sq:done:c-1", b"1")


def test_a_forgotten_task_leaves_no_record(q):
    q.enqueue("1")
    q.run(calls.forget(q.queue, "1"))
    assert cancel(q, "1") == [True]
    assert q.record() == {}
    assert is_gone(q)


def test_the_worker_that_has_it_is_told(q):
    """By the place of the message, so that no other delivery is stopped; and of no task that nobody has."""
    (delivery,) = q.deliver("running")
    q.enqueue("queued")
    q.enqueue("delayed", delay_ms=60_000)
    with q.listening(q.queue.signals) as next_message:
        for _ in range(2):
            cancel(q, "queued", "delayed", "running")
        q.redis("PUBLISH", q.queue.signals, "the end")
        assert read_signal(next_message()[1]) == Cancelled(q.ready, delivery.entry)
        assert next_message()[1] == b"the end"


def test_it_is_heard_of(q):
    q.enqueue("1")
    with q.listening("sq:events:*", pattern=True) as next_message:
        cancel(q, "1")
        channel, data = next_message()
    assert channel == "sq:events:q:shop.buy:cancelled"
    assert json.loads(data)["event"] == "task.cancelled"


# ---- looking for those that are meant


def test_a_stream_is_surveyed_in_pages(q, monkeypatch):
    """Of each message is read which task it is, and since when it is there; also of one that is none."""
    before = q.now()
    q.enqueue(*map(str, range(250)))
    q.add("by", "hand")
    first, pages = b"-", []
    while page := q.run(cancels.survey(q.ready, first, b"+")):
        first = b"(" + page[-1][0]
        pages.append([seen for _, seen in page])
    assert [len(page) for page in pages] == [100, 100, 51]
    assert [seen.task_id for page in pages for seen in page] == [*map(str, range(250)), ""]
    assert all(before <= seen.enqueued_ms <= q.now() for page in pages for seen in page)


def test_a_page_has_some_bytes(q):
    for task_id in "123":
        q.add("id", task_id, "task", "t", "args", b"x" * 600_000, "at", "7")
    page = q.run(cancels.survey(q.ready, b"-", b"+"))
    assert [seen for _, seen in page] == [Seen("1", "t", 7), Seen("2", "t", 7)]


def test_delayed_tasks_are_found_with_what_is_known_of_them(q):
    before = q.now()
    q.enqueue(*map(str, range(300)), delay_ms=60_000)
    cursor, found = b"0", set()
    while True:
        cursor, ids = q.run(cancels.scan(q.queue.delayed, cursor))
        found.update(ids)
        if cursor == b"0":
            break
    assert found == {*map(str, range(300))}
    q.deliver("queued")
    hold(q, "held")
    one, held = q.run(cancels.brief(q.queue, ["7", "queued", "unknown", "held"]))
    assert one == Seen("7", "shop.buy", one.enqueued_ms)
    assert before <= one.enqueued_ms <= q.now()
    assert held == Seen("held", "shop.buy", held.enqueued_ms)


def test_what_a_worker_has_in_another_stream_under_the_same_entry_id_is_not_meant(q):
    """Streams number their entries each for itself: the answer is where the task is, for the caller to come again."""
    (other,) = q.deliver("1")
    q.enqueue("2", level=9)
    q.redis("DEL", q.queue.levels[9])
    q.redis("XADD", q.queue.levels[9], other.entry, "id", "2", "task", "shop.buy", "args", "[]")
    q.redis("HSET", q.queue.record("2"), "entry", other.entry)
    assert cancel(q, "2", running=False) == ["9"]
