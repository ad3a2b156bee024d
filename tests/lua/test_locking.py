"""enqueue_all with locks: a call that is there already is not put a second time, for as long as its holder says."""

from __future__ import annotations

import contextlib

import pytest

from streamq.broker import batch, calls, cancels, moving
from streamq.errors import BrokerOutOfMemory, BrokerRefused, BrokerReset
from streamq.lifecycle import State
from streamq.message import Lock, Message, Terms
from tests.workers import until

LOCK = "sq:{q}:unique:shop.buy:1a"


def call(task_id, rule="running", *, ttl_ms=60_000, args=None, delay_ms=0, options=b"", queue="q", **more):
    """Make a message of a call that has to take the lock."""
    lock = Lock("shop.buy:1a", rule, ttl_ms, **more)
    return Message(task_id, "shop.buy", queue, args or b'["%b"]' % task_id.encode(), delay_ms, options, Terms(lock))


def later(task_id, *, delay_ms=60_000, **more):
    """Make a message of a call that waits for another to take its place."""
    return call(task_id, "delayed", delay_ms=delay_ms, renews=True, **more)


def put(q, *messages):
    """Put messages as a broker does; returns the ids of the tasks that are there in place of some, by position."""
    found = None
    while found is None or found.seen:
        found = q.run(batch.enqueue_all(q.keys, messages, found))
    return found.there


def ids(q):
    return [entry["id"] for entry in q.entries(q.ready)]


def test_the_second_is_told_who_is_the_first(q):
    """It leaves no trace; the first is left as it is. What has another lock, or none, is put."""
    assert put(q, call("1")) == {}
    before = q.everything()
    assert put(q, call("2")) == {0: "1"}
    assert q.everything() == before
    other = call("3")
    other = other._replace(terms=Terms(replace_name(other.terms.lock)))
    assert put(q, call("4"), other, Message("5", "shop.buy", "q", b"[]")) == {0: "1"}
    assert ids(q) == ["1", "3", "5"]


def replace_name(lock):
    return lock._replace(name="shop.buy:2b")


def test_a_free_lock_costs_one_call(q):
    """Only one that is not free is looked up."""
    found = q.run(batch.enqueue_all(q.keys, [call("1")]))
    assert not found.seen
    found = q.run(batch.enqueue_all(q.keys, [call("2")]))
    assert found.seen == {0: "5:1"}
    assert not q.run(batch.enqueue_all(q.keys, [call("2")], found)).seen


@pytest.mark.parametrize("rule", ["queued", "running", "done"])
def test_sending_again_is_no_duplicate_of_itself(q, rule):
    """The reply was lost, also that of a call that took a lock over."""
    assert [put(q, call("1", rule)) for _ in range(2)] == [{}, {0: "1"}]
    q.redis("DEL", q.ready)
    seen = q.run(batch.enqueue_all(q.keys, [call("2", rule)]))
    sent = [q.run(batch.enqueue_all(q.keys, [call("2", rule)], seen)) for _ in range(2)]
    assert [(one.there, one.seen) for one in sent] == [({}, {}), ({0: "2"}, {})]
    assert put(q, call("2", rule)) == {0: "2"}
    assert ids(q) == ["2"]
    assert put(q, call("3", rule)) == {0: "2"}


# ---- until when a lock is held


def waits(_q):
    """Nobody has fetched it."""


def runs(q):
    q.fetch()


def is_parked(q):
    """It waits for another attempt."""
    q.park(*q.fetch(), error=b"{}")


def is_given_back(q):
    q.give_back(*q.fetch())


def runs_again(q):
    q.give_back(*q.fetch())
    q.fetch("w-2")


def has_succeeded(q):
    q.finish(*q.fetch())


def is_buried(q):
    q.bury(q.fetch()[0])


def is_forgotten(q):
    """Its result is not kept."""
    has_succeeded(q)
    q.run(calls.forget(q.queue, "1"))


def is_to_be_forgotten(q):
    """It goes on, and its result will not be kept."""
    q.run(calls.forget(q.queue, "1"))


def is_cancelled(q):
    place = cancels.Place("1")
    assert q.run(cancels.cancel(q.queue, [place], done=q.keys.done, ttl_ms=60_000, running=True)) == [True]


def is_cancelled_while_it_runs(q):
    q.fetch()
    is_cancelled(q)


def is_moved(q):
    """It is on another queue now, where its lock is another."""
    steps, answer = moving.move(q.keys, q.queue, "other", None), None
    with contextlib.suppress(StopIteration):
        while True:
            answer = q.run(steps.send(answer))


def has_expired(q):
    q.finish(*q.fetch(), state=State.EXPIRED, body=b"{}")


def has_no_entry(q):
    """Somebody has deleted it by hand."""
    q.redis("XTRIM", q.ready, "MAXLEN", 0)


def has_no_stream(q):
    q.redis("DEL", q.ready)


def has_no_entry_any_more(q):
    """It was deleted when it had been given back."""
    q.give_back(*q.fetch())
    q.redis("DEL", q.returned)


def has_no_record(q):
    q.redis("DEL", q.queue.record("1"))


HELD = {
    waits: {"queued", "running", "done"},
    runs: {"running", "done"},
    is_parked: {"queued", "running", "done"},
    is_given_back: {"queued", "running", "done"},
    runs_again: {"running", "done"},
    has_succeeded: {"done"},
    is_buried: {"done"},
    is_forgotten: {"done"},
    is_to_be_forgotten: {"queued", "running", "done"},
    is_cancelled: set(),
    is_cancelled_while_it_runs: set(),
    has_expired: set(),
    is_moved: {"done"},
    has_no_entry: set(),
    has_no_stream: set(),
    has_no_entry_any_more: set(),
    has_no_record: {"done"},
}


@pytest.mark.parametrize("rule", ["queued", "running", "done"])
@pytest.mark.parametrize("becomes", HELD, ids=lambda becomes: becomes.__name__)
def test_a_lock_is_held_for_as_long_as_its_holder_says(q, becomes, rule):
    """Nobody has to release it. Whoever takes it over holds it then."""
    put(q, call("1", rule))
    becomes(q)
    assert put(q, call("2", rule)) == ({0: "1"} if rule in HELD[becomes] else {})
    assert put(q, call("3", rule)) == {0: "1" if rule in HELD[becomes] else "2"}


@pytest.mark.parametrize("rule", ["queued", "running", "done"])
def test_a_delayed_holder_has_it(q, rule):
    """Its time has not come, or has only just."""
    put(q, call("1", rule, delay_ms=60_000))
    assert put(q, call("2", rule)) == {0: "1"}
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    assert put(q, call("2", rule)) == {0: "1"}


def test_an_id_that_was_forgotten_is_no_way_around_it(q):
    """Within the time of a lock that outlives its holder, the same id is not put again either."""
    put(q, call("1", "done"))
    is_forgotten(q)
    assert put(q, call("1", "done")) == {0: "1"}
    assert put(q, call("1", "running")) == {}


def test_whose_rule_counts(q):
    """That of the later call: it says what it would not follow."""
    put(q, call("1", "running"))
    q.fetch()
    assert put(q, call("2", "running")) == {0: "1"}
    assert put(q, call("2", "queued")) == {}


def test_it_is_never_held_for_longer_than_it_lives(q):
    """Its time is counted from the enqueue on, and does not begin anew because somebody finds it."""
    put(q, call("1", ttl_ms=60_000))
    q.redis("PEXPIRE", LOCK, 5_000)
    assert put(q, call("2", ttl_ms=60_000)) == {0: "1"}
    assert 0 < q.redis("PTTL", LOCK) <= 5_000
    q.redis("DEL", LOCK)
    assert put(q, call("3", ttl_ms=60_000)) == {}
    assert 50_000 < q.redis("PTTL", LOCK) <= 60_000


def test_without_such_a_time_it_stays_while_it_is_used(q):
    """A holder that is found lives on; one whose time has not come is waited for."""
    put(q, call("1", renews=True))
    q.redis("PEXPIRE", LOCK, 5_000)
    assert put(q, call("2", renews=True)) == {0: "1"}
    assert 50_000 < q.redis("PTTL", LOCK) <= 60_000
    q.redis("FLUSHALL")
    put(q, call("1", renews=True, delay_ms=1_000_000))
    assert 1_050_000 < q.redis("PTTL", LOCK) <= 1_060_001  # a due time is never early, but up to 1 ms late


@pytest.mark.parametrize("level", [0, 9])
def test_on_each_level(q, level):
    """Where the holder is to be found its lock says."""
    urgent = b'{"level":%d}' % level
    put(q, call("1", "queued", options=urgent))
    assert put(q, call("2", "queued")) == {0: "1"}
    [delivery] = q.fetch(stream=q.queue.levels[level])
    assert put(q, call("2", "running")) == {0: "1"}
    q.give_back(delivery)
    assert put(q, call("2", "queued")) == {0: "1"}
    assert put(q, call("2", "running", options=urgent)) == {0: "1"}
    q.redis("DEL", q.returned)
    assert put(q, call("2")) == {}
    assert put(q, call("3", options=urgent)) == {0: "2"}


# ---- several at once


def test_of_two_that_find_it_stale_one_takes_it(q):
    """The other comes with the keys of a holder that is no more, and is sent to look again."""
    put(q, call("1"))
    q.finish(*q.fetch())
    found = [q.run(batch.enqueue_all(q.keys, [call(one)])) for one in ("2", "3")]
    assert [one.seen for one in found] == [{0: "5:1"}] * 2
    assert q.run(batch.enqueue_all(q.keys, [call("2")], found[0])).there == {}
    late = q.run(batch.enqueue_all(q.keys, [call("3")], found[1]))
    assert (late.there, late.seen) == ({}, {0: "5:2"})
    assert q.run(batch.enqueue_all(q.keys, [call("3")], late)).there == {0: "2"}
    assert ids(q) == ["2"]


def test_of_equal_calls_in_one_batch_the_first_is_put(q):
    """Also where the lock had a holder that is no more."""
    for first, second in (("1", "2"), ("3", "4")):
        assert put(q, call(first), call(second), call(first)) == {1: first, 2: first}
        assert ids(q) == [first]
        q.finish(*q.fetch())


def test_nothing_is_put_before_all_locks_are_known(q):
    """All or none: also what needs no lock waits until it is clear what becomes of the rest."""
    put(q, call("1"))
    before = q.everything()
    plain = Message("2", "shop.mail", "mails", b"[]")
    assert q.run(batch.enqueue_all(q.keys, [plain, call("3")])).seen == {1: "5:1"}
    assert q.everything() == before
    assert put(q, plain, call("3")) == {1: "1"}
    assert q.entries(q.keys.queue("mails").ready)[0]["id"] == "2"


def test_each_queue_has_its_own(q):
    """All that a script touches is in one slot of a cluster."""
    assert put(q, call("1"), call("2", queue="mails")) == {}


def test_a_known_id_is_left_alone_whatever_its_lock(q):
    put(q, call("1"))
    q.enqueue("2")
    assert put(q, call("2")) == {0: "2"}
    assert ids(q) == ["1", "2"]


# ---- what was written by hand, or cannot be written


@pytest.mark.parametrize("value", [b"", b"by hand", b"5:", b"\xff:1", b"5:\xff", "5:ü".encode()])
def test_what_was_written_by_hand_locks_nothing(q, value):
    q.redis("HSET", LOCK, "holder", value)
    assert put(q, call("1")) == {}
    assert q.redis("HGET", LOCK, "holder") == b"5:1"


def test_a_lock_of_another_type_is_said_and_nothing_is_written(q):
    q.redis("RPUSH", LOCK, "by hand")
    before = q.everything()
    with pytest.raises(BrokerReset, match="is a list and no hash"):
        put(q, Message("1", "shop.mail", "mails", b"[]"), call("2"))
    assert q.everything() == before
    q.redis("DEL", LOCK)


def test_a_holder_whose_record_is_something_else_is_said(q):
    put(q, call("1"))
    q.redis("DEL", q.queue.record("1"))
    q.redis("SET", q.queue.record("1"), "by hand", "PX", 60_000)
    with pytest.raises(BrokerReset, match="is a string and no hash"):
        put(q, call("2"))


def test_a_full_server_takes_no_lock(q):
    q.redis("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(BrokerOutOfMemory):
            put(q, call("1"))
        assert q.everything() == {}
    finally:
        q.redis("CONFIG", "SET", "maxmemory", 0)


@pytest.mark.parametrize("command", ["hget", "hmget", "pexpire", "xrange", "xpending", "zscore"])
def test_a_permission_that_is_missing_is_said_before_anything_is_written(q, command):
    """Of those that only locks need, nothing else needs any."""
    q.redis("ACL", "SETUSER", "limited", "reset", "on", "nopass", "~*", "&*", "+@all", f"-{command}")
    q.redis("AUTH", "limited", "x")
    try:
        with pytest.raises(BrokerRefused):
            put(q, Message("1", "shop.mail", "mails", b"[]"), call("2"))
        assert q.redis("KEYS", "*") == []
        assert put(q, Message("1", "shop.mail", "mails", b"[]")) == {}
    finally:
        q.redis("AUTH", "default", "x")
        q.redis("ACL", "DELUSER", "limited")


# ---- the last of several calls


def test_a_later_call_takes_the_place_of_one_that_waits(q):
    """Its arguments, its options and its time are those of the later one; the id is that of the first."""
    put(q, later("1", options=b'{"old":1}'))
    before = q.delayed()["1"]
    assert put(q, later("2", delay_ms=90_000, options=b'{"new":1}')) == {0: "1"}
    assert 29_000 < q.delayed()["1"] - before < 40_000
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    (delivery,) = q.fetch()
    assert (delivery.message.args, delivery.message.options) == (b'["2"]', b'{"new":1}')
    q.finish(delivery)
    assert q.redis("EXISTS", q.queue.record("2")) == 0


def test_options_that_a_later_call_has_not_are_gone(q):
    put(q, later("1", options=b'{"old":1}'))
    put(q, later("2"))
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    (delivery,) = q.fetch()
    assert delivery.message.options == b""


def test_what_takes_a_place_is_enqueued_then(q):
    """So an expiry that counts from the enqueue does not count from that of a call which is not run."""
    put(q, later("1"))
    first = int(q.record("1")["at"])
    until(lambda: put(q, later("2")) and int(q.record("1")["at"]) > first)
    last = int(q.record("1")["at"])
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    (delivery,) = q.fetch()
    assert delivery.enqueued_ms == last
    assert "first" not in q.record("1")


def test_it_is_not_put_off_for_ever(q):
    """With a longest wait, counted from the first call on."""
    put(q, later("1", longest_ms=70_000))
    begun = int(q.record("1")["at"])
    put(q, later("2", longest_ms=70_000, delay_ms=65_000))
    assert begun + 65_000 <= q.delayed()["1"] < begun + 70_000
    put(q, later("3", longest_ms=70_000, delay_ms=90_000))
    assert q.delayed()["1"] == begun + 70_000


def comes(q):
    """Its time has come."""
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))


def begins(q):
    comes(q)
    q.fetch()


def waits_for_a_second_attempt(q):
    """It waits again, but it has run."""
    comes(q)
    q.park(*q.fetch(), error=b"{}")


def ends(q):
    comes(q)
    q.finish(*q.fetch())


@pytest.mark.parametrize("becomes", [comes, begins, waits_for_a_second_attempt, ends, is_cancelled, has_no_record])
def test_one_that_does_not_wait_any_more_is_let_go(q, becomes):
    """The later call waits by itself, and others take its place."""
    put(q, later("1"))
    becomes(q)
    assert put(q, later("2")) == {}
    assert put(q, later("3")) == {0: "2"}
    assert q.record("2")["args"] == '["3"]'


def test_of_equal_calls_in_one_batch_the_last_is_run(q):
    """Under the id of the first, also if that was there before."""
    assert put(q, later("1"), later("2"), later("3")) == {1: "1", 2: "1"}
    assert q.record("1")["args"] == '["3"]'
    assert put(q, later("4"), later("5")) == {0: "1", 1: "1"}
    assert q.record("1")["args"] == '["5"]'


def test_a_reply_that_was_lost_changes_nothing_but_the_times(q):
    put(q, later("1"))
    before = replaced(q)
    put(q, later("2"))
    put(q, later("2"))
    after = replaced(q)
    assert after == {**before, "args": '["2"]', "more": "[]", "at": after["at"], "first": before["at"]}


def replaced(q):
    return q.record("1")


def test_listeners_hear_of_the_new_time(q):
    put(q, later("1"))
    with q.listening("sq:events:*", pattern=True) as next_message:
        put(q, later("2"))
        channel, text = next_message()
    assert channel == "sq:events:q:shop.buy:delayed"
    assert b'"id":"1"' in text
    until(lambda: not q.has_listeners())
