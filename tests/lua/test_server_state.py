"""Scripts on a server that is full, or that has forgotten them."""

from __future__ import annotations

import pytest

from streamq._redis.connections import AsyncConnection
from streamq.broker import calls
from streamq.errors import BrokerOutOfMemory
from streamq.lifecycle import State
from streamq.message import Message


@pytest.fixture
def fill(q):
    """Give a function that fills the server's memory; it is empty again after the test."""
    _, before = q.redis("CONFIG", "GET", "maxmemory")
    yield lambda: q.redis("CONFIG", "SET", "maxmemory", 1)
    q.redis("CONFIG", "SET", "maxmemory", before)


def test_a_full_server_takes_no_more_messages(q, fill):
    """The caller is told so, and nothing is written, so the same call works when there is room again."""
    q.enqueue("1")
    fill()
    before = q.everything()
    with pytest.raises(BrokerOutOfMemory):
        q.enqueue("2", "3")
    with pytest.raises(BrokerOutOfMemory):
        q.enqueue("4", delay_ms=60_000)
    assert q.everything() == before
    q.redis("CONFIG", "SET", "maxmemory", 0)
    assert q.enqueue("2", "3").known == []


def test_on_a_full_server_work_goes_on(q, fill):
    """What is enqueued is read, renewed, ended, returned, parked, promoted and buried: that is how memory gets free."""
    q.enqueue("delayed", delay_ms=60_000)
    q.make_due("delayed")
    q.enqueue("done", "failed", "back", "parked", "buried")
    done, failed, back, parked, buried = q.fetch()
    fill()
    assert q.run(calls.renew(q.ready, "w-1", [done.entry])) == []
    assert q.run(calls.watch(q.queue, "done", "c-1")).state is State.QUEUED
    assert q.finish(done) == []
    assert q.finish(failed, state=State.FAILED, body=b"{}") == []
    assert q.give_back(back, died="signal SIGKILL") == (1, 0)
    assert q.park(parked) == []
    assert q.bury(buried)
    assert q.run(calls.promote(q.queue, ["delayed"])) == 1
    states = {one: q.record(one)["state"] for one in ("done", "failed", "back", "parked", "buried", "delayed")}
    assert states == {
        "done": "succeeded",
        "failed": "failed",
        "back": "queued",
        "parked": "delayed",
        "buried": "dead",
        "delayed": "queued",
    }
    assert [one.message.id for one in q.fetch("w-2")] == ["back", "delayed"]
    assert q.run(calls.forget(q.queue, "done"))
    assert not q.run(calls.retire(q.ready, "w-2"))
    q.run(calls.announce(None, [("a", b"1")]))


def test_a_full_server_gets_workers(q, fill):
    """Who begins to serve makes stream and group, and its queue is noted; so it may be when a queue is new."""
    fill()
    q.run(calls.create_group(q.ready))
    q.run(calls.register_queues(q.keys, ["q"]))
    assert q.fetch() == []
    assert q.run(calls.queue_names(q.keys)) == ["q"]


def test_a_script_that_the_server_does_not_have_is_sent_whole(q):
    """After a restart or a failover it knows none; once sent, it is called by its name again."""
    q.redis("SCRIPT", "FLUSH")
    assert q.enqueue("1").known == []
    call = calls.enqueue(q.queue, [])
    assert q.redis("SCRIPT", "EXISTS", call.script.digest) == [1]
    q.redis("CONFIG", "RESETSTAT")
    assert q.enqueue("1").known == [0]
    stats = q.redis("INFO", "commandstats").decode()
    assert "cmdstat_evalsha:calls=1" in stats
    assert "cmdstat_eval:" not in stats


async def test_an_async_connection_sends_it_whole_too(q, server_url):
    q.redis("SCRIPT", "FLUSH")
    connection = AsyncConnection(server_url)
    try:
        found = await connection.run(calls.enqueue(q.queue, [Message("1", "shop.buy", "q", b"[]")]))
    finally:
        await connection.close()
    assert found.to_note


def test_a_script_writes_to_no_other_queue(q):
    """Every key it touches is of the queue that it was called for."""
    other = q.keys.queue("other")
    q.run(calls.enqueue(other, [Message("1", "shop.buy", "other", b"[]")]))
    before = q.everything()
    q.give_back(*q.deliver("1", "2"))
    q.finish(*q.fetch())
    after = q.everything()
    assert {key: after[key] for key in before} == before
    assert all(b"{q}" in key for key in after.keys() - before.keys())
