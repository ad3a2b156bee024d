"""Logs of events: complete, in order, bounded, gone when nobody adds to them, and never in the way."""

from __future__ import annotations

import itertools
import json

import pytest

from streamq._redis.connections import SyncConnection
from streamq._redis.keys import Keys
from streamq.broker import batch, calls, cancels, event_log, letters, moving, schedules, turns, walking
from streamq.events import TYPES, read_event
from streamq.lifecycle import State
from streamq.limits import Limit, rule_of
from streamq.message import Lock, Message, Share, Terms
from tests.lua.conftest import ERROR, Bench

LOG, OTHER_LOG, WORKERS = "sq:{q}:events", "sq:{other}:events", "sq:worker-events"
STAKE = turns.Stake("limit:one", rule_of(Limit(concurrency=1, name="one")), 1.0)
LINE, LOCK = Terms(order="k"), Terms(Lock("shop.buy:1a", "delayed", 60_000, renews=True))


class Logging(Bench):
    """The scripts of an app that keeps its events."""

    def __init__(self, connection: SyncConnection) -> None:
        super().__init__(connection)
        self.keys = Keys("sq", durable_events=True)
        self.queue = self.keys.queue("q")


@pytest.fixture
def kept(any_server, connection) -> Logging:
    return Logging(connection)


def events(q, log=LOG):
    """Return what is in a log, in order."""
    return [fields[1] for _, fields in q.redis("XRANGE", log, "-", "+")]


def told(q, log=LOG):
    """Return of each event in a log its kind and the task's id."""
    found = map(json.loads, events(q, log))
    return [(event["event"].removeprefix("task."), event.get("id")) for event in found]


def twice(q, call):
    """Send a call again, as who lost its reply; returns what came first."""
    first = q.run(call)
    q.run(call)
    return first


# ---- lives, in each of which every call is sent twice where it may be


def simple(q):
    q.deliver("done", "failed", "expired", "cancelled", "buried", "called off")
    done, failed, expired, cancelled, buried, _ = held = q.run(calls.held_by(q.queue, q.ready, "w-1", 10))
    q.enqueue(*(one.message.id for one in held))
    ends = {
        State.SUCCEEDED: done,
        State.FAILED: failed,
        State.EXPIRED: expired,
        State.CANCELLED: cancelled,
    }
    for state, one in ends.items():
        q.finish(one, state=state, body=ERROR)
        q.finish(one, state=state, body=ERROR)
    q.bury(buried)
    q.bury(buried)
    place = cancels.Place("called off")
    twice(q, cancels.cancel(q.queue, [place], done=q.keys.done, ttl_ms=60_000))
    [letter] = q.run(letters.letters(q.queue, b"-", b"+"))
    twice(q, letters.redrive(q.queue, [(letter.entry, "buried")], reset=True))
    return [
        *(("queued", one.message.id) for one in held),
        *(("succeeded", "done"), ("failed", "failed"), ("expired", "expired"), ("cancelled", "cancelled")),
        *(("dead", "buried"), ("cancelled", "called off"), ("queued", "buried")),
    ]


def put_off(q):
    q.enqueue("late", delay_ms=60_000)
    q.make_due("late")
    twice(q, calls.promote(q.queue, ["late"]))
    for seconds, error in ((60.0, ERROR), (60.0, b"")):
        [delivery] = q.fetch()
        q.park(delivery, seconds=seconds, error=error)
        q.park(delivery, seconds=seconds, error=error)
        q.make_due("late")
        q.run(calls.promote(q.queue, ["late"]))
    return [(kind, "late") for kind in ("delayed", "queued", "retried", "queued", "delayed", "queued")]


def died(q):
    q.deliver("a")
    for number in range(3):
        stream = q.returned if number else q.ready
        [delivery] = q.run(calls.held_by(q.queue, stream, "w-1", 10))
        q.give_back(delivery, died="signal SIGKILL")
        q.give_back(delivery, died="signal SIGKILL")
        q.fetch()
    return [("queued", "a"), ("reclaimed", "a"), ("reclaimed", "a"), ("dead", "a")]


def waited(q):
    first, second = q.deliver("a", "b")
    q.run(turns.admit(q.queue, q.ready, [(one, [STAKE]) for one in (first, second)]))
    q.finish(first)
    twice(q, turns.turn(q.queue, [turns.Visit(STAKE.member, ["a"], ["b"])]))
    q.redis("DEL", q.queue.rooms, *q.queue.room(STAKE.member))
    return [("queued", "a"), ("queued", "b"), ("held", "b"), ("succeeded", "a"), ("queued", "b")]


def on_terms(q):
    messages = [
        *(Message(one, "shop.buy", "q", b"[]", terms=LINE) for one in ("a", "b")),
        *(Message(f"{n}", "shop.buy", "q", b"[]", terms=Terms(share=Share("k", 1.0))) for n in range(51)),
    ]
    twice(q, batch.enqueue_all(q.keys, messages))
    locked = [Message(one, "shop.buy", "q", b"[]", 60_000, terms=LOCK) for one in ("c", "d")]
    for one in locked:
        found = q.run(batch.enqueue_all(q.keys, [one]))
        if found.seen:
            q.run(batch.enqueue_all(q.keys, [one], found))
    q.redis("DEL", q.queue.rooms, *q.queue.room("order:k"), *q.queue.room(turns.FAIR))
    in_the_stream = ["a", *map(str, range(49))]
    return [
        *(("queued", "a"), ("held", "b"), *(("queued", one) for one in in_the_stream[1:])),
        *(("held", "49"), ("held", "50"), ("delayed", "c"), ("delayed", "c")),
    ]


def fired(q):
    q.run(schedules.define_schedule(q.queue, "nightly", b"{}", 1000))
    [due] = q.run(schedules.due_schedules(q.queue, 0, 1)).due
    messages = [Message(one, "shop.buy", "q", b"[]") for one in ("a", "b")]
    twice(q, schedules.fire(q.keys, q.queue, due, messages, next_ms=2_000_000_000_000, last="1000"))
    return [("queued", "a"), ("queued", "b")]


LIVES = [simple, put_off, died, waited, on_terms, fired]


@pytest.mark.parametrize("live", LIVES)
def test_each_event_is_in_the_log_once_and_in_order(kept, live):
    """Also if calls are sent again because their replies got lost."""
    expected = live(kept)
    assert told(kept) == expected
    assert all(read_event(event).queue == "q" for event in events(kept))
    assert 3_590_000 < kept.redis("PTTL", LOG) <= 3_600_000


@pytest.mark.parametrize("live", LIVES)
def test_a_log_holds_what_is_published(kept, live):
    """The same bytes, by which who listens and reads can tell what came both ways."""
    with kept.listening(kept.keys.events(), pattern=True) as next_message:
        number = len(live(kept))
        assert [next_message()[1] for _ in range(number)] == events(kept)


@pytest.mark.parametrize("live", LIVES)
def test_without_durable_events_there_is_no_log(q, live):
    """Neither by the way, while somebody listens."""
    with q.listening(q.keys.events(), pattern=True) as next_message:
        live(q)
        next_message()
    assert not q.redis("KEYS", "*events*")


def test_no_kind_of_event_was_forgotten(kept):
    """But for that a task has begun, of which its worker tells, and for how far it is."""
    kinds = set()
    for live in LIVES:
        kinds |= {kind for kind, _ in live(kept)}
        kept.redis("FLUSHALL")
    assert {f"task.{kind}" for kind in kinds} | {"task.started", "task.progress"} == {
        kind for kind in TYPES if kind.startswith("task.")
    }


def test_what_comes_from_another_queue_is_in_the_log_of_the_new_one(kept):
    kept.enqueue("1")
    walking.complete(kept.connection, moving.move(kept.keys, kept.queue, "other", None))
    assert told(kept) == [("queued", "1")]
    assert told(kept, OTHER_LOG) == [("delayed", "1")]


def test_a_transaction_over_several_queues_is_in_the_logs_of_all(kept):
    """Of each queue what is its own."""
    queues = [*"qababq"]
    messages = [Message(str(n), "shop.buy", queue, b"[]", n % 2 * 60_000) for n, queue in enumerate(queues)]
    twice(kept, batch.enqueue_all(kept.keys, messages))
    kinds = ["queued", "delayed"]
    for queue in "qab":
        mine = [(kinds[n % 2], str(n)) for n, its_queue in enumerate(queues) if its_queue == queue]
        assert told(kept, f"sq:{{{queue}}}:events") == mine
        assert 3_590_000 < kept.redis("PTTL", f"sq:{{{queue}}}:events") <= 3_600_000


def test_workers_have_a_log_of_their_own(kept):
    with kept.listening("a") as next_message:
        kept.run(calls.announce(WORKERS, [("a", b"1"), ("b", b"2"), ("a", b"")]))
        assert [next_message() for _ in range(2)] == [("a", b"1"), ("a", b"")]
    assert events(kept, WORKERS) == [b"1", b"2", b""]
    assert 3_590_000 < kept.redis("PTTL", WORKERS) <= 3_600_000


def test_a_log_has_a_bound(kept):
    """What came first goes; the server may keep the rest of a node of its own."""
    fill = "for i = 1, 100500 do redis.call('XADD', KEYS[1], '*', 'e', i) end"
    kept.redis("EVAL", fill, 1, LOG)
    kept.enqueue("1")
    assert 100_000 <= kept.redis("XLEN", LOG) < 100_200
    assert json.loads(events(kept)[-1])["id"] == "1"


def test_each_event_has_a_log_live_longer(kept):
    kept.enqueue("1")
    kept.redis("PEXPIRE", LOG, 5000)
    kept.enqueue("2")
    assert kept.redis("PTTL", LOG) > 3_590_000


@pytest.mark.parametrize("live", LIVES)
def test_a_key_that_is_no_log_costs_events_and_nothing_else(kept, live):
    """It was written by hand; it stays as it is, for as long as it would."""
    kept.redis("SET", LOG, "a letter to my aunt")
    with kept.listening(kept.keys.events(), pattern=True) as next_message:
        expected = live(kept)
        heard = [json.loads(next_message()[1]) for _ in expected]
    assert [event["event"].removeprefix("task.") for event in heard] == [kind for kind, _ in expected]
    assert kept.redis("GET", LOG) == b"a letter to my aunt"
    assert kept.redis("PTTL", LOG) == -1
    kept.redis("DEL", LOG)


def test_what_frees_memory_is_in_the_log_of_a_full_server_too(kept):
    (delivery,) = kept.deliver("1")
    _, before = kept.redis("CONFIG", "GET", "maxmemory")
    kept.redis("CONFIG", "SET", "maxmemory", 1)
    try:
        kept.finish(delivery)
    finally:
        kept.redis("CONFIG", "SET", "maxmemory", before)
    assert told(kept) == [("queued", "1"), ("succeeded", "1")]


# ---- how they are read


def read(q, **where):
    """Read all logs as somebody does who knows nothing of whether events are kept; returns the pages."""
    return list(walking.follow(q.connection, event_log.since(Keys("sq"), **where)))


@pytest.fixture
def history(kept, monkeypatch):
    """Have events of two queues and of workers, which came in turn, and pages that are small."""
    monkeypatch.setattr(event_log, "PAGE", 3)
    kept.run(calls.register_queues(kept.keys, ["q", "other", "silent"]))
    order = [LOG, OTHER_LOG, LOG, LOG, LOG, LOG, WORKERS, LOG, OTHER_LOG, LOG, WORKERS, LOG]
    yield [
        event_log.Logged(log, kept.redis("XADD", log, f"{1000 + n // 2}-{n}", "e", f"{n}"), b"%d" % n)
        for n, log in enumerate(order)
    ]
    kept.redis("DEL", LOG, OTHER_LOG, WORKERS)


def test_logs_are_read_together_in_the_order_of_time(kept, history):
    pages = read(kept)
    assert [one for page in pages for one in page] == history
    assert all(0 < len(page) <= 9 for page in pages)
    assert len(pages) > 2, "not all at once"


@pytest.mark.parametrize("start_ms", [0, 1000, 1003, 1005, 1006])
def test_they_are_read_from_a_time_on(kept, history, start_ms):
    found = [one for page in read(kept, start_ms=start_ms) for one in page]
    assert found == [one for n, one in enumerate(history) if 1000 + n // 2 >= start_ms]


def test_reading_goes_on_after_what_was_read(kept, history):
    """From wherever one stopped, with the last entry of each log, and the time for a log of which nothing was read."""
    for number in range(len(history) + 1):
        after = {one.log: one.entry for one in history[:number]}
        assert [one for page in read(kept, after=after) for one in page] == history[number:]


def test_what_comes_while_one_reads_is_left_for_the_next_time(kept, history):
    """So reading ends, however much comes."""
    news = [(3000, LOG), (4000, WORKERS)]
    walk = walking.follow(kept.connection, event_log.since(kept.keys))
    found = list(next(walk))
    late = [event_log.Logged(log, kept.redis("XADD", log, f"{ms}-0", "e", "x"), b"x") for ms, log in news]
    found += itertools.chain.from_iterable(walk)
    assert found == history
    after = {one.log: one.entry for one in found}
    assert [one for page in read(kept, after=after) for one in page] == late


def test_where_no_events_are_kept_there_are_none_to_read(q):
    q.deliver("1")
    q.run(calls.register_queues(q.keys, ["q"]))
    assert read(q) == []
