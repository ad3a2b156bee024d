"""The parts of channels that need no server: envelopes, buffers, numbers, signals, and when a child is forked."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from streamq._redis.hub import Overrun
from streamq.broker.channels import Kept, Retention
from streamq.channels import buffer as buffers
from streamq.channels import gaps
from streamq.channels.buffer import Buffer, Counts, Missing, check_when_full
from streamq.channels.envelope import Envelope, EnvelopeCodec
from streamq.channels.gaps import Gap, Sequences
from streamq.channels.publisher import _Counters
from streamq.channels.readers import LiveReader, kept_message, session_of
from streamq.channels.signal import Signal
from streamq.errors import BrokerUnavailable, ConfigError, EncodeError, PayloadTooLarge, SlowListener


class Price(BaseModel):
    item: str
    cents: int


def envelope(payload: Any = 1, sequence: int = 1, session: str = "s", **more: Any) -> Envelope[Any]:
    said = {"sender": "me", "type": "int", "channel": "prices", "time_ms": 1_700_000_000_000}
    return Envelope(payload, **{**said, "session": session, "sequence": sequence, **more})


def codec(kind: Any = Any, most: int = 65_536) -> EnvelopeCodec[Any]:
    return EnvelopeCodec(kind, "prices", most)


def encoded(**said: Any) -> bytes:
    return codec().encode(envelope(**said))


# ---- envelopes


@pytest.mark.parametrize(
    ("kind", "payload"),
    [(Any, {"a": [1, None]}), (int, 7), (Price, Price(item="tea", cents=1)), (date, date(2030, 1, 2)), (None, None)],
    ids=str,
)
@pytest.mark.parametrize("more", [{}, {"correlation_id": "17", "reply_to": "answers", "expires_ms": 5}], ids=len)
def test_an_envelope_is_read_as_it_was_written(kind, payload, more):
    made = envelope(payload, **more)
    assert codec(kind).decode(codec(kind).encode(made)) == made


def test_the_id_stands_first():
    """The script that keeps a message finds it by its text, and whoever reads along by its id."""
    said = json.loads(encoded(session="abc", sequence=7))
    assert next(iter(said)) == "id"
    assert said["id"] == envelope(session="abc", sequence=7).id == "abc-7"
    assert "reply_to" not in said
    assert envelope().time == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


@pytest.mark.parametrize("payload", [{"item": "tea"}, "tea", None], ids=str)
def test_another_type_is_not_encoded(payload):
    with pytest.raises(EncodeError, match="channel prices: the message does not fit"):
        codec(Price).encode(envelope(payload))


@pytest.mark.parametrize(
    "payload", [object(), float("nan") and {1: object()}, "\ud800"], ids=["object", "deep", "half"]
)
def test_what_is_no_json_is_not_encoded(payload):
    with pytest.raises(EncodeError, match="channel prices"):
        codec().encode(envelope(payload))


def test_the_size_is_that_of_the_whole_message():
    data = encoded(payload="x" * 100)
    assert codec(most=len(data)).encode(envelope("x" * 100)) == data
    with pytest.raises(PayloadTooLarge, match=f"{len(data)} bytes, over the limit of {len(data) - 1}"):
        codec(most=len(data) - 1).encode(envelope("x" * 100))


def test_a_type_that_cannot_be_used_is_refused():
    with pytest.raises(ConfigError, match="channel prices"):
        codec(type("Plain", (), {}))


@given(
    st.binary()
    | st.text().map(str.encode)
    | st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    ).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
)
def test_whatever_comes_is_a_message_or_a_value_error(data):
    with pytest.raises(ValueError, match=r"\w"):
        codec(Price).decode(data)
    assert isinstance(session_of(data), bytes)


def test_what_is_kept_has_its_place():
    kept = Kept("1-1", 7, encoded(), 3)
    message = kept_message(codec(), kept)
    assert (message.entry, message.number, message.deliveries) == ("1-1", 7, 3)


@pytest.mark.parametrize("wrong", [{"length": 0}, {"length": True}, {"age": -1}, {"age": float("nan")}, {"age": "1"}])
def test_retention_is_checked(wrong):
    with pytest.raises(ConfigError):
        Retention(**wrong)


# ---- numbers


def test_holes_are_counted_for_each_sender_and_channel():
    noted = Sequences()
    said = [("a", "s", 5), ("a", "s", 6), ("a", "s", 9), ("a", "s", 9), ("a", "s", 7), ("b", "s", 1), ("a", "t", 2)]
    assert [noted.note(*one, 1000 * n) for n, one in enumerate(said)] == [0, 0, 2, -1, -1, 0, 0]
    assert noted.last_time("a", "s") == datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC)
    assert noted.last_time("c", "s") is None


@given(st.lists(st.booleans(), min_size=1).map(lambda heard: [True, *heard, True]))
def test_received_and_missed_are_what_was_sent(heard):
    """Whichever are lost between the first and the last."""
    noted = Sequences()
    numbers = [number for number, is_heard in enumerate(heard, 1) if is_heard]
    assert sum(noted.note("a", "s", number, 0) for number in numbers) + len(numbers) == len(heard)


def test_old_sessions_are_forgotten(monkeypatch):
    monkeypatch.setattr(gaps, "_MOST_SESSIONS", 2)
    noted = Sequences()
    for session in ("old", "used", "new"):
        noted.note("a", session, 1, 0)
        noted.note("a", "used", 1 + ("old", "used", "new").index(session), 0)
    assert len(noted._last) <= 3
    assert noted.note("a", "old", 9, 0) == 0
    assert noted.note("a", "used", 9, 0) > 0


def test_a_number_that_was_not_sent_is_given_again():
    counters = _Counters()
    first = counters.next("a", "me")
    assert counters.next("a", "me") == (first.session, 2)
    counters.take_back("a", "me")
    assert counters.next("a", "me") == (first.session, 2)
    assert counters.next("b", "me").session != first.session
    assert counters.next("a", "you").session != first.session


# ---- buffers


def make_buffer(size: int, policy: Any = "drop_oldest") -> Buffer:
    return Buffer(size, policy, 1, Signal(), session_of)


def fill(buffer: Buffer, sequences: Any, session: str = "s") -> None:
    for sequence in sequences:
        buffer.take(b"sq:channel:prices", encoded(sequence=sequence, session=session))


def read(buffer: Buffer, reader: LiveReader[Any] | None = None) -> list[Any]:
    reader = reader or LiveReader(codec(), "sq:channel:", gaps=True)
    found: list[Any] = []
    for item in buffer.take_out(1000):
        found += reader.missing(item) if isinstance(item, Missing) else reader.read(*item, Counts())
    return found


@given(
    st.sampled_from(["drop_oldest", "drop_newest"]),
    st.integers(1, 5),
    st.lists(st.sampled_from(["a", "b", "read", "lost"]), max_size=60),
)
def test_whatever_happens_all_is_accounted_for(policy, size, happenings):
    """Messages of two sessions, a slow reader, and connections that are lost with what is sent meanwhile."""
    buffer, reader = make_buffer(size, policy), LiveReader(codec(), "sq:channel:", gaps=True)
    buffer.joined(None)
    sent = {"a": 0, "b": 0}
    items: list[Any] = []

    def send(session: str, *, is_heard: bool = True) -> None:
        sent[session] += 1
        if is_heard:
            fill(buffer, [sent[session]], session)

    for session in sent:
        send(session)
        items += read(buffer, reader)
    for what in happenings:
        if what == "read":
            items += read(buffer, reader)
        elif what == "lost":
            send("a", is_heard=False)
            buffer.joined(1.0)
        else:
            send(what)
        assert sum(not isinstance(item, Missing) for item in buffer._items) <= size
    items += read(buffer, reader)
    for session in sent:
        send(session)
        items += read(buffer, reader)
    received = [item for item in items if isinstance(item, Envelope)]
    missed = sum(item.missed or 0 for item in items if isinstance(item, Gap))
    assert len(received) + missed == sum(sent.values())
    for session in sent:
        numbers = [item.sequence for item in received if item.session == session]
        assert numbers == sorted(set(numbers))
    assert ("lost" in happenings) == any(item.reason == "reconnected" for item in items if isinstance(item, Gap))


def test_drops_name_the_last_of_each_session():
    buffer = make_buffer(2)
    fill(buffer, [1, 2, 3, 4])
    fill(buffer, [1, 2], "t")
    gap, *messages = read(buffer)
    assert [message.id for message in messages] == ["t-1", "t-2"]
    assert (gap.reason, gap.missed, gap.sender, gap.channel) == ("overflow", 4, "me", "prices")


def test_what_is_dropped_and_no_message_is_counted_by_its_channel():
    buffer = make_buffer(1)
    for _ in range(3):
        buffer.take(b"sq:channel:prices", b"?")
    [gap] = read(buffer)
    assert (gap.reason, gap.missed, gap.sender, gap.channel) == ("overflow", 2, None, "prices")


def test_who_is_disconnected_gets_no_more():
    buffer = make_buffer(2, "disconnect")
    fill(buffer, range(1, 4))
    assert isinstance(buffer.failure, SlowListener)
    assert len(read(buffer)) == 2
    fill(buffer, [4])
    assert len(buffer) == 0
    assert (buffer.counts.received, buffer.counts.dropped) == (4, 2)


def test_who_blocks_waits_for_room_and_not_for_long(monkeypatch):
    monkeypatch.setattr(buffers, "_BLOCK_SECONDS", 0.05)
    buffer = make_buffer(1, "block")
    fill(buffer, [1])
    with pytest.raises(Overrun):
        fill(buffer, [2])
    monkeypatch.setattr(buffers, "_BLOCK_SECONDS", 5.0)
    putting = threading.Thread(target=fill, args=(buffer, [3]))
    putting.start()
    assert [message.sequence for message in read(buffer)] == [1]
    putting.join(3)
    assert [message.sequence for message in read(buffer)] == [3]


@pytest.mark.parametrize("what", ["take", "away"])
def test_close_lets_go_who_waits_for_room(monkeypatch, what):
    buffer = make_buffer(2, "block")
    fill(buffer, [1, 2])
    wait = {"take": lambda: fill(buffer, [3]), "away": lambda: buffer.away(BrokerUnavailable("gone"))}[what]
    waiting = threading.Thread(target=wait)
    waiting.start()
    buffer.close()
    waiting.join(0.9)
    assert not waiting.is_alive()


def test_a_connection_that_is_back_is_told_once_for_all_names():
    buffer = Buffer(10, "drop_oldest", 3, Signal(), session_of)
    for _ in range(3):
        assert not buffer.has_joined
        buffer.joined(None)
    assert buffer.has_joined
    for _ in range(3):
        buffer.joined(1.0)
    assert buffer.counts.reconnected == 1
    assert [gap.reason for gap in read(buffer)] == ["reconnected"]


@pytest.mark.parametrize("size", [0, -1, 1.5, True, None], ids=str)
def test_the_size_of_a_buffer_is_checked(size):
    with pytest.raises(ConfigError):
        make_buffer(size)


def test_the_policy_is_checked():
    with pytest.raises(ConfigError, match="drop_oldest, drop_newest, block, disconnect, not 'wait'"):
        check_when_full("wait")


# ---- signals


def test_what_was_set_before_does_not_wait():
    signal = Signal()
    signal.set()
    began = time.monotonic()
    signal.wait(5)
    asyncio.run(signal.await_(5))
    assert time.monotonic() - began < 2


def test_a_wait_ends_after_its_time():
    signal = Signal()
    signal.wait(0.01)
    asyncio.run(signal.await_(0.01))


async def test_many_are_woken_from_a_thread():
    """As often as they are set, whatever waits meanwhile."""
    signals = [Signal() for _ in range(50)]
    woken = [0] * 50

    async def wait(number: int) -> None:
        for _ in range(20):
            await signals[number].await_(None)
            signals[number].clear()
            woken[number] += 1

    waiting = asyncio.gather(*map(wait, range(50)))

    def ring() -> None:
        while min(woken) < 20:
            for signal in signals:
                signal.set()

    async with asyncio.timeout(20):
        await asyncio.gather(asyncio.to_thread(ring), waiting)
    assert woken == [20] * 50


async def test_a_loop_that_is_closed_harms_nobody():
    signal = Signal()

    async def wait() -> None:
        waiting = asyncio.create_task(signal.await_(None))
        await asyncio.sleep(0)
        waiting.cancel()

    await asyncio.to_thread(lambda: asyncio.run(wait()))
    signal.set()
    async with asyncio.timeout(1):
        await signal.await_(None)
