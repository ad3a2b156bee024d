"""letters, redrive and purge: what is dead can be seen, run again or deleted, and stays until one of these is asked."""

from __future__ import annotations

import pytest

from streamq.broker import calls, letters, reads
from streamq.errors import BrokerOutOfMemory, BrokerReset
from streamq.lifecycle import State
from streamq.message import Malformed, Message


@pytest.fixture
def die(q):
    """Give a function that enqueues messages and has each moved to the dead letters."""

    def to_death(*ids):
        deliveries = q.deliver(*ids)
        assert all(q.bury(delivery) for delivery in deliveries)
        return deliveries

    return to_death


def read(q, first=b"-", last=b"+"):
    return q.run(letters.letters(q.queue, first, last))


def redrive(q, *, reset=False, **new_ids):
    """Redrive all letters that are there, each with its own id unless another is given."""
    found = [(one.entry, new_ids.get(one.message.message.id, one.message.message.id)) for one in read(q)]
    return q.run(letters.redrive(q.queue, found, reset=reset))


def test_a_letter_holds_the_message_as_it_was(q, die):
    (delivery,) = die("1")
    (letter,) = read(q)
    assert (letter.reason, letter.worker) == (b"why", b"w-1")
    assert letter.message.message == delivery.message
    assert letter.message.enqueued_ms == delivery.enqueued_ms
    assert letter.fields == [b"id", b"1", b"task", b"shop.buy", b"args", b'["1"]']


def test_letters_are_read_in_pages(q, die):
    """At most a hundred at a time, and fewer when they are large."""
    die(*map(str, range(100)))
    die(*map(str, range(100, 130)))
    first = read(q)
    assert len(first) == reads.PAGE
    rest = read(q, b"(" + first[-1].entry)
    assert [int(one.message.message.id) for one in [*first, *rest]] == list(range(130))
    assert read(q, b"(" + rest[-1].entry) == []
    big = [Message(f"big-{n}", "shop.buy", "q", b"[%b]" % (b"1" * 400_000)) for n in range(5)]
    q.run(calls.enqueue(q.queue, big))
    for delivery in q.fetch():
        q.bury(delivery)
    assert len(read(q, b"(" + rest[-1].entry)) == 3


def test_a_part_is_read_by_its_times(q, die):
    """Both ends belong to it; one who asks for later ones than there are gets none."""
    die("1", "2", "3")
    one, two, three = (letter.entry for letter in read(q))
    assert [letter.entry for letter in read(q, two)] == [two, three]
    assert [letter.entry for letter in read(q, one, two)] == [one, two]
    assert read(q, b"(" + three) == []
    assert q.run(reads.newest(q.queue.dead)) == three


def test_where_nobody_died_there_is_nothing(q):
    assert read(q) == []
    assert q.run(reads.newest(q.queue.dead)) is None
    assert q.run(letters.purge(q.queue, [b"1-1"])) == 0


@pytest.mark.parametrize("fields", [(), ("what", b"\xff\x00"), ("reason", "its own"), ("id", "1"), ("id", "1", "id")])
def test_what_was_no_message_can_be_read(q, fields):
    """Whatever it held; it says why it is none."""
    q.enqueue()
    if len(fields) % 2:
        fields = (*fields, "2")
    q.add(*(fields or ("x", "")))
    if not fields:  # its body has gone, so its letter has no more than our own fields
        (entry,) = q.fetch()
        q.redis("XDEL", q.ready, entry.entry)
        q.bury(entry)
    else:
        q.bury(*q.fetch())
    (letter,) = read(q)
    assert letter.reason == b"why"
    assert isinstance(letter.message, Malformed)
    assert letter.fields == [word if isinstance(word, bytes) else word.encode() for word in fields]


def test_a_letter_of_very_many_fields_shows_them(q):
    """They were packed, for scripts cannot pass on so many."""
    words = [word for number in range(3000) for word in (b"f%d" % number, b"\xff" if number else b'"')]
    q.enqueue()
    q.add(*words)
    q.bury(*q.fetch())
    (letter,) = read(q)
    assert letter.fields == words
    assert letter.message.reason == "has 3000 fields"


def test_what_others_have_written_there_can_be_read(q):
    q.redis("XADD", q.queue.dead, "*", "by", "hand", "more", "words", "than", "five", "a", "b", "c", "d")
    q.redis("XADD", q.queue.dead, "*", "reason", "x", "worker", "x", "entry", "no entry", "error", "{", "fields", "[")
    one, two = read(q)
    assert one.message.reason == "is none of ours"
    assert one.fields[:2] == [b"by", b"hand"]
    assert two.fields == [b"fields", b"["]


# ---- redrive


def test_a_redriven_message_runs_again(q, die):
    """It is as it was, under a raised fence; its record waits for an outcome, and expires no longer."""
    (old,) = die("1")
    assert redrive(q) == letters.Redriven(1, 0)
    assert read(q) == []
    (new,) = q.fetch()
    assert new.message == old.message
    assert (new.stream, new.fence, new.enqueued_ms) == (q.ready, 1, old.enqueued_ms)
    assert (new.attempt, new.deaths) == (1, 0)
    assert q.record() == {"state": "queued", "task": "shop.buy", "entry": new.entry.decode(), "fence": "1"}
    assert q.ttl_ms() == -1
    assert q.finish(new) == []
    assert q.record()["state"] == "succeeded"


def test_whoever_ran_it_before_it_died_can_no_longer_commit(q, die):
    """Also if its record has expired meanwhile: the message knows its fence too."""
    (delivery,) = q.deliver("1")
    q.give_back(delivery)
    (last,) = q.fetch()
    q.bury(last)
    q.redis("DEL", q.queue.record("1"))
    redrive(q)
    (new,) = q.fetch()
    assert new.fence == 2
    for old in (delivery, last):
        assert q.finish(old) == [0]
    assert q.finish(new) == []


def test_the_higher_of_two_fences_counts(q, die):
    """A record that was raised after the message was written is the one to believe."""
    die("1")
    q.redis("HSET", q.queue.record("1"), "fence", 7)
    redrive(q)
    assert q.fetch()[0].fence == 8


COUNTS = ("fence", "3", "at", "1000", "attempt", "2", "since", "2000", "deaths", "1", "trace", "\u2603")


def counted(q):
    """Have a message die that was tried and lost before."""
    q.enqueue()
    q.add("id", "1", "task", "shop.buy", "args", "[]", *COUNTS)
    (delivery,) = q.fetch()
    q.redis(
        "HSET", q.queue.record("1"), "state", "queued", "entry", delivery.entry, "fence", 3, "deaths", 1, "attempt", 2
    )
    q.redis("HSET", q.queue.record("1"), "failure", "{}", "stream", "returned")
    assert q.bury(delivery)


def test_counts_are_kept(q):
    """So that a message cannot be tried for ever by being redriven; fields that we do not know are kept as well."""
    counted(q)
    redrive(q)
    (new,) = q.fetch()
    assert (new.fence, new.enqueued_ms, new.attempt, new.since_ms, new.deaths) == (4, 1000, 2, 2000, 1)
    (entry,) = q.entries(q.ready)
    assert entry["trace"] == "\u2603"
    record = q.record()
    assert {record[name] for name in ("deaths", "failure")} == {"1", "{}"}
    assert record["attempt"] == "2"
    assert not {"stream", "error", "ended", "result"} & record.keys()


def test_counts_begin_anew_when_asked(q):
    """The cause is gone: the message has all its attempts again, and a day for a worker that knows its task."""
    counted(q)
    before = q.now()
    redrive(q, reset=True)
    (new,) = q.fetch()
    assert (new.fence, new.attempt, new.deaths) == (4, 1, 0)
    assert new.enqueued_ms >= before
    assert new.since_ms == int(new.entry.partition(b"-")[0])
    assert not {"deaths", "attempt", "failure"} & q.record().keys()


def test_an_id_that_was_enqueued_again_is_in_conflict(q, die):
    """There is one task of an id at a time; the letter stays, and the others go on."""
    die("1", "2")
    q.redis("DEL", q.queue.record("1"))
    q.enqueue("1")
    before = q.record("1")
    assert redrive(q) == letters.Redriven(1, 1)
    assert q.record("1") == before
    assert [letter.message.message.id for letter in read(q)] == ["1"]
    assert [entry["id"] for entry in q.entries(q.ready)] == ["1", "2"]


@pytest.mark.parametrize("end", [State.SUCCEEDED, State.FAILED])
def test_a_task_that_has_ended_is_not_run_again(q, die, end):
    """Its outcome was told; that of the letter would replace it."""
    die("1")
    q.redis("DEL", q.queue.record("1"))
    q.finish(*q.deliver("1"), state=end)
    assert redrive(q) == letters.Redriven(0, 1)
    assert q.record()["state"] == end


def test_of_two_letters_of_one_id_one_is_redriven(q, die):
    die("1")
    q.redis("DEL", q.queue.record("1"))
    die("1")
    assert redrive(q) == letters.Redriven(1, 1)
    assert len(read(q)) == 1


def test_a_record_of_another_type_is_in_conflict_and_stops_no_other(q, die):
    die("1", "2")
    q.redis("DEL", q.queue.record("1"))
    q.redis("SET", q.queue.record("1"), "by hand", "PX", 60_000)
    assert redrive(q) == letters.Redriven(1, 1)


def test_with_a_new_id_it_is_a_new_task(q):
    """It has counts of its own and was enqueued now; the task of the old id is left as it is."""
    counted(q)
    q.redis("DEL", q.queue.record("1"))
    q.enqueue("1")
    before = q.record("1")
    assert redrive(q, **{"1": "2"}) == letters.Redriven(1, 0)
    assert q.record("1") == before
    _, new = q.fetch()
    assert new.message == Message("2", "shop.buy", "q", b"[]")
    assert (new.fence, new.attempt, new.deaths) == (0, 1, 0)
    assert new.enqueued_ms == int(new.entry.partition(b"-")[0])
    assert q.record("2") == {"state": "queued", "task": "shop.buy", "entry": new.entry.decode()}
    assert q.finish(new) == []


def test_redriving_again_does_nothing(q, die):
    """The reply was lost, or another was faster: there is one message, not two."""
    die("1")
    (letter,) = read(q)
    call = letters.redrive(q.queue, [(letter.entry, "1")], reset=False)
    assert q.run(call) == letters.Redriven(1, 0)
    before = q.everything()
    assert q.run(call) == letters.Redriven(0, 0)
    assert q.run(letters.redrive(q.queue, [(letter.entry, "2")], reset=False)) == letters.Redriven(0, 0)
    assert q.everything() == before


def test_those_who_wait_are_woken_when_it_has_run(q, die):
    """They noted themselves before it died, and were told then; the second time they are told again."""
    (delivery,) = q.deliver("1")
    q.run(calls.watch(q.queue, "1", "c-1"))
    q.bury(delivery)
    redrive(q)
    with q.listening("sq:done:c-1") as next_message:
        q.finish(*q.fetch())
        assert next_message() == ("sq:done:c-1", b"1")


def test_a_redriven_task_is_queued_for_listeners(q, die):
    die("1")
    with q.listening("sq:events:q:*", pattern=True) as next_message:
        redrive(q)
        channel, said = next_message()
    assert channel == "sq:events:q:shop.buy:queued"
    assert b'"id":"1"' in said


def test_redriving_makes_the_stream_where_it_has_vanished(q, die):
    die("1")
    q.redis("DEL", q.ready)
    redrive(q)
    assert [one.message.id for one in q.fetch()] == ["1"]


def test_redriving_to_a_key_of_another_type_loses_nothing(q, die):
    die("1")
    q.redis("DEL", q.ready)
    q.redis("SET", q.ready, "by hand")
    with pytest.raises(BrokerReset):
        redrive(q)
    assert len(read(q)) == 1
    assert q.record()["state"] == "dead"
    q.redis("DEL", q.ready)
    assert redrive(q) == letters.Redriven(1, 0)


def test_a_full_server_redrives_nothing_but_purges(q, die):
    """The letters stay where they are until there is room; deleting them makes room."""
    die("1", "2")
    _, before = q.redis("CONFIG", "GET", "maxmemory")
    q.redis("CONFIG", "SET", "maxmemory", 1)
    try:
        there = q.everything()
        with pytest.raises(BrokerOutOfMemory):
            redrive(q)
        assert q.everything() == there
        one, _ = read(q)
        assert q.run(letters.purge(q.queue, [one.entry])) == 1
    finally:
        q.redis("CONFIG", "SET", "maxmemory", before)
    assert redrive(q) == letters.Redriven(1, 0)


# ---- purge


def test_purging_deletes_letters_and_leaves_records(q, die):
    """Those who ask for the task's result learn how it ended, for as long as any result is kept."""
    die("1", "2")
    one, two = read(q)
    assert q.run(letters.purge(q.queue, [one.entry, b"1-1"])) == 1
    assert [letter.entry for letter in read(q)] == [two.entry]
    assert q.record("1")["state"] == "dead"
    assert 0 < q.ttl_ms("1") <= 60_000
