"""enqueue, due and promote: what a caller was told is enqueued is there, once, and comes when it is due."""

from __future__ import annotations

import pytest

from streamq.broker import calls
from streamq.broker.signals import Sooner, read_signal
from streamq.errors import BrokerReset
from streamq.message import Message
from tests.lua.conftest import ERROR


def test_a_message_is_an_entry_and_a_record(q):
    """The entry holds all that a worker needs; the record lives until the task has ended."""
    assert q.enqueue("1") == calls.Enqueued(to_note=True, known=[])
    assert q.entries(q.ready) == [{"id": "1", "task": "shop.buy", "args": '["1"]'}]
    ((entry, _),) = q.redis("XRANGE", q.ready, "-", "+")
    assert q.record() == {"state": "queued", "task": "shop.buy", "entry": entry.decode()}
    assert q.ttl_ms() == -1
    assert q.delayed() == {}


def test_only_the_first_message_makes_the_queue(q):
    """Its group begins at 0, so that a worker that comes later misses nothing."""
    assert [q.enqueue(one).to_note for one in ("1", "2", "3")] == [True, False, False]
    (group,) = q.redis("XINFO", "GROUPS", q.ready)
    assert group[1] == b"workers"
    assert [one.message.id for one in q.fetch()] == ["1", "2", "3"]


def test_many_messages_keep_their_order(q):
    ids = [str(number) for number in range(40)]
    assert q.enqueue(*ids) == calls.Enqueued(to_note=True, known=[])
    assert [entry["id"] for entry in q.entries(q.ready)] == ids


def test_an_id_that_is_known_is_left_as_it_is(q):
    """Sending again is safe: within one call, while the task waits, while it runs, and after its end."""
    assert q.enqueue("1", "2", "1").known == [2]
    other = Message("1", "shop.sell", "q", b"[]")
    assert q.run(calls.enqueue(q.queue, [other])).known == [0]
    deliveries = q.fetch()
    assert q.enqueue("3", "1").known == [1]
    q.finish(*deliveries)
    before = q.record()
    assert q.enqueue("1").known == [0]
    assert q.record() == before
    assert [entry["id"] for entry in q.entries(q.ready)] == ["3"]


def test_after_the_record_is_gone_an_id_is_a_new_task(q):
    q.finish(*q.deliver("1"))
    q.redis("DEL", q.queue.record("1"))
    assert q.enqueue("1").known == []
    assert len(q.entries(q.ready)) == 1


@pytest.mark.parametrize(("key", "delay_ms"), [("ready", 0), ("delayed", 1000)])
def test_a_key_of_another_type_is_said_and_nothing_is_written(q, key, delay_ms):
    """There is no record of a message that is nowhere, so sending again later works."""
    q.enqueue("0")
    wrong = getattr(q.queue, key)
    q.redis("DEL", wrong)
    q.redis("SET", wrong, "by hand")
    before = q.everything()
    with pytest.raises(BrokerReset, match="WRONGTYPE"):
        q.enqueue("1", "2", delay_ms=delay_ms)
    assert q.everything() == before
    q.redis("DEL", wrong)
    assert q.enqueue("1", "2", delay_ms=delay_ms).known == []


def test_a_record_of_another_type_is_not_taken_for_a_known_task(q):
    """The caller would be told that its task is enqueued, and it would never run."""
    q.redis("SET", q.queue.record("1"), "by hand", "PX", 60_000)
    with pytest.raises(BrokerReset):
        q.enqueue("1")


def test_a_stream_without_its_group_takes_messages(q):
    """The group was destroyed: whoever makes it again, at 0, finds them."""
    q.enqueue("1")
    q.redis("XGROUP", "DESTROY", q.ready, "workers")
    assert q.enqueue("2").known == []
    q.run(calls.create_group(q.ready))
    assert [one.message.id for one in q.fetch()] == ["1", "2"]


# ---- delayed


def test_a_delayed_message_waits_outside_the_stream(q):
    """Due by the server's clock, whose ms that has begun counts as over; the record holds what the entry will need."""
    before = q.now()
    q.enqueue("1", delay_ms=60_000)
    after = q.now()
    assert before <= q.delayed()["1"] - 60_000 <= after + 1
    record = q.record()
    assert before <= int(record.pop("at")) <= after
    assert record == {"state": "delayed", "task": "shop.buy", "args": '["1"]'}
    assert q.ttl_ms() == -1
    assert q.entries(q.ready) == []


def test_a_message_can_wait_for_a_moment(q):
    """What is due is written as it was given, and never added to anything."""
    moment = q.now() + 90_000
    q.enqueue("1", delay_ms=-moment)
    assert q.delayed() == {"1": moment}
    assert q.record()["state"] == "delayed"


@pytest.mark.parametrize("ago_ms", [0, 1, 1_000_000_000_000])
def test_a_moment_that_has_passed_is_now(q, ago_ms):
    q.enqueue("1", delay_ms=ago_ms - q.now())
    assert q.record()["state"] == "queued"
    assert q.delayed() == {}


def test_workers_are_told_what_comes_first(q):
    """They sleep until the first message is due, so they hear of one that is due before it, and of no other."""
    with q.listening(q.queue.signals) as next_message:
        for task_id, delay_ms in (("1", 60_000), ("2", 90_000), ("3", 30_000), ("4", 45_000), ("5", 20_000)):
            q.enqueue(task_id, delay_ms=delay_ms)
        assert [read_signal(next_message()[1]) for _ in range(3)] == [
            Sooner(pytest.approx(seconds, abs=0.002)) for seconds in (60, 30, 20)
        ]
        q.redis("PUBLISH", q.queue.signals, "the end")
        assert next_message()[1] == b"the end"


def test_a_known_delayed_message_is_not_put_off(q):
    q.enqueue("1", delay_ms=60_000)
    before = q.everything()
    assert q.enqueue("1", delay_ms=90_000).known == [0]
    assert q.enqueue("1").known == [0]
    assert q.everything() == before


def test_what_is_due_is_found_in_order_and_in_part(q):
    """The rest says when to look again."""
    assert q.run(calls.due(q.queue, 10)) == calls.Due([], None, [], paused=False, moving=False, outbox=False, rooms=[])
    q.enqueue("later", delay_ms=60_000)
    q.enqueue("3", "1", "2", delay_ms=90_000)
    found = q.run(calls.due(q.queue, 10))
    assert found.task_ids == []
    assert 50_000 < found.next_ms <= 60_001
    for score, one in enumerate(("1", "2", "3"), start=1):
        q.redis("ZADD", q.queue.delayed, score, one)
    found = q.run(calls.due(q.queue, 2))
    assert found.task_ids == ["1", "2"]
    assert 50_000 < found.next_ms <= 60_001
    before = q.everything()
    assert q.run(calls.due(q.queue, 10)).task_ids == ["1", "2", "3"]
    assert q.everything() == before


def test_nothing_is_promoted_before_its_time(q):
    """Whoever calls for it: the server's clock decides."""
    q.enqueue("1", delay_ms=60_000)
    before = q.everything()
    assert q.run(calls.promote(q.queue, ["1"])) == 0
    assert q.everything() == before


def test_what_is_due_moves_to_the_stream(q):
    """As if it had been enqueued now, but it knows when it really was."""
    q.enqueue("1", delay_ms=60_000)
    at = int(q.record()["at"])
    q.make_due("1")
    assert q.run(calls.promote(q.queue, ["1"])) == 1
    assert q.delayed() == {}
    (delivery,) = q.fetch()
    assert delivery.message == Message("1", "shop.buy", "q", b'["1"]')
    assert (delivery.fence, delivery.enqueued_ms) == (0, at)
    assert q.record() == {"state": "queued", "task": "shop.buy", "entry": delivery.entry.decode()}
    assert q.finish(delivery) == []
    assert q.record()["state"] == "succeeded"


def test_what_another_has_promoted_is_not_promoted_again(q):
    """Every worker looks for what is due, at the same time."""
    q.enqueue("1", "2", delay_ms=60_000)
    q.make_due("1", "2")
    assert q.run(calls.promote(q.queue, ["1", "2"])) == 2
    assert q.run(calls.promote(q.queue, ["1", "2", "nowhere"])) == 0
    assert len(q.entries(q.ready)) == 2


def test_a_delayed_task_whose_record_is_gone_is_dropped(q):
    """There is nothing left to run."""
    q.enqueue("1", delay_ms=60_000)
    q.redis("DEL", q.queue.record("1"))
    q.make_due("1")
    assert q.run(calls.promote(q.queue, ["1"])) == 0
    assert q.delayed() == {}
    assert q.entries(q.ready) == []
    assert q.record() == {}


def test_promoting_makes_the_stream_where_it_has_vanished(q):
    """So that a delayed task survives what happens to the rest."""
    q.enqueue("1", delay_ms=60_000)
    q.redis("DEL", q.ready)
    q.make_due("1")
    assert q.run(calls.promote(q.queue, ["1"])) == 1
    assert [one.message.id for one in q.fetch()] == ["1"]


def test_promoting_to_a_key_of_another_type_loses_nothing(q):
    q.enqueue("1", delay_ms=60_000)
    q.make_due("1")
    q.redis("DEL", q.ready)
    q.redis("SET", q.ready, "by hand")
    with pytest.raises(BrokerReset):
        q.run(calls.promote(q.queue, ["1"]))
    assert q.delayed() == {"1": 1}


@pytest.mark.parametrize("delay_ms", [0, 60_000])
def test_options_travel_with_their_message(q, delay_ms):
    """Through the delayed set, a retry, and a return to the queue."""
    options = b'{"ordering_key":"K"}'
    q.run(calls.enqueue(q.queue, [Message("1", "shop.buy", "q", b"[]", delay_ms, options)]))
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    (delivery,) = q.fetch()
    assert delivery.message.options == options
    q.park(delivery, error=ERROR)
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    (again,) = q.fetch()
    q.give_back(again)
    assert [one.message.options for one in q.fetch()] == [options]
