"""enqueue_all: messages of several queues are all there, or none is."""

from __future__ import annotations

import pytest

from streamq.broker import batch, calls
from streamq.errors import BrokerOutOfMemory, BrokerRefused, BrokerReset
from streamq.message import Message

ORDERS = Message("1", "shop.buy", "q", b'["1"]')
LATER = Message("2", "shop.remind", "q", b"[]", 60_000)
MAIL = Message("3", "shop.mail", "mails", b'{"to":"x"}')
ALL = (ORDERS, LATER, MAIL)


def enqueue_all(q, *messages):
    return q.run(batch.enqueue_all(q.keys, messages)).queues


def test_all_are_where_they_belong(q):
    """Just as if each had been enqueued alone; the queues that are new are told."""
    assert enqueue_all(q, *ALL) == {"q", "mails"}
    together = [q.entries(q.ready), q.entries(q.keys.queue("mails").ready), list(q.delayed())]
    (delivery,) = q.fetch()
    assert delivery.message == ORDERS
    assert q.record("2")["state"] == "delayed"
    q.redis("FLUSHDB")
    for message in ALL:
        q.run(calls.enqueue(q.keys.queue(message.queue), [message]))
    assert [q.entries(q.ready), q.entries(q.keys.queue("mails").ready), list(q.delayed())] == together


def test_none_at_all_is_nothing(q):
    assert enqueue_all(q) == set()
    assert q.everything() == {}


def test_the_order_is_kept_and_a_queue_is_new_once(q):
    messages = [Message(str(n), "shop.buy", "q", b"[]") for n in range(300)]
    assert enqueue_all(q, *messages[:200]) == {"q"}
    assert enqueue_all(q, *messages[200:]) == set()
    assert [entry["id"] for entry in q.entries(q.ready)] == [message.id for message in messages]


def test_sending_again_changes_nothing(q):
    """The reply was lost, and with it which queues are new: what is there is left as it is, and no obstacle."""
    q.enqueue("1")
    assert enqueue_all(q, *ALL, MAIL) == {"q", "mails"}
    before = q.everything()
    assert enqueue_all(q, LATER) == {"q"}
    assert enqueue_all(q, *ALL, MAIL) == {"q", "mails"}
    assert q.everything() == before
    assert len(q.entries(q.ready)) == len(q.entries(q.keys.queue("mails").ready)) == 1


@pytest.mark.parametrize("key", ["ready", "delayed", "record"])
@pytest.mark.parametrize("queue", ["q", "mails"])
def test_a_key_of_another_type_is_said_and_nothing_is_written(q, key, queue):
    """Whichever of all keys it is."""
    keys = q.keys.queue(queue)
    wrong = keys.record("2" if queue == "q" else "3") if key == "record" else getattr(keys, key)
    q.redis("SET", wrong, "by hand", "PX", 60_000)
    before = q.everything()
    with pytest.raises(BrokerReset) as caught:
        enqueue_all(q, *ALL)
    assert f"WRONGTYPE {wrong} is a string" in str(caught.value)
    assert q.everything() == before
    q.redis("DEL", wrong)
    assert enqueue_all(q, *ALL) == {"q", "mails"}


def test_a_full_server_takes_none(q):
    q.enqueue("0")
    _, before = q.redis("CONFIG", "GET", "maxmemory")
    q.redis("CONFIG", "SET", "maxmemory", 1)
    there = q.everything()
    try:
        with pytest.raises(BrokerOutOfMemory):
            enqueue_all(q, *ALL)
        assert q.everything() == there
    finally:
        q.redis("CONFIG", "SET", "maxmemory", before)
    assert enqueue_all(q, *ALL) == {"mails"}


def test_memory_that_becomes_full_on_the_way_stops_nothing(q):
    """The limit is looked at before the first write, and not between two."""
    _, before = q.redis("CONFIG", "GET", "maxmemory")
    messages = [Message(str(n), "shop.buy", f"q{n % 2}", b"[%b]" % (b"1" * 100_000)) for n in range(50)]
    used = int(q.redis("INFO", "memory").split(b"used_memory:")[1].split()[0])
    q.redis("CONFIG", "SET", "maxmemory", used + 3_000_000)
    try:
        q.redis("CONFIG", "SET", "maxmemory-policy", "noeviction")
        for attempt in ("1", "2"):
            numbered = [message._replace(id=f"{attempt}-{message.id}") for message in messages]
            try:
                enqueue_all(q, *numbered)
            except BrokerOutOfMemory:
                landed = 0
            else:
                landed = 50
            there = [key for key in q.redis("KEYS", "*:task:*") if f":task:{attempt}-".encode() in key]
            assert len(there) == landed
        assert landed == 0, "the second one found no room"
    finally:
        q.redis("CONFIG", "SET", "maxmemory", before)


@pytest.fixture
def limited(q):
    """Give a function that takes permissions of this connection's user away; it is the default one after the test."""

    def limit(*rules):
        q.redis("ACL", "SETUSER", "limited", "reset", "on", "nopass", "~*", "&*", "+@all", *rules)
        q.redis("AUTH", "limited", "x")

    yield limit
    q.redis("AUTH", "default", "x")
    q.redis("ACL", "DELUSER", "limited")


@pytest.mark.parametrize("command", ["xadd", "zadd", "hset", "hexists", "exists", "type", "xgroup|create"])
def test_a_permission_that_is_missing_is_said_before_anything_is_written(q, limited, command):
    """Not when half of the messages are there."""
    q.enqueue("0", delay_ms=60_000)
    limited(f"-{command}")
    before = {key: q.redis("DUMP", key) for key in q.redis("KEYS", "*")}
    with pytest.raises(BrokerRefused):
        enqueue_all(q, *ALL)
    assert {key: q.redis("DUMP", key) for key in q.redis("KEYS", "*")} == before


def test_where_a_channel_is_forbidden_its_events_are_lost_and_nothing_else(q, limited):
    with q.listening("sq:events:*", pattern=True) as next_message:
        limited("resetchannels", "&sq:events:mails:*")
        assert enqueue_all(q, *ALL) == {"q", "mails"}
        assert next_message()[0] == "sq:events:mails:shop.mail:queued"


def test_listeners_hear_of_all(q):
    with q.listening("sq:events:*", pattern=True) as next_message:
        enqueue_all(q, *ALL)
        heard = [next_message()[0] for _ in ALL]
    assert heard == [
        "sq:events:q:shop.buy:queued",
        "sq:events:q:shop.remind:delayed",
        "sq:events:mails:shop.mail:queued",
    ]
