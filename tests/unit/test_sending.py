"""What of an enqueue travels with its message."""

from __future__ import annotations

import pytest

from streamq.sending import Steering, read_steering


def test_a_call_without_options_says_nothing():
    """Most messages have none, and are not made longer by it."""
    assert Steering().encode() == b""
    assert read_steering(b"") == Steering()


@pytest.mark.parametrize(
    "steering",
    [
        Steering(level=0),
        Steering(expires_ms=1_700_000_000_000),
        Steering(scheduled_ms=1_700_000_000_000),
        Steering(ordering_key="Kunde 7", fairness_key="ü"),
        Steering(limits=(("mail", "a:b", 1.5), ("llm", "", 2000.0))),
    ],
)
def test_what_is_said_arrives(steering):
    """A worker reads what the caller wrote."""
    assert read_steering(steering.encode()) == steering


def test_what_a_newer_version_says_is_passed_over():
    """In a rolling deployment new callers reach old workers."""
    assert read_steering(b'{"level":3,"colour":"red"}') == Steering(level=3)


@pytest.mark.parametrize("options", [b"{", b"[]", b"7", b"\xff", b'{"limits":[["x"]]}'])
def test_what_cannot_be_read_is_an_error(options):
    """It is one kind of error, whatever was written."""
    with pytest.raises(ValueError):  # noqa: PT011 - what it says comes from the parts
        read_steering(options)
