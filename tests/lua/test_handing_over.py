"""give_back, park, renew, claim and retire: a message changes hands, and is neither lost nor in two hands."""

from __future__ import annotations

import pytest

from streamq.broker import calls
from streamq.broker.rescue import rescue
from streamq.config import Settings
from streamq.errors import BrokerError, BrokerReset
from streamq.message import Delivery, Malformed, Message

HOUR_MS = 3_600_000
ERROR = b'{"type":"ValueError","message":"no tea","args":[],"traceback":""}'


def age(q, delivery, ms=HOUR_MS):
    """Have a delivery look as if its owner had given no sign of life for so long."""
    q.redis("XCLAIM", delivery.stream, "workers", "w-1", 0, delivery.entry, "IDLE", ms, "JUSTID")


def idle_ms(q, delivery):
    ((_, _, idle, deliveries),) = q.redis("XPENDING", delivery.stream, "workers", delivery.entry, delivery.entry, 1)
    return idle, deliveries


# ---- back to the fleet


def test_what_is_given_back_can_be_read_at_once_by_another(q):
    """It moves to the stream of returned messages, under a raised fence, and still knows when it was enqueued."""
    (old,) = q.deliver("1")
    assert q.give_back(old) == (1, 0)
    assert q.entries(q.ready) == []
    assert q.pending(q.ready) == {}
    (new,) = q.fetch("w-2")
    assert (new.message, new.stream) == (old.message, q.returned)
    assert (new.fence, new.enqueued_ms) == (1, old.enqueued_ms)
    assert q.record() == {
        "state": "queued",
        "task": "shop.buy",
        "entry": new.entry.decode(),
        "fence": "1",
        "stream": "returned",
    }
    assert q.ttl_ms() == -1


def test_returned_messages_are_read_first(q):
    first, *_ = q.deliver("1")
    q.enqueue("2")
    q.give_back(first)
    assert [one.message.id for one in q.fetch()] == ["1", "2"]


def test_each_return_raises_the_fence(q):
    """And the time of the first enqueue stays, however often it is returned."""
    (delivery,) = q.deliver("1")
    first = delivery
    for fence in (1, 2, 3):
        assert q.give_back(delivery) == (1, 0)
        (delivery,) = q.fetch()
        assert (delivery.fence, delivery.deliveries) == (fence, fence + 1)
        assert delivery.enqueued_ms == first.enqueued_ms
        assert q.record()["fence"] == str(fence)
    assert len(q.entries(q.returned)) == 1
    assert q.finish(first) == [0]
    assert q.finish(delivery) == []


def test_only_the_owner_can_give_back(q):
    """Another's entry, one that is not pending, and one that never was, stay as they are."""
    (delivery,) = q.deliver("1")
    q.fetch()
    before = q.everything()
    assert q.give_back(delivery, owner="w-2") == (0, 0)
    assert q.everything() == before
    assert q.give_back(delivery) == (1, 0)
    before = q.everything()
    assert q.give_back(delivery) == (0, 0)
    assert q.give_back(delivery._replace(entry=b"1-1")) == (0, 0)
    assert q.everything() == before


def test_many_are_given_back_at_once(q):
    """Those that are still held; the number says how many."""
    deliveries = q.deliver("1", "2", "3")
    q.finish(deliveries[1])
    assert q.give_back(*deliveries) == (2, 0)
    assert [entry["id"] for entry in q.entries(q.returned)] == ["1", "3"]


def test_only_a_death_is_counted_as_one(q):
    """What had not started when its worker stopped did no harm."""
    (delivery,) = q.deliver("1")
    q.give_back(delivery, died="")
    assert "deaths" not in q.record()
    for deaths in ("1", "2"):
        (delivery,) = q.fetch()
        q.give_back(delivery, died="signal SIGKILL")
        assert q.record()["deaths"] == deaths


def test_fields_of_a_newer_version_are_kept(q):
    """In their order, with whatever bytes; only fence and time are written anew."""
    q.enqueue()
    q.add("v", "2", "id", "1", "task", "shop.buy", "args", "[]", "trace", b"\xff\x00", "fence", "0")
    (delivery,) = q.fetch()
    q.give_back(delivery)
    ((_, fields),) = q.redis("XRANGE", q.returned, "-", "+")
    at = str(delivery.enqueued_ms).encode()
    kept = [b"v", b"2", b"id", b"1", b"task", b"shop.buy", b"args", b"[]", b"trace", b"\xff\x00"]
    assert fields == [*kept, b"fence", b"1", b"at", at]
    (again,) = q.fetch(stream=q.returned)
    assert q.finish(again) == []


def test_without_its_record_a_message_is_given_back_all_the_same(q):
    """It was deleted by hand, but the message is there and has to run."""
    (delivery,) = q.deliver("1")
    q.redis("DEL", q.queue.record("1"))
    assert q.give_back(delivery) == (1, 0)
    (again,) = q.fetch()
    assert again.fence == 1
    assert q.finish(again) == []
    assert 0 < q.ttl_ms() <= 60_000


def test_a_body_that_was_deleted_is_not_given_back(q):
    """There is nothing to run; it is pending no longer."""
    (delivery,) = q.deliver("1")
    q.redis("XDEL", q.ready, delivery.entry)
    assert q.give_back(delivery) == (0, 0)
    assert q.pending(q.ready) == {}
    assert q.entries(q.returned) == []


def test_giving_back_to_a_key_of_another_type_loses_nothing(q):
    """The entry stays pending, so that it is tried again."""
    (delivery,) = q.deliver("1")
    q.redis("DEL", q.returned)
    q.redis("SET", q.returned, "by hand", "PX", 60_000)
    with pytest.raises(BrokerReset):
        q.give_back(delivery)
    assert q.pending(q.ready) == {delivery.entry.decode(): "w-1"}


def test_a_record_of_another_type_does_not_stand_in_the_way(q):
    """Its message is kept among the dead letters, and what comes behind it is given back."""
    strange, behind = q.deliver("1", "2")
    q.redis("SET", q.queue.record("1"), "by hand", "PX", 60_000)
    assert q.give_back(strange, behind) == (1, 1)
    assert [(letter["id"], letter["reason"]) for letter in q.entries(q.queue.dead)] == [
        ("1", "the record of its task is a string")
    ]
    assert q.pending(q.ready) == {}
    assert [one.message.id for one in q.fetch()] == ["2"]


# ---- deaths


def die(q, times: int, max_deaths: int = 3):
    """Have a worker die under a task, again and again."""
    q.enqueue("1")
    for _ in range(times):
        (delivery,) = q.fetch()
        given = q.give_back(delivery, died="signal SIGSEGV", max_deaths=max_deaths)
    return given


def test_deaths_travel_with_the_message(q):
    """Who fetches it next knows how dangerous it is."""
    assert die(q, 2) == (1, 0)
    (delivery,) = q.fetch()
    assert (delivery.deaths, delivery.attempt, delivery.fence) == (2, 1, 2)
    q.give_back(delivery)
    (delivery,) = q.fetch()
    assert (delivery.deaths, delivery.fence) == (2, 3), "a return is no death, and takes none back"


def test_after_too_many_deaths_a_message_is_a_dead_letter(q):
    """With its body, how its worker died and which that was; its task ends with the error."""
    assert die(q, 3) == (0, 1)
    (letter,) = q.entries(q.queue.dead)
    assert letter["reason"] == "its worker died 3 times: signal SIGSEGV"
    assert (letter["worker"], letter["args"], letter["deaths"]) == ("w-1", '["1"]', "3")
    record = q.record()
    assert (record["state"], record["error"], record["deaths"]) == ("dead", ERROR.decode(), "3")
    assert 50_000 < q.ttl_ms() <= 60_000
    assert q.fetch() == []


def test_those_who_wait_for_a_task_that_kills_are_woken(q):
    q.enqueue("1")
    q.run(calls.watch(q.queue, "1", "c-1"))
    with q.listening("sq:done:c-1") as next_message:
        die(q, 1, max_deaths=1)
        assert next_message() == ("sq:done:c-1", b"1")


def test_who_lost_a_message_to_the_dead_letters_is_refused(q):
    (delivery,) = q.deliver("1")
    q.give_back(delivery, died="signal SIGKILL", max_deaths=1)
    q.finish(delivery)
    assert q.record()["state"] == "dead"


def test_a_suspect_is_not_buried_for_the_death_of_its_worker(q, any_server):
    """It ran in a process of its own, so that was another's doing; but to read it may be what kills."""
    settings = Settings(any_server)
    die(q, 2)
    for _ in range(10):
        q.fetch()
        assert rescue(settings, ["q"], "w-1", "signal SIGSEGV") == (1, 0)
    q.fetch()
    assert rescue(settings, ["q"], "w-1", "signal SIGSEGV") == (0, 1)
    assert q.record()["deaths"] == "13"


def test_what_had_not_begun_is_not_blamed(q, any_server):
    """If something else that had a death already had begun; but what is new may have been the cause as well."""
    settings = Settings(any_server)
    q.deliver("old", "accused")
    assert rescue(settings, ["q"], "w-1", "signal SIGSEGV") == (2, 0)
    _, accused = q.fetch()
    q.deliver("new")
    assert rescue(settings, ["q"], "w-1", "signal SIGSEGV", {(accused.stream, accused.entry)}) == (3, 0)
    assert [q.record(one).get("deaths") for one in ("old", "accused", "new")] == ["1", "2", "1"]


def test_another_is_not_accused_for_ever(q, any_server):
    """One that kills its worker late, when others have just begun, is found in the end."""
    settings = Settings(any_server)
    die(q, 1)
    deaths = []
    for _ in range(10):
        q.fetch()
        rescue(settings, ["q"], "w-1", "signal SIGSEGV", {("another", b"1-1")})
        deaths.append(q.record()["deaths"])
    assert deaths == ["1"] * 9 + ["2"]


def test_what_is_no_suspect_is_buried_for_the_death_of_its_worker(q, any_server):
    """Where the first death is one too many, nothing ever becomes suspect."""
    settings = Settings(any_server, max_deaths=1)
    q.deliver("1", "2")
    assert rescue(settings, ["q"], "w-1", "signal SIGSEGV") == (0, 2)


def test_a_message_with_very_many_fields_is_none(q):
    """Scripts could not pass so many on; it goes to the dead letters with all it holds."""
    q.enqueue("1")
    q.add("id", "2", "task", "t", "args", "[]", *(word for n in range(5000) for word in (f"f{n}", "v")))
    _, entry = q.fetch()
    assert entry.reason == "has 5003 fields"
    assert q.bury(entry)
    assert len(q.pending(q.ready)) == 1


# ---- back for later


def test_what_is_parked_waits_outside_the_stream(q):
    """Until its time has come it is nobody's; then it comes under a raised fence."""
    (old,) = q.deliver("1")
    before = q.now()
    assert q.park(old) == []
    assert before <= q.delayed()["1"] - 60_000 <= q.now()
    assert q.entries(q.ready) == []
    assert q.pending(q.ready) == {}
    at = str(old.enqueued_ms)
    assert q.record() == {"state": "delayed", "task": "shop.buy", "args": '["1"]', "fence": "1", "at": at}
    q.make_due("1")
    assert q.run(calls.promote(q.queue, ["1"])) == 1
    (new,) = q.fetch()
    assert new.message == old.message
    assert (new.fence, new.enqueued_ms) == (1, old.enqueued_ms)
    assert q.finish(old) == [0]
    assert q.finish(new) == []


def test_what_was_returned_can_be_parked_and_promoted(q):
    """It comes to the stream that it was first enqueued to, and its record says so."""
    q.give_back(*q.deliver("1"))
    (delivery,) = q.fetch()
    assert q.park(delivery) == []
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    (again,) = q.fetch("w-2")
    assert (again.stream, again.fence) == (q.ready, 2)
    assert q.run(calls.look(q.queue, "1")).worker == "w-2"


def test_what_is_anothers_is_not_parked(q):
    """Nor what is pending no longer."""
    (old,) = q.deliver("1")
    q.give_back(old)
    (new,) = q.fetch("w-2")
    before = q.everything()
    assert q.park(old) == [0]
    assert q.everything() == before
    q.finish(new)
    before = q.record()
    assert q.park(new) == [0]
    assert q.record() == before
    assert q.delayed() == {}


def test_what_is_parked_keeps_fields_of_a_newer_version(q):
    q.enqueue()
    q.add("id", "1", "task", "shop.buy", "args", "[]", "trace", "7")
    (delivery,) = q.fetch()
    q.park(delivery)
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    assert q.entries(q.ready)[0].get("trace") == "7"


def test_parking_where_it_cannot_be_loses_nothing(q):
    (delivery,) = q.deliver("1")
    q.redis("SET", q.queue.delayed, "by hand")
    with pytest.raises(BrokerReset):
        q.park(delivery)
    assert q.pending(q.ready) == {delivery.entry.decode(): "w-1"}


def test_a_retry_waits_for_the_next_attempt(q):
    """The error of the last one is in the record, and the counts travel with the message."""
    (delivery,) = q.deliver("1")
    assert q.park(delivery, error=ERROR) == []
    record = q.record()
    assert (record["state"], record["attempt"], record["failure"]) == ("delayed", "2", ERROR.decode())
    assert q.ttl_ms() == -1
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    (second,) = q.fetch()
    assert (second.attempt, second.deaths, second.since_ms) == (2, 0, delivery.since_ms)
    assert second.message == delivery.message
    assert q.park(second, error=ERROR) == []
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    (third,) = q.fetch()
    assert (third.attempt, third.since_ms, third.enqueued_ms) == (3, delivery.since_ms, delivery.enqueued_ms)
    assert q.finish(third) == []


def test_deaths_and_attempts_do_not_mix(q):
    (delivery,) = q.deliver("1")
    q.give_back(delivery, died="signal SIGKILL")
    (delivery,) = q.fetch()
    q.park(delivery, error=ERROR)
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    (delivery,) = q.fetch()
    assert (delivery.attempt, delivery.deaths) == (2, 1)


def test_many_are_parked_at_once(q):
    """Those that are another's by now are told by their positions."""
    first, lost, last = q.deliver("1", "2", "3")
    q.give_back(lost)
    assert q.park(first, lost, last, error=ERROR) == [1]
    assert sorted(q.delayed()) == ["1", "3"]
    assert [one.message.id for one in q.fetch()] == ["2"]


def test_parking_again_changes_nothing(q):
    """The reply was lost, and it is sent again."""
    (delivery,) = q.deliver("1")
    q.park(delivery, error=ERROR)
    before = q.record(), q.delayed()
    assert q.park(delivery, error=ERROR) == [0]
    assert (q.record(), q.delayed()) == before


def test_a_retry_without_a_record_goes_on(q):
    """It was deleted by hand while the task ran."""
    (delivery,) = q.deliver("1")
    q.redis("DEL", q.queue.record("1"))
    q.park(delivery, error=ERROR)
    q.make_due("1")
    q.run(calls.promote(q.queue, ["1"]))
    (again,) = q.fetch()
    assert (again.attempt, again.fence, again.message.args) == (2, 1, delivery.message.args)


def test_a_message_of_a_newer_version_is_kept_as_it_is(q):
    """Only its id has to be known to put it back."""
    q.enqueue()
    q.add("id", "1", "v", "2", "call", "shop.buy(1)")
    (delivery,) = q.fetch()
    q.park(delivery)
    q.make_due("1")
    assert q.run(calls.promote(q.queue, ["1"])) == 1
    (entry,) = q.entries(q.ready)
    assert (entry["id"], entry["v"], entry["call"]) == ("1", "2", "shop.buy(1)")
    assert not {"task", "args"} & entry.keys()


# ---- leases


def test_a_renewed_lease_begins_anew(q):
    """Only that: it is no further delivery, and what others hold is not touched."""
    mine, other = q.deliver("1", "2")
    age(q, mine)
    age(q, other)
    assert q.run(calls.renew(q.ready, "w-1", [mine.entry])) == []
    assert idle_ms(q, mine)[0] < 10_000
    assert idle_ms(q, other)[0] >= HOUR_MS
    assert idle_ms(q, mine)[1] == idle_ms(q, other)[1]


def test_a_lease_that_has_gone_to_another_is_reported(q):
    """As are entries that are pending no longer, or never were; the others are renewed."""
    mine, theirs, ended = q.deliver("1", "2", "3")
    q.redis("XCLAIM", q.ready, "workers", "w-2", 0, theirs.entry, "IDLE", HOUR_MS, "JUSTID")
    q.finish(ended)
    age(q, mine)
    lost = q.run(calls.renew(q.ready, "w-1", [theirs.entry, mine.entry, ended.entry, b"1-1"]))
    assert lost == [theirs.entry, ended.entry, b"1-1"]
    assert idle_ms(q, mine)[0] < 10_000
    assert idle_ms(q, theirs)[0] >= HOUR_MS
    assert q.pending(q.ready) == {mine.entry.decode(): "w-1", theirs.entry.decode(): "w-2"}


def test_without_its_group_a_lease_cannot_be_renewed(q):
    (mine,) = q.deliver("1")
    q.redis("XGROUP", "DESTROY", q.ready, "workers")
    with pytest.raises(BrokerReset, match="NOGROUP"):
        q.run(calls.renew(q.ready, "w-1", [mine.entry]))


def claim(q, cursor=b"0-0", count=10):
    call = calls.claim(q.queue, q.ready, "w-2", lease_ms=60_000, cursor=cursor, count=count)
    return q.run(call)


def test_what_shows_no_sign_of_life_for_a_lease_is_claimed(q):
    """Then another owns it, and gives it back under a raised fence; what is renewed stays."""
    abandoned, alive = q.deliver("1", "2")
    age(q, abandoned)
    claimed = claim(q)
    assert claimed == calls.Claimed(b"0-0", [abandoned], 0)
    assert q.pending(q.ready) == {abandoned.entry.decode(): "w-2", alive.entry.decode(): "w-1"}
    assert q.run(calls.renew(q.ready, "w-1", [abandoned.entry])) == [abandoned.entry]
    assert q.give_back(*claimed.deliveries, owner="w-2", died="signal SIGKILL") == (1, 0)
    assert q.finish(abandoned) == [0]


def test_a_sweep_goes_on_where_it_left_off(q):
    """A bounded number of entries at a time, with a cursor, until all were looked at."""
    for delivery in q.deliver(*map(str, range(25))):
        age(q, delivery)
    found, cursor, steps = [], b"0-0", 0
    while True:
        claimed = claim(q, cursor, 10)
        found += claimed.deliveries
        cursor, steps = claimed.cursor, steps + 1
        if cursor == b"0-0":
            break
    assert [one.message.id for one in found] == [str(number) for number in range(25)]
    assert steps == 3


def test_bodies_that_were_deleted_are_counted(q):
    """They are pending no longer, and nothing is made of them."""
    gone, there = q.deliver("1", "2")
    for delivery in (gone, there):
        age(q, delivery)
    q.redis("XDEL", q.ready, gone.entry)
    assert claim(q) == calls.Claimed(b"0-0", [there], 1)
    assert list(q.pending(q.ready)) == [there.entry.decode()]


def test_what_a_consumer_holds_can_be_read_again(q):
    """By whoever rescues what a dead one held; what is no message is told apart."""
    q.enqueue("1", "2")
    q.add("what", "ever")
    first, second, broken = q.fetch("w-1")
    q.finish(second)
    held = q.run(calls.held_by(q.queue, q.ready, "w-1", 10))
    assert [type(one) for one in held] == [Delivery, Malformed]
    assert held == [first, broken]
    assert q.run(calls.held_by(q.queue, q.ready, "w-2", 10)) == []
    assert len(q.run(calls.held_by(q.queue, q.ready, "w-1", 1))) == 1


# ---- consumers


def consumers(q):
    return [consumer[1].decode() for consumer in q.redis("XINFO", "CONSUMERS", q.ready, "workers")]


def test_a_consumer_with_work_is_not_removed(q):
    """What is pending under it could never be claimed."""
    (delivery,) = q.deliver("1")
    assert not q.run(calls.retire(q.ready, "w-1"))
    assert consumers(q) == ["w-1"]
    q.finish(delivery)
    assert q.run(calls.retire(q.ready, "w-1"))
    assert consumers(q) == []


def test_a_consumer_that_is_not_there_is_gone(q):
    """As is one whose stream has vanished; neither stream nor group is made."""
    assert q.run(calls.retire(q.ready, "w-1"))
    assert q.everything() == {}
    q.enqueue("1")
    assert q.run(calls.retire(q.ready, "nobody"))


def test_a_group_that_is_there_is_not_made_again(q):
    """The server says so, and nothing in it changes."""
    q.deliver("1")
    before = q.pending(q.ready)
    with pytest.raises(BrokerError, match=r"^BUSYGROUP"):
        q.run(calls.create_group(q.ready))
    assert q.pending(q.ready) == before


def test_a_message_made_by_hand_is_run_like_others(q):
    """An entry needs no record to be delivered; what comes of it is not stored."""
    q.enqueue()
    q.add("id", "1", "task", "shop.buy", "args", "[]")
    (delivery,) = q.fetch()
    assert delivery.message == Message("1", "shop.buy", "q", b"[]")
    assert q.finish(delivery) == []
    assert q.record() == {}
    assert q.entries(q.ready) == []
