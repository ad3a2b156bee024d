"""The scripts of the logs of channels, each called alone."""

from __future__ import annotations

import pytest

from streamq._redis.keys import Keys
from streamq.broker import channels
from streamq.broker.channels import Retention
from streamq.errors import BrokerOutOfMemory, BrokerReset
from tests.workers import until

KEYS = Keys("sq").channel("orders")
KEPT = Retention()


@pytest.fixture
def redis(connection):
    return connection.client.execute_command


@pytest.fixture
def append(connection):
    """Give a function that appends a message, as the n-th of a session."""

    def run(sequence, session="s", retention=KEPT, data=b'{"a":1}'):
        return connection.run(channels.append(KEYS, data, session, sequence, retention, sharded=False))

    return run


@pytest.fixture
def fetch(connection):
    def run(consumer="w", group="g", count=100, start="0", retention=KEPT):
        return connection.run(channels.fetch(KEYS, group, consumer, count=count, start=start, retention=retention))

    return run


@pytest.fixture
def claim(connection):
    def run(consumer="w", lease_ms=0, cursor="0-0", count=100):
        return connection.run(channels.claim(KEYS, "g", consumer, lease_ms=lease_ms, cursor=cursor, count=count))

    return run


def pending(redis, consumer=None):
    found = redis("XPENDING", KEYS.log, "g", "-", "+", 100, *([consumer] if consumer else []))
    return [entry.decode() for entry, *_ in found]


# ---- append


def test_messages_are_numbered_over_all_sessions(any_server, append, redis):
    first, second, third = append(1), append(1, "t"), append(2)
    assert [one.is_first for one in (first, second, third)] == [True, False, False]
    entries = redis("XRANGE", KEYS.log, "-", "+")
    assert [entry.decode() for entry, _ in entries] == [first.entry, second.entry, third.entry]
    assert [fields for _, fields in entries] == [[b"m", b'{"a":1}', b"n", b"%d" % n] for n in (1, 2, 3)]


@pytest.mark.parametrize("sequence", [1, 2, 3])
def test_what_was_sent_before_is_not_kept_again(any_server, append, redis, sequence):
    """And has the entry that it had."""
    entries = [append(nth, data=b'{"id":"s-%d"}' % nth).entry for nth in (1, 2, 3)]
    again = append(sequence, data=b'{"id":"s-%d"}' % sequence)
    assert again == (0, entries[sequence - 1], False)
    assert redis("XLEN", KEYS.log) == 3
    assert append(4).entry > entries[-1]
    assert append(2, data=b'{"id":"another"}') == (0, None, False)  # as if it were gone


def test_all_it_writes_goes_by_itself(any_server, append, redis):
    append(1, retention=Retention(10, 100.0))
    left = {key: redis("PTTL", key) for key in (KEYS.log, KEYS.numbers, KEYS.sent("s"))}
    assert 90_000 < left[KEYS.log] <= 100_000
    assert 90_000 < left[KEYS.numbers] <= 100_000
    assert 590_000 < left[KEYS.sent("s")] <= 600_000


def test_the_oldest_go_by_length_and_by_age(any_server, append, redis):
    for nth in range(1, 1001):
        append(nth, retention=Retention(100, None) if nth % 2 else Retention(100, 3600.0))
    assert 100 <= redis("XLEN", KEYS.log) <= 300
    until(lambda: append(1, "another", retention=Retention(None, 0.001)) and redis("XLEN", KEYS.log) <= 200)


@pytest.mark.parametrize("key", [KEYS.log, KEYS.numbers, KEYS.sent("s")])
def test_where_something_else_lies_nothing_is_written(any_server, append, redis, key):
    redis("LPUSH", key, "x")
    redis("PEXPIRE", key, 60_000)
    with pytest.raises(BrokerReset):
        append(1)
    assert redis("DBSIZE") == 1


def test_full_memory_refuses_and_writes_nothing(any_server, append, redis, fetch, claim):
    """Messages that are there can still be taken and handled."""
    entry = append(1).entry
    redis("CONFIG", "SET", "maxmemory", "1mb")
    try:
        with pytest.raises(BrokerOutOfMemory):
            append(2)
        assert [kept.entry for kept in fetch().kept] == [entry]
        assert [kept.entry for kept in claim("other").kept] == [entry]
    finally:
        redis("CONFIG", "SET", "maxmemory", "0")
    assert redis("XLEN", KEYS.log) == 1


# ---- fetch


def test_a_group_and_a_log_are_made_for_who_asks(any_server, fetch, redis, append):
    assert fetch() == ([], 0, "0-0")
    assert redis("TTL", KEYS.log) > 0
    entry = append(1).entry
    [kept] = fetch().kept
    assert (kept.entry, kept.number, kept.data, kept.deliveries) == (entry, 1, b'{"a":1}', 1)
    assert fetch().kept == []


def test_a_group_for_ever_makes_a_log_for_ever(any_server, fetch, redis):
    fetch(retention=Retention(None, None))
    assert redis("PTTL", KEYS.log) == -1
    redis("DEL", KEYS.log)


def test_a_group_is_told_how_many_it_has_missed(any_server, append, fetch, redis):
    entries = [append(nth).entry for nth in range(1, 6)]
    assert len(fetch(count=1).kept) == 1
    redis("XDEL", KEYS.log, *entries[1:3])
    batch = fetch(count=1)
    assert ([kept.number for kept in batch.kept], batch.missed) == ([4], 2)
    assert fetch().missed == 0
    assert fetch(group="new").missed == 0


def test_the_numbers_go_when_the_log_goes(any_server, append, fetch, redis):
    append(1, retention=Retention(10, 60.0))
    fetch()
    assert abs(redis("PTTL", KEYS.log) - redis("PTTL", KEYS.numbers)) < 1000


# ---- claim, ack, release


def test_only_what_is_older_than_a_lease_is_taken_over(any_server, append, fetch, claim, redis):
    entries = [append(nth).entry for nth in (1, 2)]
    fetch("dead")
    assert claim(lease_ms=60_000).kept == []
    found = claim().kept
    assert [kept.entry for kept in found] == entries
    assert [kept.deliveries for kept in found] == [2, 2]
    assert pending(redis, "w") == entries


def test_a_sweep_goes_on_where_it_was(any_server, append, fetch, claim):
    entries = [append(nth).entry for nth in range(1, 6)]
    fetch("dead")
    found, cursor = [], "0-0"
    while True:
        batch = claim(cursor=cursor, count=2)
        found += [kept.entry for kept in batch.kept]
        if (cursor := batch.cursor) == "0-0":
            break
    assert found == entries


def test_what_is_gone_from_the_log_is_counted(any_server, append, fetch, claim, redis):
    entries = [append(nth).entry for nth in (1, 2, 3)]
    fetch("dead")
    redis("XDEL", KEYS.log, *entries[:2])
    batch = claim()
    assert ([kept.entry for kept in batch.kept], batch.missed) == (entries[2:], 2)
    assert pending(redis) == entries[2:]


def test_where_there_is_no_group_nothing_is_found(any_server, claim, append):
    assert claim() == ([], 0, "0-0")
    append(1)
    assert claim() == ([], 0, "0-0")


def test_members_that_have_left_are_removed(any_server, append, fetch, claim, redis):
    """After a long time, and if they have nothing."""
    append(1)
    fetch("has one")
    other = append(2).entry
    fetch("has nothing")
    redis("XACK", KEYS.log, "g", other)
    claim(lease_ms=60_000)
    assert {one[1] for one in redis("XINFO", "CONSUMERS", KEYS.log, "g")} >= {b"has one", b"has nothing"}
    claim(lease_ms=-60_000)  # as if the minute were over
    until(
        lambda: (
            claim("w", lease_ms=-60_000) and [one[1] for one in redis("XINFO", "CONSUMERS", KEYS.log, "g")] == [b"w"]
        )
    )
    assert len(pending(redis, "w")) == 1


def test_who_has_it_acknowledges_it(any_server, append, fetch, connection, redis):
    entries = [append(nth).entry for nth in (1, 2)]
    fetch("w")
    assert connection.run(channels.ack(KEYS, "g", "other", entries)) == entries
    assert pending(redis) == entries
    assert connection.run(channels.ack(KEYS, "g", "w", [entries[0], "9-9"])) == ["9-9"]
    assert pending(redis) == entries[1:]
    assert connection.run(channels.ack(KEYS, "none", "w", entries)) == entries


def test_what_is_given_back_is_taken_at_once(any_server, append, fetch, claim, connection, redis):
    entries = [append(nth).entry for nth in (1, 2)]
    fetch("w")
    connection.run(channels.release(KEYS, "g", "other", entries, 60_000))
    assert claim("other", lease_ms=60_000).kept == []
    connection.run(channels.release(KEYS, "g", "w", [entries[0], "9-9"], 60_000))
    [kept] = claim("other", lease_ms=60_000).kept
    assert (kept.entry, kept.deliveries) == (entries[0], 1)  # what was not handled does not count
