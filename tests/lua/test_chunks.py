"""emit, read_chunks and progress: only the run that has the task adds to its stream, each chunk once, in order."""

from __future__ import annotations

import json

import pytest

from streamq.broker import calls, cancels, chunks
from streamq.broker.chunks import BEGIN, Place
from streamq.errors import BrokerOutOfMemory
from streamq.lifecycle import State
from streamq.progress import Progress
from tests.lua.conftest import ERROR

HOUR_MS = 3600 * 1000


@pytest.fixture
def emit(q):
    def send(delivery, first, *values, ttl_ms=60_000):
        return q.run(chunks.emit(q.queue, delivery, first, values, done=q.keys.done, ttl_ms=ttl_ms))

    return send


@pytest.fixture
def read(q):
    def send(after=BEGIN, client="c-1"):
        page = q.run(chunks.read_chunks(q.queue, "1", client, after))
        return page.last, [(*place, value) for place, value in page.chunks]

    return send


def cancel(q):
    assert q.run(cancels.cancel(q.queue, [cancels.Place("1")], done=q.keys.done, ttl_ms=60_000)) == [True]


HALF = Progress(0.5, "half")


def progress(q, said=HALF, fence=None):
    return q.run(chunks.progress(q.queue, "1", said, fence))


def test_chunks_are_read_in_order(q, emit, read):
    """Each with its delivery and its index in it; after any of them."""
    (delivery,) = q.deliver("1")
    assert read() == (Place(1, -1), [])
    assert emit(delivery, 0, b"1", b"2")
    assert emit(delivery, 2, b"3")
    assert read() == (Place(1, 2), [(1, 0, b"1"), (1, 1, b"2"), (1, 2, b"3")])
    assert read(Place(1, 1)) == (Place(1, 2), [(1, 2, b"3")])
    assert read(Place(1, 2)) == (Place(1, 2), [])
    assert read(Place(7, 1)) == read(), "what follows another delivery's chunk is all there is"


def test_what_comes_again_is_not_written_twice(q, emit, read):
    """The reply to it was lost; nor is the part written again that had come before."""
    (delivery,) = q.deliver("1")
    for _ in range(2):
        assert emit(delivery, 0, b"1", b"2")
    assert emit(delivery, 1, b"2", b"3")
    assert emit(delivery, 0, b"1")
    assert read() == (Place(1, 2), [(1, 0, b"1"), (1, 1, b"2"), (1, 2, b"3")])


@pytest.mark.parametrize("away", ["given back", "parked", "ended", "cancelled", "deleted"])
def test_a_run_that_has_lost_its_task_adds_nothing(q, emit, away):
    (delivery,) = q.deliver("1")
    emit(delivery, 0, b"1")
    if away == "given back":
        q.give_back(delivery)
    elif away == "parked":
        q.park(delivery)
    elif away == "ended":
        q.finish(delivery)
    elif away == "cancelled":
        cancel(q)
    else:
        q.redis("DEL", q.queue.record("1"))
    before = q.everything()
    assert not emit(delivery, 1, b"2")
    assert q.everything() == before


def test_another_delivery_begins_anew(q, emit, read):
    """What was emitted before is void from the moment on at which the task is given away."""
    (old,) = q.deliver("1")
    emit(old, 0, b"1", b"2")
    q.give_back(old)
    assert read(Place(1, 1)) == (Place(2, -1), [])
    (new,) = q.fetch("w-2")
    assert emit(new, 0, b"3")
    assert read(Place(1, 1)) == (Place(2, 0), [(2, 0, b"3")])
    assert not emit(old, 2, b"x")


def test_an_id_that_is_used_anew_begins_anew(q, emit, read):
    """The chunks of the task that had it before may outlive its record."""
    (old,) = q.deliver("1")
    emit(old, 0, b"1", b"2")
    q.finish(old)
    q.redis("DEL", q.queue.record("1"))
    (new,) = q.deliver("1")
    assert read() == (Place(1, -1), [])
    assert not emit(old, 2, b"x"), "though it has the same fence"
    assert emit(new, 0, b"3")
    assert read() == (Place(1, 0), [(1, 0, b"3")])


def test_the_chunks_of_a_cancelled_run_are_its_own(q, emit, read):
    (delivery,) = q.deliver("1")
    emit(delivery, 0, b"1")
    cancel(q)
    assert read() == (Place(1, 0), [(1, 0, b"1")])


def test_chunks_expire(q, emit):
    """After an hour at least; so long as results, if that is longer."""
    (delivery,) = q.deliver("1")
    emit(delivery, 0, b"1", ttl_ms=1000)
    key = q.queue.chunks("1")
    assert HOUR_MS - 10_000 < q.redis("PTTL", key) <= HOUR_MS
    emit(delivery, 1, b"1", ttl_ms=2 * HOUR_MS)
    assert 2 * HOUR_MS - 10_000 < q.redis("PTTL", key) <= 2 * HOUR_MS


def test_a_page_is_bounded(q, emit, read):
    """By number and by bytes; the next one goes on."""
    (delivery,) = q.deliver("1")
    emit(delivery, 0, *[b"1"] * 600)
    emit(delivery, 600, *[b"x" * 300_000] * 5)
    last, found = read()
    assert (last, len(found)) == (Place(1, 604), 500)
    assert [len(value) for *_, value in read(Place(1, 599))[1]] == [300_000] * 4
    assert len(read(Place(1, 603))[1]) == 1


def test_readers_are_woken_and_others_are_not(q, emit, read):
    """Who waits for the end alone need not look at each chunk; all are told of the end."""
    (delivery,) = q.deliver("1")
    q.run(calls.watch(q.queue, "1", "waits"))
    for client in ("c-1", "c-2", "c-1"):
        read(client=client)
    assert q.record()["waiters"] == "waits c-1 c-2"
    with q.listening("sq:done:*", pattern=True) as next_message:
        emit(delivery, 0, b"1")
        assert [next_message() for _ in range(2)] == [(f"sq:done:c-{n}", b"1") for n in (1, 2)]
        q.finish(delivery)
        assert [next_message()[0] for _ in range(3)] == ["sq:done:waits", "sq:done:c-1", "sq:done:c-2"]


def test_the_record_comes_without_the_result(q, emit):
    (delivery,) = q.deliver("1")
    q.finish(delivery, state=State.FAILED, body=ERROR)
    assert q.run(chunks.read_chunks(q.queue, "1", "c-1", BEGIN)).record.body == ERROR
    q.redis("HSET", q.queue.record("1"), "result", b"large")
    q.redis("HDEL", q.queue.record("1"), "error")
    assert q.run(chunks.read_chunks(q.queue, "1", "c-1", BEGIN)).record.body == b""
    assert "readers" not in q.record(), "it has ended"


def test_there_is_no_record(q, read):
    page = q.run(chunks.read_chunks(q.queue, "1", "c-1", BEGIN))
    assert page.record.state is State.UNKNOWN
    assert q.everything() == {}


def test_forget_takes_the_chunks_along(q, emit):
    (delivery,) = q.deliver("1")
    emit(delivery, 0, b"1")
    q.finish(delivery)
    assert q.run(calls.forget(q.queue, "1"))
    assert not q.redis("EXISTS", q.queue.record("1"), q.queue.chunks("1"))


def test_memory_is_full(q, emit, read):
    """Nothing is added, and it can be tried again; what is there can be read."""
    (delivery,) = q.deliver("1")
    emit(delivery, 0, b"1")
    q.redis("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(BrokerOutOfMemory):
            emit(delivery, 1, b"2")
        assert read() == (Place(1, 0), [(1, 0, b"1")])
    finally:
        q.redis("CONFIG", "SET", "maxmemory", 0)
    assert emit(delivery, 1, b"2")


def test_the_last_progress_counts(q):
    """It is in the record, also of a task that has ended; then it stays as it is."""
    (delivery,) = q.deliver("1")
    assert progress(q, Progress(0.25))
    assert progress(q, fence=delivery.fence)
    assert json.loads(q.record()["progress"]) == {"fraction": 0.5, "text": "half"}
    assert progress(q, Progress(0.7), fence=delivery.fence + 1) is False
    q.finish(delivery)
    assert progress(q, Progress(0.9)) is False
    assert json.loads(q.record()["progress"]) == {"fraction": 0.5, "text": "half"}


def test_the_progress_of_what_is_not_there(q):
    assert progress(q) is False
    assert q.everything() == {}


def test_the_progress_of_a_task_that_was_moved(q):
    q.redis("HSET", q.queue.record("1"), "state", "delayed", "moved_to", "there")
    assert progress(q) == "there"


def test_listeners_are_told_of_a_progress(q):
    q.deliver("1")
    with q.listening("sq:events:*", pattern=True) as next_message:
        progress(q, Progress(0.4, 'at "é"'))
        channel, data = next_message()
    assert channel == "sq:events:q:shop.buy:progress"
    told = json.loads(data)
    assert abs(told.pop("time") - q.now()) < 10_000
    assert told == {
        "event": "task.progress", "queue": "q", "task": "shop.buy", "id": "1", "fraction": 0.4, "text": 'at "é"',
    }  # fmt: skip
