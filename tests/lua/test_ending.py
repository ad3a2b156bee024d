"""finish and bury: an outcome is committed by the owner of the last hand-over, once, or not at all."""

from __future__ import annotations

import pytest

from streamq.broker import calls
from streamq.errors import BrokerReset
from streamq.lifecycle import State
from streamq.message import Malformed
from tests.lua.conftest import ERROR


@pytest.mark.parametrize(
    ("state", "field"), [(State.SUCCEEDED, "result"), (State.FAILED, "error"), (State.EXPIRED, "error")]
)
def test_an_outcome_is_committed_in_one_step(q, state, field):
    """State and body are in the record, which expires; entry and pending entry are gone."""
    (delivery,) = q.deliver("1")
    before = q.now()
    assert q.finish(delivery, state=state, body=ERROR, ttl_ms=60_000) == []
    record = q.record()
    assert before <= int(record.pop("ended")) <= q.now()
    entry = delivery.entry.decode()
    assert record == {"state": state, "task": "shop.buy", "entry": entry, field: ERROR.decode()}
    assert 50_000 < q.ttl_ms() <= 60_000
    assert q.entries(q.ready) == []
    assert q.pending(q.ready) == {}


def test_a_body_can_be_any_bytes(q):
    body = bytes(range(256))
    q.finish(*q.deliver("1"), body=body)
    assert q.redis("HGET", q.queue.record("1"), "result") == body


def test_the_outcome_of_an_older_hand_over_is_refused(q):
    """The task was given to another meanwhile: neither its record nor its entry may be touched."""
    (old,) = q.deliver("1")
    q.give_back(old)
    (new,) = q.fetch("w-2")
    before = q.everything()
    assert q.finish(old) == [0]
    assert q.everything() == before
    assert q.pending(q.returned) == {new.entry.decode(): "w-2"}
    assert q.finish(new) == []
    assert q.finish(old, body=b"2") == [0]
    assert q.record()["result"] == "1"


def test_one_that_is_refused_does_not_stop_the_others(q):
    """The positions of the refused ones are returned."""
    deliveries = q.deliver("1", "2", "3", "4")
    q.redis("HSET", q.queue.record("2"), "fence", 1)
    q.redis("HSET", q.queue.record("4"), "fence", 7)
    assert q.finish(*deliveries) == [1, 3]
    assert [q.record(one)["state"] for one in "1234"] == ["succeeded", "queued", "succeeded", "queued"]
    assert [entry["id"] for entry in q.entries(q.ready)] == ["2", "4"]
    assert len(q.pending(q.ready)) == 2


def test_a_commit_whose_reply_was_lost_can_be_sent_again(q):
    """The second time finds the work done: it changes nothing and is not refused."""
    (delivery,) = q.deliver("1")
    assert q.finish(delivery) == []
    before = q.record()
    assert q.finish(delivery) == []
    assert q.record() == before


def test_the_first_outcome_of_a_hand_over_is_the_one(q):
    (delivery,) = q.deliver("1")
    q.finish(delivery)
    assert q.finish(delivery, state=State.FAILED, body=ERROR) == []
    assert q.record()["state"] == "succeeded"
    assert "error" not in q.record()


def test_without_its_record_a_task_leaves_nothing(q):
    """It was deleted by hand: there is nothing to commit to, but the entry must not stay."""
    (delivery,) = q.deliver("1")
    q.redis("DEL", q.queue.record("1"))
    assert q.finish(delivery) == []
    assert q.record() == {}
    assert q.entries(q.ready) == []
    assert q.pending(q.ready) == {}


def test_a_forgotten_task_leaves_no_record(q):
    (delivery,) = q.deliver("1")
    assert q.run(calls.forget(q.queue, "1"))
    assert q.finish(delivery) == []
    assert q.record() == {}


def test_an_outcome_of_an_earlier_task_of_the_same_id_is_refused(q):
    """The id was forgotten and used anew, so that the fence is the same again; the new task has not run."""
    (old,) = q.deliver("1")
    q.finish(old)
    q.run(calls.forget(q.queue, "1"))
    (new,) = q.deliver("1")
    assert (new.message, new.fence) == (old.message, old.fence)
    before = q.everything()
    assert q.finish(old) == [0]
    assert q.everything() == before
    assert q.finish(new) == []
    assert q.record()["state"] == "succeeded"


def test_those_who_wait_are_woken(q):
    """Each client once, on its own channel, with the id; the record is there by then."""
    (delivery,) = q.deliver("1")
    for client in ("c-1", "c-2", "c-1"):
        q.run(calls.watch(q.queue, "1", client))
    with q.listening("sq:done:c-1", "sq:done:c-2") as next_message:
        q.finish(delivery)
        assert {next_message(), next_message()} == {("sq:done:c-1", b"1"), ("sq:done:c-2", b"1")}
        q.redis("PUBLISH", "sq:done:c-1", "the end")
        assert next_message() == ("sq:done:c-1", b"the end")


def test_those_who_wait_for_a_forgotten_task_are_woken_too(q):
    (delivery,) = q.deliver("1")
    q.run(calls.watch(q.queue, "1", "c-1"))
    q.run(calls.forget(q.queue, "1"))
    with q.listening("sq:done:c-1") as next_message:
        q.finish(delivery)
        assert next_message() == ("sq:done:c-1", b"1")


# ---- dead letters


def test_a_message_is_moved_to_the_dead_letters(q):
    """With all its fields, the reason and who said so; its task ends with the error."""
    (delivery,) = q.deliver("1")
    assert q.bury(delivery)
    assert q.entries(q.queue.dead) == [
        {
            "reason": "why",
            "worker": "w-1",
            "entry": delivery.entry.decode(),
            "error": ERROR.decode(),
            "id": "1",
            "task": "shop.buy",
            "args": '["1"]',
        }
    ]
    record = q.record()
    assert (record["state"], record["error"]) == ("dead", ERROR.decode())
    assert 50_000 < q.ttl_ms() <= 60_000
    assert q.entries(q.ready) == []
    assert q.pending(q.ready) == {}


def test_burying_again_changes_nothing(q):
    """The reply was lost, or another worker was faster."""
    (delivery,) = q.deliver("1")
    q.bury(delivery)
    before = q.everything().keys(), q.record(), q.entries(q.queue.dead)
    assert not q.bury(delivery)
    assert (q.everything().keys(), q.record(), q.entries(q.queue.dead)) == before


def test_a_message_of_another_is_not_buried(q):
    (old,) = q.deliver("1")
    q.give_back(old)
    q.fetch("w-2")
    before = q.everything()
    assert not q.bury(old)
    assert q.everything() == before


def test_those_who_wait_for_a_buried_task_are_woken(q):
    (delivery,) = q.deliver("1")
    q.run(calls.watch(q.queue, "1", "c-1"))
    with q.listening("sq:done:c-1") as next_message:
        q.bury(delivery)
        assert next_message() == ("sq:done:c-1", b"1")


def test_what_is_no_message_is_buried_as_it_is(q):
    """Whatever its fields are; there may be no task to end."""
    q.enqueue()
    q.add("what", b"\xff\x00", "reason", "its own")
    (entry,) = q.fetch()
    assert isinstance(entry, Malformed)
    assert q.bury(entry)
    ((_, fields),) = q.redis("XRANGE", q.queue.dead, "-", "+")
    assert fields[-4:] == [b"what", b"\xff\x00", b"reason", b"its own"]
    assert q.entries(q.ready) == []
    assert q.pending(q.ready) == {}


def test_a_message_that_broke_on_its_way_ends_its_task(q):
    """Its id could be read, so those who wait for it are told; the fence, if any, could not."""
    q.enqueue("1")
    (entry,) = q.redis("XRANGE", q.ready, "-", "+")
    q.redis("XDEL", q.ready, entry[0])
    q.redis("HSET", q.queue.record("1"), "entry", q.add("id", "1", "args", "[]"), "fence", 3)
    (broken,) = q.fetch()
    assert (broken.task_id, broken.reason) == ("1", "has no task")
    assert q.bury(broken)
    assert q.record()["state"] == "dead"
    assert 0 < q.ttl_ms() <= 60_000


def test_what_is_no_message_makes_no_record(q):
    """It names a task that nobody has enqueued, or that was forgotten."""
    q.enqueue()
    q.add("id", "1")
    assert q.bury(*q.fetch())
    assert q.record() == {}
    assert len(q.entries(q.queue.dead)) == 1


def test_what_is_no_message_does_not_end_the_task_of_another_entry(q):
    """Anybody can write an id that is somebody else's: the good message must still run and be committed."""
    q.enqueue("1")
    q.add("id", "1")
    good, broken = q.fetch()
    assert q.bury(broken)
    assert q.record()["state"] == "queued"
    q.finish(good)
    assert q.record()["state"] == "succeeded"


def test_an_entry_whose_body_is_gone_is_buried_too(q):
    """Somebody deleted it by hand: what is known of it is kept, and it is pending no longer."""
    (delivery,) = q.deliver("1")
    q.redis("XDEL", q.ready, delivery.entry)
    assert q.bury(delivery)
    assert q.entries(q.queue.dead) == [
        {"reason": "why", "worker": "w-1", "entry": delivery.entry.decode(), "error": ERROR.decode()}
    ]
    assert q.record()["state"] == "dead"
    assert q.pending(q.ready) == {}


def test_burying_where_it_cannot_be_loses_nothing(q):
    """The entry stays pending, so that it is tried again."""
    (delivery,) = q.deliver("1")
    q.redis("SET", q.queue.dead, "by hand")
    with pytest.raises(BrokerReset):
        q.bury(delivery)
    assert q.pending(q.ready) == {delivery.entry.decode(): "w-1"}


def test_an_entry_with_very_many_fields_is_buried(q):
    """It must not stay in the stream, neither pending nor read again."""
    q.enqueue()
    q.add(*(word for number in range(5000) for word in (f"f{number}", "v")))
    assert q.bury(*q.fetch())
    assert len(q.entries(q.queue.dead)) == 1
