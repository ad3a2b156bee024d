"""The steps of a move to another queue: after each of them the message is in one place, and each can be made again."""

from __future__ import annotations

from itertools import pairwise

import pytest

from streamq.broker import batch, calls, moving, turns
from streamq.errors import BrokerOutOfMemory
from streamq.lifecycle import State
from streamq.message import Message, Terms


@pytest.fixture
def other(q):
    return q.keys.queue("other")


def do(q, steps):
    """Do what a walk says, as a caller or a worker does."""
    answer = None
    while True:
        try:
            answer = q.run(steps.send(answer))
        except StopIteration as end:
            return end.value


def move(q, on_progress=None):
    return do(q, moving.move(q.keys, q.queue, "other", on_progress))


def unread(q, stream):
    return q.run(moving.entries(q.queue, stream, b"0-0", b"+"))


def depart(q, *ids, stream=None):
    """Take messages off their queue, and no more."""
    stream = stream or q.ready
    chosen = [one for one in unread(q, stream) if one.message.id in ids]
    return q.run(moving.depart(q.queue, stream, "other", chosen))


def arrive(q, other, *ids):
    """Put departed messages on the other queue, and no more."""
    records = q.run(moving.departing(q.queue, ids))
    due = dict(q.run(moving.members(q.queue.moving)))
    return q.run(moving.arrive(other, "q", [(one, due[one], words) for one, words in zip(ids, records, strict=True)]))


def promoted(q, other, consumer="w-1", level=5):
    """Have a worker of the other queue promote and read what is there."""
    due = q.run(calls.due(other, 100)).task_ids
    q.run(calls.promote(other, due))
    return q.run(calls.fetch({other.levels[level]: "other"}, consumer, 100, 0))


def has_one_place(q, other):
    """Tell where the message is: exactly one queue has it, or it is on its way."""
    places = {
        "here": q.redis("XLEN", q.ready) + q.redis("ZCARD", q.queue.delayed),
        "there": q.redis("XLEN", other.ready) + q.redis("ZCARD", other.delayed),
    }
    assert sum(places.values()) + (q.redis("ZCARD", q.queue.moving) and not places["there"]) == 1
    return next((name for name, number in places.items() if number), "between")


def test_what_waits_is_moved_in_its_order(q, other):
    """With all that it carries; the old queue's record says for a week where it went."""
    ids = [str(number) for number in range(10, 350)]
    q.enqueue(*ids)
    counts = []
    assert move(q, counts.append) == (340, 0)
    assert counts[-1] == 340
    assert max(b - a for a, b in pairwise([0, *counts])) == 100
    found = []
    while some := promoted(q, other):
        found += some
    assert [one.message.id for one in found] == ids
    assert found[0].message.args == b'["10"]'
    assert (found[0].message.queue, found[0].attempt) == ("other", 1)
    assert q.record("10") == {
        "state": "delayed",
        "task": "shop.buy",
        "fence": "1",
        "moved_to": "other",
    }
    assert 6 * 86_400_000 < q.ttl_ms("10") <= 7 * 86_400_000
    assert not q.redis("EXISTS", q.queue.moving)


def test_what_workers_have_stays(q, other):
    (delivery,) = q.deliver("1")
    q.enqueue("2")
    assert move(q) == (1, 0)
    assert q.finish(delivery) == []
    assert [one.message.id for one in promoted(q, other)] == ["2"]


def test_levels_attempts_and_due_times_move_too(q, other):
    """A retry that waits, a task of the future, one that was given back, and a level."""
    (first, second) = q.deliver("retried", "returned")
    q.park(first, error=b"{}")
    q.give_back(second, died="signal SIGKILL")
    q.enqueue("later", delay_ms=600_000)
    q.enqueue("urgent", level=9)
    due = q.delayed()
    assert move(q) == (4, 0)
    assert q.run(calls.due(other, 10)).task_ids == ["returned", "urgent"]
    words = q.redis("ZRANGE", other.delayed, 0, -1, "WITHSCORES")
    there = {words[n].decode(): float(words[n + 1]) for n in range(0, len(words), 2)}
    assert {name: there[name] for name in due} == due
    for name in due:
        q.redis("ZADD", other.delayed, 1, name)
    found = {one.message.id: one for one in promoted(q, other)}
    assert (found["retried"].attempt, found["retried"].since_ms) == (2, first.since_ms)
    assert (found["returned"].deaths, found["returned"].enqueued_ms) == (1, second.enqueued_ms)
    assert found["later"].attempt == 1
    (urgent,) = q.run(calls.fetch({other.levels[9]: "other"}, "w-1", 100, 0))
    assert urgent.message.id == "urgent"


def test_a_kill_between_two_steps_loses_and_doubles_nothing(q, other):
    """After each step the message is in one place; who asks the old queue is told the truth, and the next goes on."""
    q.enqueue("1")
    assert has_one_place(q, other) == "here"
    assert depart(q, "1") == 1
    assert has_one_place(q, other) == "between"
    assert q.run(calls.watch(q.queue, "1", "c")).state is State.DELAYED
    assert q.fetch() == []
    assert q.run(calls.promote(q.queue, ["1"])) == 0
    assert arrive(q, other, "1") == []
    assert has_one_place(q, other) == "there"
    assert q.run(calls.look(q.queue, "1")).state is State.DELAYED
    assert do(q, moving.carry(q.keys, q.queue)) == (1, 0)
    assert q.run(calls.look(q.queue, "1")).moved_to == "other"
    (delivery,) = promoted(q, other)
    assert delivery.message.id == "1"
    assert has_one_place(q, other) == "there"


def test_each_step_can_be_made_again(q, other):
    """After a lost reply, and also when the task has run meanwhile."""
    q.enqueue("1")
    call = moving.depart(q.queue, q.ready, "other", unread(q, q.ready))
    assert [q.run(call), q.run(call)] == [1, 0]
    records = q.run(moving.departing(q.queue, ["1"]))
    call = moving.arrive(other, "q", [("1", b"1", records[0])])
    assert [q.run(call), q.run(call)] == [[], []]
    (delivery,) = promoted(q, other)
    assert q.run(call) == []
    done = calls.Settlement(delivery, State.SUCCEEDED, b"1")
    assert q.run(calls.finish(other, other.ready, [done], done="d", worker="w", ttl_ms=60_000)) == []
    assert q.run(call) == []
    assert q.run(calls.look(other, "1")).state is State.SUCCEEDED
    call = moving.forward(q.queue, [("1", True)])
    q.run(call)
    before = {key: q.redis("EXISTS", key) for key in q.redis("KEYS", "*")}
    q.run(call)
    assert {key: q.redis("EXISTS", key) for key in q.redis("KEYS", "*")} == before
    assert promoted(q, other) == []


def test_a_worker_that_reads_first_keeps_the_message(q, other):
    """Between the look at the entries and the step that takes them."""
    q.enqueue("1", "2")
    chosen = unread(q, q.ready)
    q.run(calls.fetch({q.ready: "q"}, "w-1", 1, 0))
    assert q.run(moving.depart(q.queue, q.ready, "other", chosen)) == 1
    assert do(q, moving.carry(q.keys, q.queue)) == (1, 0)
    assert [one["id"] for one in q.entries(q.ready)] == ["1"]


def test_an_id_that_the_other_queue_knows_stays(q, other):
    """It is another task; what was taken for the move comes back as it was."""
    q.run(calls.enqueue(other, [Message("1", "shop.sell", "other", b"[]")]))
    q.enqueue("1", "2")
    q.enqueue("3", delay_ms=60_000)
    q.run(calls.enqueue(other, [Message("3", "shop.sell", "other", b"[]", 70_000)]))
    assert move(q) == (1, 2)
    assert q.run(calls.look(other, "1")).task == "shop.sell"
    assert q.run(calls.due(q.queue, 10)).task_ids == ["1"]
    assert sorted(q.delayed()) == ["1", "3"]
    q.run(calls.promote(q.queue, ["1"]))
    (delivery,) = q.fetch()
    assert delivery.message.args == b'["1"]'
    q.redis("DEL", other.record("1"), other.record("3"))


def test_what_was_moved_can_move_on_and_come_back(q, other):
    """The records on its way lead to it; a step of the first move that comes late changes nothing."""
    q.enqueue("1")
    depart(q, "1")
    late = moving.arrive(other, "q", [("1", b"1", q.run(moving.departing(q.queue, ["1"]))[0])])
    do(q, moving.carry(q.keys, q.queue))
    assert do(q, moving.move(q.keys, other, "q", None)) == (1, 0)
    assert q.run(calls.look(other, "1")).moved_to == "q"
    assert q.run(late) == []
    assert q.run(calls.look(other, "1")).moved_to == "q"
    assert not q.redis("EXISTS", other.delayed)
    q.run(calls.promote(q.queue, ["1"]))
    (delivery,) = q.fetch()
    assert q.finish(delivery) == []
    assert q.run(calls.look(q.queue, "1")).state is State.SUCCEEDED
    assert q.ttl_ms() > 0


def test_those_behind_what_was_moved_go_on(q, other):
    """The head of a line is gone from this queue; it keeps its place only as long as it may come back."""
    q.run(batch.enqueue_all(q.keys, [Message(one, "shop.buy", "q", b"[]", terms=Terms(order="k")) for one in "ab"]))
    visit = turns.Visit("order:k", ["a"], ["b"])
    depart(q, "a")
    q.run(turns.turn(q.queue, [visit]))
    assert q.record("b")["state"] == "held"
    move(q)
    q.run(turns.turn(q.queue, [visit]))
    assert q.record("b")["state"] == "queued"
    q.redis("DEL", q.queue.rooms, *q.queue.room("order:k"))


def test_whoever_waits_is_told_of_the_end_there(q, other):
    """A client that was noted before the move is woken by the worker of the other queue."""
    q.enqueue("1")
    q.run(calls.watch(q.queue, "1", "client"))
    move(q)
    (delivery,) = promoted(q, other)
    with q.listening("sq:done:client") as heard:
        done = calls.Settlement(delivery, State.SUCCEEDED, b"1")
        q.run(calls.finish(other, other.ready, [done], done="sq:done:", worker="w", ttl_ms=60_000))
        assert heard() == ("sq:done:client", b"1")


def test_a_task_that_ended_on_its_way_does_not_arrive(q, other):
    """Somebody has ended it between two steps: what it says stays."""
    q.enqueue("1")
    depart(q, "1")
    q.redis("HSET", q.queue.record("1"), "state", "failed", "ended", 1)
    q.redis("PEXPIRE", q.queue.record("1"), 60_000)
    assert do(q, moving.carry(q.keys, q.queue)) == (0, 0)
    assert q.run(calls.look(q.queue, "1")).state is State.FAILED
    assert not q.redis("EXISTS", q.queue.moving, other.delayed)


def test_a_full_server_refuses_a_move(q, other):
    """Nothing has changed then; what had departed waits for memory."""
    q.enqueue("1", "2")
    depart(q, "1")
    q.redis("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(BrokerOutOfMemory):
            move(q)
        with pytest.raises(BrokerOutOfMemory):
            depart(q, "2")
    finally:
        q.redis("CONFIG", "SET", "maxmemory", 0)
    assert [one["id"] for one in q.entries(q.ready)] == ["2"]
    assert move(q) == (2, 0)


def test_a_move_ends_though_messages_keep_coming(q, other):
    """Those that come after it has begun with their stream are not chased."""
    q.enqueue("1", "2")
    steps, answer, made = moving.move(q.keys, q.queue, "other", None), None, 0

    def play():
        nonlocal answer, made
        while made < 100:
            call = steps.send(answer)
            made += 1
            answer = q.run(call)
            q.enqueue(f"new-{made}")

    with pytest.raises(StopIteration) as ended:
        play()
    assert 2 <= ended.value.value.moved < made
    assert len(q.entries(q.ready)) + ended.value.value.moved == made + 2


def test_a_move_takes_few_large_messages_at_a_time(q, other):
    """A page ends with the message that goes past a megabyte: neither the server nor the mover has to hold more."""
    large = b'[["%s"],{}]' % (b"x" * 400_000)
    q.run(calls.enqueue(q.queue, [Message(str(number), "t", "q", large) for number in range(7)]))
    counts = []
    assert move(q, counts.append) == (7, 0)
    assert counts == [3, 6, 7]


def test_what_is_brought_on_is_few_large_messages_at_a_time(q, other):
    """So it is for delayed messages, whose departure carries nothing."""
    large = b'[["%s"],{}]' % (b"x" * 400_000)
    ids = [str(number) for number in range(7)]
    q.run(calls.enqueue(q.queue, [Message(one, "t", "q", large, 3_600_000) for one in ids]))
    assert q.run(moving.depart_later(q.queue, "other", ids)) == 7
    assert len(q.run(moving.departing(q.queue, ids))) == 3
    assert do(q, moving.carry(q.keys, q.queue)) == (7, 0)
    assert q.run(calls.due(other, 10)).next_ms is not None
    assert q.run(moving.members(q.queue.moving)) == []
