"""Limits and ordering keys: what can be said, and what becomes of it."""

from __future__ import annotations

import pytest

from streamq import ConfigError, Limit, StreamQ
from streamq.limits import parse_rate, rule_of, weighed_limit
from streamq.sending import Steering, read_steering


@pytest.fixture
def app():
    return StreamQ("redis://nowhere")


@pytest.mark.parametrize(
    ("rate", "units", "span"),
    [
        ("100/m", 100, 60_000),
        ("10/s", 10, 1000),
        ("1000/h", 1000, 3_600_000),
        ("5/10s", 5, 10_000),
        ("0.5/d", 0.5, 86_400_000),
    ],
)
def test_a_rate_is_a_number_and_a_time(rate, units, span):
    assert parse_rate(rate) == (units, span)


@pytest.mark.parametrize(
    "rate", ["100", "/m", "0/s", "5/0s", "-1/s", "1/w", "1 / s", "1/s ", 5, None, "1e3/s", "1/m/s"]
)
def test_anything_else_is_none(rate):
    with pytest.raises(ConfigError, match="a rate is a number"):
        parse_rate(rate)


@pytest.mark.parametrize(
    ("limit", "burst"),
    [
        (Limit(rate="100/m"), 100 / 60),
        (Limit(rate="1000/h"), 1),
        (Limit(rate="10/s"), 10),
        (Limit(rate="100/m", burst=7), 7),
        (Limit(rate="90000/m", weight="tokens"), 90_000),
        (Limit(concurrency=5), 1),
    ],
)
def test_a_burst_is_what_the_rate_gives_in_a_second(limit, burst):
    """At least 1; with a weight, what it gives in its time, so that a heavy call can run."""
    assert rule_of(limit).burst == pytest.approx(burst)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, "needs a rate or a concurrency"),
        ({"rate": "fast"}, "a rate is a number"),
        ({"concurrency": 0}, "concurrency must be"),
        ({"concurrency": True}, "concurrency must be"),
        ({"concurrency": 1, "burst": 5}, "for a limit with a rate"),
        ({"concurrency": 1, "weight": "n"}, "for a limit with a rate"),
        ({"rate": "1/s", "burst": 0.5}, "burst must be"),
        ({"rate": "1/s", "by": 7}, "by must be"),
        ({"rate": "1/s", "name": "a b"}, "limit name"),
        ({"rate": "1/s", "name": "*"}, "limit name"),
    ],
)
def test_a_limit_that_cannot_be_used(options, what):
    with pytest.raises(ConfigError, match=what):
        Limit(**options)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"rate_limit": "often"}, "a rate is a number"),
        ({"concurrency": -1}, "concurrency must be"),
        ({"limits": Limit(concurrency=1)}, "must be a list"),
        ({"limits": ["100/m"]}, "must be a list"),
        ({"limits": [Limit(concurrency=1, name="x"), Limit(rate="1/s", name="x")]}, "have one name"),
        ({"limits": [Limit(concurrency=1, by="nobody")]}, "by='nobody' is none of its parameters: user, tokens"),
        ({"limits": [Limit(rate="1/s", weight="heavy")]}, "weight='heavy' is none of its parameters"),
        ({"ordering_key": "nobody"}, "ordering_key='nobody' is none of its parameters"),
    ],
)
def test_a_task_whose_limits_cannot_be_used(app, options, what):
    with pytest.raises(ConfigError, match=what):

        @app.task(**options)
        def call(user, tokens):
            """Do nothing."""


@pytest.mark.parametrize("limit", [Limit(concurrency=1, by="x"), Limit(concurrency=1, name="x"), 5])
def test_a_queue_whose_limit_cannot_be_used(limit):
    with pytest.raises(ConfigError, match="queue_limits: the limit of queue mail"):
        StreamQ("redis://nowhere", queue_limits={"mail": limit})


def test_what_limits_need_travels_with_the_message(app):
    """Keys and weights are taken from the arguments however they were passed; what needs nothing says nothing."""

    @app.task(
        name="call",
        concurrency=3,
        limits=[
            Limit(rate="1000/m", by="user", weight="tokens", name="llm"),
            Limit(concurrency=1, by=lambda call: call["user"][0]),
        ],
    )
    def call(user, tokens=10):
        """Do nothing."""

    expected = (("llm", "ada", 10.0), ("call.2", "a", 1.0))
    for message in (call.s("ada").message, call.s(user="ada").message, call.s("ada", 10).message):
        assert read_steering(message.options).limits == expected
    assert [limit.name for limit in call.options.turns.limits] == ["call", "llm", "call.2"]

    @app.task(rate_limit="10/s")
    def plain():
        """Do nothing."""

    assert plain.s().message.options == b""


@pytest.mark.parametrize("weight", [0, -1, "5", True, float("inf"), float("nan"), None])
def test_a_weight_that_is_none(app, weight):
    @app.task(limits=[Limit(rate="10/s", weight="n")])
    def call(n):
        """Do nothing."""

    with pytest.raises(ConfigError, match="must be a number over 0"):
        call.s(weight)


def test_a_long_key_is_shortened(app):
    """Two that differ stay different."""

    @app.task(ordering_key=lambda call: call["text"])
    def call(text):
        """Do nothing."""

    keys = {read_steering(call.s("x" * 300 + end).message.options).ordering_key for end in "ab"}
    assert {len(key) for key in keys} == {64}
    assert len(keys) == 2


@pytest.mark.parametrize("key", ["", 7, b"x"])
def test_an_ordering_key_that_cannot_be_used(app, key):
    @app.task
    def call():
        """Do nothing."""

    with pytest.raises(ConfigError, match="must be a text that is not empty"):
        call.using(ordering_key=key)


def test_a_chosen_key_goes_before_that_of_the_task(app):
    @app.task(ordering_key="user")
    def call(user):
        """Do nothing."""

    message = call.using(ordering_key="all").s("ada").message
    assert read_steering(message.options) == Steering(ordering_key="all")
    assert message.terms.order == "all"


@pytest.mark.parametrize(
    ("units", "limit", "what"), [(-1, None, "units must be"), (1, "other", "0 limits"), (1, None, "0 limits")]
)
def test_units_that_cannot_be_settled(app, units, limit, what):
    @app.task(rate_limit="1/s", bind=True)
    def call(context):
        """Do nothing."""

    with pytest.raises(ConfigError, match=what):
        weighed_limit("call", call.options.turns.limits, units, limit)
