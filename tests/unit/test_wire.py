"""What a worker and a process of its pool say to each other arrives as it was meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.lifecycle import Abandoned, Died, Failed, FailedForNow, Rejected, Succeeded, Unroutable
from streamq.message import Delivery, Message
from streamq.worker.wire import (
    LENGTH,
    Frame,
    pack,
    pack_delivery,
    pack_outcome,
    unpack,
    unpack_delivery,
    unpack_outcome,
)

text = st.text(st.characters(codec="utf-8"))
number = st.integers(0, 10**15)
json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)
outcomes = st.one_of(
    st.builds(Succeeded, st.binary()),
    st.builds(Failed, st.binary()),
    st.builds(FailedForNow, st.binary(), st.floats(0, 10**9)),
    st.builds(Rejected, st.binary(), st.text()),
    st.builds(Unroutable, st.binary(), st.text()),
)


def sent(frame: bytes) -> Frame:
    """Take the length off, as a reader does."""
    assert int.from_bytes(frame[:LENGTH], "big") == len(frame) - LENGTH
    return unpack(frame[LENGTH:])


@given(st.dictionaries(st.text(), json_values), st.binary())
def test_a_frame_arrives_as_it_was_sent(header, body):
    """Whatever is in the body, also what looks like the end of the header."""
    assert sent(pack(header, body)) == (header, body)


@given(st.text(), text, text, st.binary(), st.binary(), number, number, number, number, number)
def test_a_delivery_arrives_as_it_was_sent(
    task_id, task, queue, args, options, fence, enqueued, attempt, deaths, since
):
    """But for the place where it is pending, which only the worker needs."""
    message = Message(task_id, task, queue, args, options=options)
    delivery = Delivery(message, "sq:{q}:stream:5", b"1-1", fence, enqueued, attempt, deaths, since)
    assert unpack_delivery(sent(pack_delivery(delivery))) == delivery._replace(stream="", entry=b"")


@given(outcomes, st.floats(0, 10**6))
def test_an_outcome_arrives_as_it_was_sent(outcome, peak):
    frame = sent(pack_outcome(outcome, {"peak": peak}))
    assert unpack_outcome(frame) == outcome
    assert frame.header["peak"] == peak


@pytest.mark.parametrize("outcome", [Abandoned(), Died("signal SIGKILL")])
def test_what_only_a_worker_can_find_is_not_sent(outcome):
    with pytest.raises(TypeError, match="no outcome of a function"):
        pack_outcome(outcome, {})
