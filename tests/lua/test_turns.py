"""admit, visit, turn, settle_weight: who may begin, who waits, and who is woken."""

from __future__ import annotations

import pytest

from streamq._redis.keys import Keys
from streamq.broker import batch, calls, turns
from streamq.limits import Limit, rule_of
from streamq.message import Message, Share, Terms
from tests.workers import until

ERROR = b'{"type":"ValueError"}'
MEMBER = "limit:one"


class Rooms:
    """One limit, and what is asked of it."""

    def __init__(self, q):
        self.q = q
        self.member = MEMBER
        self.rule, self.rate, self.places, self.room = q.queue.room(MEMBER)

    def stake(self, units=1.0, **limit):
        return turns.Stake(self.member, rule_of(Limit(name="one", **limit)), units)

    def admit(self, *deliveries, units=1.0, **limit):
        stakes = [self.stake(units, **limit)]
        return self.q.run(turns.admit(self.q.queue, deliveries[0].stream, [(one, stakes) for one in deliveries]))

    def waiting(self):
        return self.q.run(turns.waiting(self.q.queue, self.member, 100))

    def leave(self, *ids):
        visit = turns.Visit(self.member, ids, self.waiting())
        return self.q.run(turns.turn(self.q.queue, [visit]))

    def sweep(self):
        self.q.redis("ZADD", self.q.queue.rooms, "XX", 1, self.member)
        found = self.q.run(turns.visit(self.q.queue, [self.member], 100))
        return self.q.run(turns.turn(self.q.queue, found))

    def look_at(self):
        return float(self.q.redis("ZSCORE", self.q.queue.rooms, self.member) or 0)


@pytest.fixture
def rooms(q):
    """Give a limit; what is left of it goes at the end, for no worker comes to look."""
    found = Rooms(q)
    yield found
    for key in (q.queue.rooms, *q.queue.room(MEMBER), *q.queue.room("order:k"), *q.queue.room("limit:two")):
        q.redis("DEL", key)


def test_as_many_may_begin_as_there_are_places(q, rooms):
    """The others are held: in no stream, pending nowhere, in the order of enqueueing, under a raised fence."""
    deliveries = q.deliver("a", "b", "c", "d")
    assert rooms.admit(*deliveries, concurrency=2) == [turns.MAY_BEGIN, turns.MAY_BEGIN, 1000, 1000]
    assert rooms.waiting() == ["c", "d"]
    assert len(q.pending(q.ready)) == q.redis("XLEN", q.ready) == 2
    held = q.record("c")
    assert (held["state"], held["waits"], held["fence"], held["args"]) == ("held", MEMBER, "1", '["c"]')


def test_a_place_is_free_when_its_run_has_ended(q, rooms):
    """The first that waits goes to the stream of returned messages, and the place is kept for it till it comes."""
    first, second, third = q.deliver("a", "b", "c")
    rooms.admit(first, second, third, concurrency=1)
    q.finish(first)
    assert rooms.leave("a") == 1000
    (woken,) = q.fetch("w-2")
    assert (woken.message, woken.fence, woken.enqueued_ms) == (second.message, 1, second.enqueued_ms)
    (newcomer,) = q.deliver("d")
    assert rooms.admit(newcomer, concurrency=1) == [1000], "it does not overtake"
    assert rooms.admit(woken, concurrency=1) == [turns.MAY_BEGIN]
    assert rooms.waiting() == ["c", "d"]


@pytest.mark.parametrize("end", ["finish", "park", "bury", "give_back", "died"])
def test_a_place_is_freed_without_anybody_cleaning_up(q, rooms, end):
    """Whatever ends a run, its record says that the place is nobody's: so also after a crash."""
    first, _ = deliveries = q.deliver("a", "b")
    rooms.admit(*deliveries, concurrency=1)
    ends = {
        "finish": lambda: q.finish(first),
        "park": lambda: q.park(first),
        "bury": lambda: q.bury(first),
        "give_back": lambda: q.give_back(first),
        "died": lambda: q.give_back(first, died="signal SIGKILL"),
    }
    rooms.sweep()
    assert q.record("b")["state"] == "held", "it runs, so its place is its"
    ends[end]()
    rooms.sweep()
    assert q.record("b")["state"] == "queued"


def test_what_is_not_held_any_more_is_not_woken(q, rooms):
    """It was cancelled, say, or deleted by hand."""
    deliveries = q.deliver("a", "b", "c", "d")
    rooms.admit(*deliveries, concurrency=1)
    q.redis("HSET", q.queue.record("b"), "state", "cancelled")
    q.redis("DEL", q.queue.record("c"))
    q.finish(deliveries[0])
    rooms.leave("a")
    assert [one.message.id for one in q.fetch()] == ["d"]
    assert rooms.waiting() == []
    q.redis("DEL", q.queue.record("b"))


def test_a_rate_lets_in_its_burst_and_then_one_at_a_time(q, rooms):
    """In the time that is told the next one may go, and not before."""
    deliveries = q.deliver(*"abcde")
    begun = q.now()
    replies = rooms.admit(*deliveries, rate="10/s", burst=3)
    assert replies[:3] == [turns.MAY_BEGIN] * 3
    assert 90 <= replies[3] <= 100
    until(lambda: rooms.leave() is not None and q.redis("XLEN", q.returned) == 1)
    assert 95 <= q.now() - begun < 300
    (woken,) = q.fetch()
    assert woken.message.id == "d"
    assert rooms.admit(woken, rate="10/s", burst=3) == [turns.MAY_BEGIN]


def test_a_rate_is_paid_at_the_beginning_and_not_when_woken(q, rooms):
    """So it holds also if those that were woken could not be fetched for a while; one does not overtake them."""
    deliveries = q.deliver(*"abc")
    rooms.admit(*deliveries, rate="20/s", burst=1)
    until(lambda: rooms.leave() is not None and q.redis("XLEN", q.returned) == 1)
    until(lambda: q.now() > deliveries[0].enqueued_ms + 300)
    assert rooms.leave() > 0, "one that was woken is on its way: there is no room for another"
    (newcomer,) = q.deliver("d", consumer="w-2")[1:] or q.fetch("w-2", stream=q.ready)
    (wait,) = rooms.admit(newcomer, rate="20/s", burst=1)
    assert wait > 0
    assert rooms.waiting() == ["c", "d"]


def test_nobody_overtakes_those_that_wait(q, rooms):
    """Not even while a place is free that has not been given to the first of them yet."""
    first, *_ = deliveries = q.deliver("a", "b")
    rooms.admit(*deliveries, concurrency=1)
    q.finish(first)
    q.redis("HDEL", rooms.places, "a")
    (newcomer,) = q.deliver("c")
    assert rooms.admit(newcomer, concurrency=1) == [1000]
    assert rooms.waiting() == ["b", "c"]


def test_what_is_kept_for_one_that_was_woken_is_not_given_to_a_newcomer(q, rooms):
    deliveries = q.deliver("a", "b")
    rooms.admit(*deliveries, rate="20/s", burst=1)
    until(lambda: rooms.leave() is None and q.redis("XLEN", q.returned) == 1)
    (newcomer,) = q.deliver("c")[1:] or q.fetch("w-2", stream=q.ready)
    (wait,) = rooms.admit(newcomer, rate="20/s", burst=1)
    assert wait > 0


def test_a_raised_fence_lets_nobody_begin(q, rooms):
    """The entry is still there, and the record says that it is another's."""
    (delivery,) = q.deliver("a")
    q.redis("HSET", q.queue.record("a"), "fence", 1)
    assert rooms.admit(delivery, concurrency=1) == [turns.IS_ANOTHERS]
    assert q.redis("EXISTS", rooms.places, rooms.room) == 0
    q.redis("HSET", q.queue.record("a"), "fence", 0)


def test_a_weight_takes_so_many_units(q, rooms):
    deliveries = q.deliver("a", "b")
    assert rooms.admit(deliveries[0], units=8.0, rate="10/s", burst=10) == [turns.MAY_BEGIN]
    (wait,) = rooms.admit(deliveries[1], units=5.0, rate="10/s", burst=10)
    assert 280 <= wait <= 300, "3 units are missing"


def test_units_can_be_settled(q, rooms):
    """Said twice, it counts once; of a run that is another's by now it does not count."""
    (delivery,) = q.deliver("a")
    rooms.admit(delivery, units=10.0, rate="1/s", burst=10)
    stake = rooms.stake(10.0, rate="1/s", burst=10)
    for _ in range(2):
        assert q.run(turns.settle_weight(q.queue, delivery, stake, 4.0))
        assert 3_000 < q.redis("PTTL", rooms.rate) <= 4_001
    assert q.run(turns.settle_weight(q.queue, delivery, stake, 6.5))
    assert 5_500 < q.redis("PTTL", rooms.rate) <= 6_501
    q.give_back(delivery)
    assert not q.run(turns.settle_weight(q.queue, delivery, stake, 0.0))


def test_all_limits_have_to_agree(q, rooms):
    """If the second refuses, nothing of the first is taken."""
    one = rooms.stake(concurrency=1)
    two = turns.Stake("limit:two", rule_of(Limit(name="two", concurrency=1)), 1.0)
    first, second, third = q.deliver("a", "b", "c")
    admit = lambda delivery, *stakes: q.run(turns.admit(q.queue, q.ready, [(delivery, stakes)]))  # noqa: E731
    assert admit(first, two) == [turns.MAY_BEGIN]
    assert admit(second, one, two) == [1000]
    assert q.record("b")["waits"] == "limit:two"
    assert admit(third, one) == [turns.MAY_BEGIN]


def test_what_is_anothers_may_not_begin(q, rooms):
    (delivery,) = q.deliver("a")
    q.give_back(delivery)
    assert rooms.admit(delivery, concurrency=1) == [turns.IS_ANOTHERS]
    assert q.redis("EXISTS", rooms.places, rooms.room) == 0


def test_one_worker_at_a_time_looks(q, rooms):
    """The next one may a second later, should that one have died."""
    rooms.admit(*q.deliver("a", "b"), concurrency=1)
    look = turns.visit(q.queue, [rooms.member], 10)
    q.redis("ZADD", q.queue.rooms, "XX", 4_000_000_000_000, rooms.member)
    assert q.run(look) == [], "not yet"
    q.redis("ZADD", q.queue.rooms, "XX", 1, rooms.member)
    assert q.run(calls.due(q.queue, 10)).rooms == [rooms.member]
    assert q.run(look) == [turns.Visit(rooms.member, ["a"], ["b"])]
    assert q.run(look) == []
    assert 0 < q.run(calls.due(q.queue, 10)).next_ms <= 1000


def test_rooms_without_news_are_looked_at_together(q, rooms):
    """On the second; at moments of their own they would have all workers wake up as often as there are rooms."""
    rooms.admit(*q.deliver("a"), concurrency=1)
    assert rooms.look_at() % 1000 == 0, "should its worker die"
    rooms.admit(*q.deliver("b"), concurrency=1)
    assert rooms.look_at() % 1000 == 0
    rooms.sweep()
    seconds, micros = map(int, q.redis("TIME"))
    assert rooms.look_at() % 1000 == 0
    assert rooms.look_at() - (seconds * 1000 + micros // 1000) <= 1000


@pytest.mark.parametrize("number", [1, 2])
def test_lines_without_news_are_looked_at_together(q, rooms, number):
    rooms.member = "order:k"
    q.run(batch.enqueue_all(q.keys, [ordered(str(n)) for n in range(number)]))
    assert rooms.look_at() % 1000 == 0


def test_nothing_is_left_of_what_nobody_waits_for(q, rooms):
    (delivery,) = q.deliver("a")
    rooms.admit(delivery, concurrency=1)
    q.finish(delivery)
    assert rooms.leave("a") is None
    assert q.redis("EXISTS", q.queue.rooms, rooms.rule, rooms.places, rooms.room) == 0


# ---- lines


def ordered(task_id):
    return Message(task_id, "shop.buy", "q", b"[]", terms=Terms(order="k"))


def test_only_the_first_of_a_line_is_in_the_stream(q, rooms):
    q.run(batch.enqueue_all(q.keys, [ordered(one) for one in "abc"]))
    q.run(batch.enqueue_all(q.keys, [ordered("b"), ordered("d")]))
    assert [entry["id"] for entry in q.entries(q.ready)] == ["a"]
    assert q.run(turns.waiting(q.queue, "order:k", 10)) == ["b", "c", "d"]
    assert {q.record(one)["state"] for one in "bcd"} == {"held"}


@pytest.mark.parametrize(("end", "goes"), [("finish", True), ("bury", True), ("park", False), ("give_back", False)])
def test_the_next_in_line_goes_when_the_first_has_ended(q, rooms, end, goes):
    """A retry and a crash are no end."""
    rooms.member = "order:k"
    q.run(batch.enqueue_all(q.keys, [ordered(one) for one in "abc"]))
    (first,) = q.fetch()
    {"finish": q.finish, "bury": q.bury, "park": q.park, "give_back": q.give_back}[end](first)
    rooms.leave("a")
    assert q.record("b")["state"] == ("queued" if goes else "held")
    assert q.record("c")["state"] == "held"


def test_nobody_overtakes_in_a_line(q, rooms):
    """Not even when the first has gone and the next one has not been told yet."""
    q.run(batch.enqueue_all(q.keys, [ordered(one) for one in "ab"]))
    _, _, places, _ = q.queue.room("order:k")
    q.redis("DEL", places)
    q.run(batch.enqueue_all(q.keys, [ordered("c")]))
    assert q.run(turns.waiting(q.queue, "order:k", 10)) == ["b", "c"]


def test_an_id_used_anew_does_not_wait_for_itself(q, rooms):
    """The task that had the place in line was ended and forgotten, and nobody has looked since."""
    rooms.member = "order:k"
    q.run(batch.enqueue_all(q.keys, [ordered("a")]))
    (first,) = q.fetch()
    q.finish(first)
    q.run(calls.forget(q.queue, "a"))
    q.run(batch.enqueue_all(q.keys, [ordered("a")]))
    assert q.record("a")["state"] == "held"
    rooms.sweep()
    assert q.record("a")["state"] == "queued"


# ---- shares


def test_few_of_those_that_take_turns_are_in_a_stream(q, rooms):
    """When they have been fetched others follow, also while the first still run; nothing is left when all have come."""
    rooms.member = turns.FAIR
    messages = [Message(f"{n:03}", "shop.buy", "q", b"[]", terms=Terms(share=Share("a"))) for n in range(120)]
    q.run(batch.enqueue_all(q.keys, messages))
    other = Message("b", "shop.buy", "q", b"[]", terms=Terms(share=Share("b", 2.0)))
    assert len(q.entries(q.ready)) == 50
    rooms.leave()
    q.run(batch.enqueue_all(q.keys, [other]))
    rooms.sweep()
    assert len(q.entries(q.returned)) == 50, "those are not fetched yet"
    q.fetch(stream=q.returned)
    rooms.sweep()
    assert [entry["id"] for entry in q.entries(q.returned)][50:52] == ["b", "100"], "whose turn is next"
    q.redis("DEL", q.queue.rooms, *q.queue.room(turns.FAIR))


def test_the_last_that_take_turns_leave_no_places(q, rooms):
    """Nobody waits any more when they are fetched, so nobody would look; also while they still run."""
    rooms.member = turns.FAIR
    messages = [Message(f"{n:03}", "shop.buy", "q", b"[]", terms=Terms(share=Share("a"))) for n in range(60)]
    q.run(batch.enqueue_all(q.keys, messages))
    rooms.sweep()
    fetched = q.fetch(stream=q.returned)
    assert len(fetched) == 10
    rooms.leave(*(one.message.id for one in fetched))
    assert not q.redis("EXISTS", q.queue.rooms, *q.queue.room(turns.FAIR))


@pytest.mark.parametrize("delay_ms", [60_000, -4_000_000_000_000])
def test_what_comes_later_waits_for_its_time_and_no_turn(q, rooms, delay_ms):
    """Also when so many are there that others take turns; one whose time has passed is one of those."""
    share = Terms(share=Share("a"))
    messages = [Message(f"{n:03}", "shop.buy", "q", b"[]", terms=share) for n in range(60)]
    late = [Message(one, "shop.buy", "q", b"[]", delay, terms=share) for one, delay in (("b", delay_ms), ("c", -1))]
    q.run(batch.enqueue_all(q.keys, messages + late))
    assert (q.record("b")["state"], q.record("c")["state"]) == ("delayed", "held")
    q.redis("DEL", q.queue.rooms, *q.queue.room(turns.FAIR))


def test_keys_of_lines_and_limits_share_nothing():
    """A key may hold what looks like another's."""
    queue = Keys("sq").queue("q")
    members = ["limit:a", "limit:a:b", "order:a", "order:a:room", "limit:a:room"]
    keys = [key for member in members for key in queue.room(member)]
    assert len(set(keys)) == len(keys)
