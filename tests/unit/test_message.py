"""Whatever a stream entry holds, it is a delivery or says why it is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.message import Delivery, Malformed, Message, read_entry

STREAM = "sq:{q}:stream:5"
GOOD = (b"id", b"1", b"task", b"shop.buy", b"args", b"[]")


def read(*fields, entry=b"1700000000000-3"):
    return read_entry("q", STREAM, entry, fields)


def test_an_enqueued_message():
    """As enqueued an entry has three fields; its id tells when that was."""
    delivery = read(*GOOD)
    assert delivery == Delivery(
        Message("1", "shop.buy", "q", b"[]"),
        STREAM,
        b"1700000000000-3",
        fence=0,
        enqueued_ms=1700000000000,
        since_ms=1700000000000,
    )
    assert (delivery.deliveries, delivery.attempt, delivery.deaths) == (1, 1, 0)


def test_a_returned_message():
    """A message that was returned carries its fence and when it was first enqueued, and counts its deliveries."""
    delivery = read(*GOOD, b"fence", b"2", b"at", b"1600000000000")
    assert (delivery.fence, delivery.enqueued_ms, delivery.deliveries) == (2, 1600000000000, 3)


def test_a_retried_message():
    """Attempts and deaths are counted apart; the first attempt's beginning is kept."""
    delivery = read(*GOOD, b"attempt", b"3", b"since", b"1600000000000", b"deaths", b"1")
    assert (delivery.attempt, delivery.deaths, delivery.since_ms) == (3, 1, 1600000000000)


def test_a_message_of_a_newer_version():
    """It can be put back for a newer worker, whatever it looks like otherwise."""
    delivery = read(b"id", b"1", b"v", b"2", b"call", b"?")
    assert (delivery.version, delivery.message.id, delivery.message.task) == (2, "1", "")
    assert read(*GOOD).version == 1


def test_order_and_unknown_fields_do_not_matter():
    """A newer version may add fields."""
    assert read(b"x", b"2", b"args", b"[]", b"task", b"shop.buy", b"id", b"1") == read(*GOOD)


@pytest.mark.parametrize(
    ("fields", "reason", "task_id"),
    [
        ((), "has no id, task, args", None),
        ((b"id", b"1", b"args", b"[]"), "has no task", "1"),
        ((b"id", b"\xff", b"args", b"[]"), "has no task", None),
        ((b"task", b"shop.buy"), "has no id, args", None),
        ((b"id", b"\xff", *GOOD[2:]), "cannot be read", None),
        ((b"id", b"1", b"task", b"\xff", b"args", b"[]"), "cannot be read", "1"),
        ((*GOOD, b"fence", b"many"), "cannot be read", "1"),
        ((*GOOD, b"at", b""), "cannot be read", "1"),
        ((*GOOD, b"at", b"9" * 5000), "cannot be read", "1"),
    ],
)
def test_an_entry_that_is_no_message(fields, reason, task_id):
    """The reason is there for the dead letter, and the task's id where it can be read."""
    found = read(*fields)
    assert isinstance(found, Malformed)
    assert reason in found.reason
    assert found.task_id == task_id
    assert (found.queue, found.stream, found.entry) == ("q", STREAM, b"1700000000000-3")


def test_an_entry_whose_body_was_deleted():
    """A deleted entry that is still pending is delivered without fields."""
    assert isinstance(read_entry("q", STREAM, b"1-1", None), Malformed)


names = st.sampled_from([b"id", b"task", b"args", b"fence", b"at"]) | st.binary(max_size=6)
values = st.sampled_from([b"1", b"shop.buy", b"[]", b"", b"-1", b"\xff"]) | st.binary(max_size=12)


@given(
    st.none() | st.lists(names | values, max_size=14) | st.lists(st.tuples(names, values)).map(lambda p: sum(p, ())),
    st.from_regex(rb"[0-9]{1,20}-[0-9]{1,20}", fullmatch=True),
)
def test_garbage_is_read_without_an_error(fields, entry):
    """One bad entry must not stop those that come with it."""
    found = read_entry("q", STREAM, entry, fields)
    if isinstance(found, Malformed):
        assert found.reason
        assert found.task_id is None or found.task_id.isascii()
    else:
        assert isinstance(found, Delivery)
        assert isinstance(found.fence, int)
        assert found.message.queue == "q"
