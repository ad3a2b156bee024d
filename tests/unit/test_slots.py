"""Which node of a cluster a call goes to, and what follows when that has changed; no server is asked."""

from __future__ import annotations

import pytest
from redis import exceptions as redis_errors
from redis.crc import key_slot

from streamq._redis.failures import judge
from streamq._redis.keys import Keys
from streamq._redis.scripts import Call
from streamq._redis.slots import Slots, slot_of, slot_of_name
from streamq._redis.urls import Address
from streamq.broker import channels
from streamq.errors import BrokerError, BrokerRefused, BrokerUnavailable

A, B, C, D = (Address("host", port) for port in (1, 2, 3, 4))
HALVES = [[0, 8191, [b"host", 1, b"id"]], [8192, 16383, [b"host", 2, b"id"], [b"host", 4, b"replica"]]]
LOW, HIGH = Call(("GET", "{a5}"), str), Call(("GET", "{a}"), str)


def cause(error):
    """What streamq makes of an error of redis-py's."""
    return judge(error).error(error)


def play(steps, *answers):
    """Answer the steps; give who was asked, whether about what is to come, and what came of it."""
    asked, answer = [], None
    for following in (*answers, None):
        try:
            step = steps.throw(answer) if isinstance(answer, BrokerError) else steps.send(answer)
        except StopIteration as end:
            return asked, end.value
        asked.append((step.address, step.call.words[0], step.asking))
        answer = following
    raise AssertionError(f"more is asked: {asked}")


@pytest.fixture
def slots():
    known = Slots([A])
    assert play(known.look_up(), HALVES) == ([(A, "CLUSTER", False)], None)
    return known


def test_the_two_keys_of_these_tests_are_in_different_halves():
    assert slot_of(LOW) < 8192 <= slot_of(HIGH)


def test_everything_of_a_sharded_channel_is_in_one_slot():
    """Its name too: a script may publish only to the slot of its keys."""
    keys = Keys("sq").channel("orders")
    calls = [
        channels.publish(keys, b"{}", sharded=True),
        channels.append(keys, b"{}", "s", 1, channels.Retention(), sharded=True),
        channels.page(keys, "-"),
        channels.fetch(keys, "g", "c", count=1, start="0", retention=channels.Retention()),
    ]
    assert {slot_of(call) for call in calls} == {slot_of_name(keys.shard_channel)} == {key_slot(b"orders")}


def test_a_call_goes_to_who_has_its_slot(slots):
    assert play(slots.deliver(LOW), "x") == ([(A, "GET", False)], "x")
    assert play(slots.deliver(HIGH), "y") == ([(B, "GET", False)], "y")


def test_a_slot_that_has_moved_is_known_from_then_on(slots):
    moved = cause(redis_errors.MovedError(f"{slot_of(LOW)} host:3"))
    assert play(slots.deliver(LOW), moved, "x") == ([(A, "GET", False), (C, "GET", False)], "x")
    assert play(slots.deliver(LOW), "x") == ([(C, "GET", False)], "x")


def test_a_slot_that_is_about_to_move_is_asked_for_once(slots):
    ask = cause(redis_errors.AskError(f"{slot_of(LOW)} host:3"))
    assert play(slots.deliver(LOW), ask, "x") == ([(A, "GET", False), (C, "GET", True)], "x")
    assert play(slots.deliver(LOW), "x") == ([(A, "GET", False)], "x")


def test_a_node_that_names_no_host_means_its_own(slots):
    moved = cause(redis_errors.MovedError(f"{slot_of(LOW)} :3"))
    assert play(slots.deliver(LOW), moved, "x")[0][1] == (C, "GET", False)
    unnamed = Slots([A])
    play(unnamed.look_up(), [[0, 16383, [None, 3, b"id"]]])
    assert unnamed.owner(0) == C


def test_nodes_that_send_round_in_circles_are_given_up(slots):
    moved = [cause(redis_errors.MovedError(f"{slot_of(LOW)} host:{port}")) for port in (3, 1, 3, 1, 3)]
    with pytest.raises(BrokerUnavailable, match="do not agree"):
        play(slots.deliver(LOW), *moved)


def test_after_a_failure_the_others_are_asked_who_has_the_slots(slots):
    """The failed one last; a call that is sent again goes to who has its slot by then."""
    with pytest.raises(BrokerUnavailable):
        play(slots.deliver(HIGH), cause(redis_errors.ConnectionError("gone")))
    taken = [HALVES[0], [8192, 16383, [b"host", 4, b"id"]]]
    away = cause(redis_errors.ConnectionError("gone"))
    asked, answer = play(slots.deliver(HIGH), away, taken, "y")
    assert asked == [(A, "CLUSTER", False), (D, "CLUSTER", False), (D, "GET", False)]
    assert answer == "y"


def test_what_goes_to_all_nodes_goes_to_another_while_one_is_away(slots):
    """And always to the same one otherwise, so that it stays in order."""
    publish = Call(("PUBLISH", "news", b""), int)
    first = slots.address_of(publish)
    assert {slots.address_of(publish) for _ in range(10)} == {first}
    slots.lost(first)
    assert {slots.address_of(publish) for _ in range(10)} == {A, B} - {first}


def test_who_listens_goes_to_another_node_than_before(slots):
    """If there is one that is not away."""
    assert {slots.any(but=A) for _ in range(20)} == {B}
    assert {slots.any(but=None) for _ in range(50)} == {A, B}
    slots.lost(B)
    assert {slots.any(but=None) for _ in range(20)} == {A}
    assert {slots.any(but=A) for _ in range(20)} == {B}


def test_a_refusal_is_no_reason_to_ask_another(slots):
    slots.forget()
    with pytest.raises(BrokerRefused):
        play(slots.look_up(), cause(redis_errors.AuthenticationError("no")))


def test_without_any_node_it_says_so():
    away = cause(redis_errors.ConnectionError("gone"))
    with pytest.raises(BrokerUnavailable, match="gone"):
        play(Slots([A, B]).look_up(), away, away)
    with pytest.raises(BrokerUnavailable, match="no node"):
        play(Slots([A]).look_up(), [])


def test_a_slot_that_nobody_has_is_looked_up_again():
    slots = Slots([A])
    half = play(slots.look_up(), HALVES[:1])
    assert half
    with pytest.raises(BrokerUnavailable, match="no node of the cluster has slot"):
        play(slots.deliver(HIGH))
    assert play(slots.deliver(HIGH), HALVES, "y")[1] == "y"
