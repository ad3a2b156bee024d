"""Which calls count as the same, and what of `by` cannot be used."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum

import pytest

from streamq import ConfigError, EncodeError, StreamQ, by
from streamq.broker.caller import Broker


class Colour(Enum):
    RED = "red"


def lock(sender, *args, **kwargs):
    return sender.s(*args, **kwargs).message.terms.lock


@pytest.fixture
def paint(app):
    """Give a task that says nothing of itself."""

    @app.task
    def paint(x, y=None, *more, colour=Colour.RED, **rest): ...

    return paint


@pytest.mark.parametrize(
    ("what", "one", "other"),
    [
        ((), ((1,), {}), ((), {"x": 1})),
        ((), ((1,), {}), ((1, None), {"colour": Colour.RED})),
        ((), ((1,), {}), ((1,), {"colour": "red"})),
        ((), (({"a": 1, "b": 2},), {}), (({"b": 2, "a": 1},), {})),
        ((), (({"b", "a", "c"},), {}), (({"c", "b", "a"},), {})),
        ((), ((datetime(2026, 1, 1, tzinfo=UTC),), {}), (("2026-01-01T00:00:00Z",), {})),
        (("x",), ((1, 2), {}), ((1, 3, 4), {"z": 5})),
        (("x", "colour"), ((1, 2), {}), ((1, 3), {})),
        ((lambda call: call["x"].lower(),), (("A",), {}), (("a",), {})),
    ],
)
def test_calls_that_are_the_same(paint, what, one, other):
    """Whatever way their arguments are passed, and whatever the others are."""
    sender = paint.using(unique=by(*what))
    assert lock(sender, *one[0], **one[1]) == lock(sender, *other[0], **other[1])


@pytest.mark.parametrize(
    ("what", "one", "other"),
    [
        ((), ((1,), {}), ((2,), {})),
        ((), ((1,), {}), (("1",), {})),
        ((), ((1, 2), {}), ((2, 1), {})),
        ((), ((1, 2, 3), {}), ((1, 2, 4), {})),
        ((), ((1,), {"z": 1}), ((1,), {"z": 2})),
        (("more",), ((1, 2, 3), {}), ((1, 2, 4), {})),
        (("x", "y"), (("a", "bc"), {}), (("ab", "c"), {})),
        ((lambda call: call["x"],), ((1,), {}), ((2,), {})),
    ],
)
def test_calls_that_are_not_the_same(paint, what, one, other):
    sender = paint.using(unique=by(*what))
    assert lock(sender, *one[0], **one[1]) != lock(sender, *other[0], **other[1])


def test_each_kind_and_choice_has_locks_of_its_own(paint, app):
    """Else they would be held by calls that follow other rules."""

    @app.task(unique=by("x"))
    def sand(x, y=None): ...

    locks = [
        lock(sand, 1),
        *(lock(paint.using(unique=by(name)), 1, 1) for name in ("x", "y")),
        lock(paint.using(throttle=by("x", seconds=1)), 1, 1),
        lock(paint.using(debounce=by("x", seconds=1)), 1, 1),
    ]
    assert len({one.name for one in locks}) == len(locks)
    assert locks[0].name.startswith(f"{sand.name}:")
    assert lock(paint.using(unique=by("x", while_="queued")), 1).name == lock(paint.using(unique=by("x")), 1).name


def test_a_context_does_not_count(app):
    """It is not one of the arguments."""

    @app.task(bind=True, unique=by())
    def bound(context, x): ...

    assert lock(bound, 1) == lock(bound, x=1)
    with pytest.raises(ConfigError, match=r"its parameters are x$"):
        bound.using(unique=by("context"))


def test_how_long(paint):
    """Of each kind, in ms."""
    day = 24 * 3600 * 1000

    def terms(**options):
        found = lock(paint.using(**options), 1)
        return found.rule, found.ttl_ms, found.renews, found.longest_ms

    assert terms(unique=by()) == ("running", day, True, None)
    assert terms(unique=by(ttl=1.5)) == ("running", 1500, False, None)
    assert terms(unique=by(while_="queued")) == ("queued", day, True, None)
    assert terms(unique=by(while_="done", ttl=9)) == ("done", 9000, False, None)
    assert terms(throttle=by(seconds=9)) == ("done", 9000, False, None)
    assert terms(debounce=by(seconds=9)) == ("delayed", day, True, None)
    assert terms(debounce=by(seconds=9, max_wait=60)) == ("delayed", day, True, 60_000)
    assert paint.using(debounce=by(seconds=9)).s(1).message.delay_ms == 9000
    assert paint.using(unique=by(), countdown=5).s(1).message.delay_ms == 5000
    assert paint.s(1).message.terms is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (lambda: {"unique": by("z")}, r"unique=by\('z'\): its parameters are x, y"),
        (lambda: {"throttle": by("z", seconds=1)}, r"throttle=by\('z'\)"),
        (lambda: {"unique": by(), "throttle": by(seconds=1)}, "unique and throttle exclude each other"),
        (lambda: {"unique": "x"}, r"unique must be by\(\.\.\.\), not 'x'"),
        (lambda: {"unique": by(seconds=1)}, "unique=by.* takes no seconds="),
        (lambda: {"unique": by(while_="done")}, "unique=by.* needs ttl="),
        (lambda: {"throttle": by()}, "throttle=by.* needs seconds="),
        (lambda: {"throttle": by(seconds=1, while_="done")}, "takes no while_="),
        (lambda: {"throttle": by(seconds=1, max_wait=2)}, "takes no max_wait="),
        (lambda: {"debounce": by()}, "debounce=by.* needs seconds="),
        (lambda: {"debounce": by(seconds=1, ttl=1)}, "takes no ttl="),
        (lambda: {"unique": by(7)}, "names of parameters and functions, not 7"),
        (lambda: {"unique": by(while_="ended")}, "one of queued, running, done, not 'ended'"),
        (lambda: {"unique": by(ttl=0)}, r"ttl=\.\.\.\) must be 0.001 or more seconds"),
        (lambda: {"unique": by(ttl=True)}, "not True"),
        (lambda: {"throttle": by(seconds="1")}, "not '1'"),
        (lambda: {"debounce": by(seconds=1, max_wait=float("nan"))}, "not nan"),
    ],
)
def test_what_cannot_be_used_is_said_at_once(app, options, says):
    """Where the task is made, and where a sender is."""

    def paint(x, y=None): ...

    with pytest.raises(ConfigError, match=says):
        app.task(**options())(paint)
    with pytest.raises(ConfigError, match=says):
        app.task(paint).using(**options())


def test_a_debounced_call_has_no_other_time(app):
    @app.task(debounce=by(seconds=1))
    def paint(): ...

    with pytest.raises(ConfigError, match="debounce= says itself when a call is due"):
        paint.using(countdown=5)
    assert paint.using(throttle=by(seconds=1), countdown=5).s().message.delay_ms == 5000


def test_what_counts_must_fit_into_json(app):
    """A default that never travels, or what a function of the user's returns; what that raises is the user's."""

    @app.task
    def paint(x, y=object()): ...  # noqa: B008 - what cannot be sent

    assert lock(paint.using(unique=by("x")), 1)
    with pytest.raises(EncodeError, match=r"paint\(\): what unique= takes of it cannot be sent as JSON"):
        paint.using(unique=by()).s(1)
    with pytest.raises(EncodeError, match="what throttle= takes"):
        paint.using(throttle=by(lambda _: object(), seconds=1)).s(1)
    with pytest.raises(KeyError, match="z"):
        paint.using(unique=by(lambda call: call["z"])).s(1)


def test_a_plain_call_goes_the_short_way(app, monkeypatch):
    """Where nothing is said, nothing is computed."""

    @app.task
    def paint(x): ...

    sent = []
    monkeypatch.setattr(Broker, "enqueue", lambda _broker, message, _durability: sent.append(message))
    assert not paint.delay(1).duplicate
    assert sent[0].terms is None
    assert isinstance(app, StreamQ)
