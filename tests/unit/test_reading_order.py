"""Which streams are read, and in which order: by queue and level, by weights, and without those of paused queues."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from streamq._redis.keys import Keys
from streamq.broker import order
from streamq.broker.order import Order, shuffled
from streamq.cli.weights import read_queues, read_weights
from streamq.errors import ConfigError

MAIL, FILES = Keys("sq").queue("mail"), Keys("sq").queue("files")


@pytest.fixture(autouse=True)
def _same_lots(monkeypatch):
    monkeypatch.setattr(order, "_random", random.Random(1))  # noqa: S311


def streams(groups):
    return [list(group) for group in groups]


def test_the_default_level_alone_is_one_read():
    assert streams(Order([MAIL]).groups()) == [[MAIL.returned, MAIL.ready]]


def test_a_larger_level_comes_first_and_what_was_returned_before_it():
    found = Order([MAIL])
    assert found.learn("mail", [0, 9], paused=False)
    assert streams(found.groups()) == [[MAIL.returned, MAIL.levels[9]], [MAIL.ready], [MAIL.levels[0]]]
    assert list(found.streams) == [MAIL.returned, MAIL.levels[9], MAIL.ready, MAIL.levels[0]]


def test_a_queue_comes_before_those_named_after_it():
    found = Order([FILES, MAIL])
    found.learn("mail", [5, 9], paused=False)
    assert streams(found.groups()) == [[FILES.returned, FILES.ready], [MAIL.returned, MAIL.levels[9]], [MAIL.ready]]


def test_what_was_known_is_no_news():
    found = Order([MAIL])
    assert not found.learn("mail", [5], paused=False)
    assert found.learn("mail", [7], paused=False)
    assert not found.learn("mail", [7, 5], paused=False)
    assert found.learn("mail", [5], paused=False)
    assert streams(found.groups()) == [[MAIL.returned, MAIL.ready]]


def test_a_paused_queue_is_not_read_but_still_looked_after():
    found = Order([MAIL, FILES])
    assert found.learn("mail", [], paused=True)
    assert streams(found.groups()) == [[FILES.returned, FILES.ready]]
    assert MAIL.ready in found.streams
    found.learn("files", [], paused=True)
    assert found.groups() == []
    assert found.learn("mail", [], paused=False)
    assert streams(found.groups()) == [[MAIL.returned, MAIL.ready]]


def test_weighted_queues_come_first_in_proportion():
    found = Order([MAIL, FILES], queue_weights=[3, 1])
    first = Counter(streams(found.groups())[0][1] for _ in range(4000))
    assert first[MAIL.ready] / 4000 == pytest.approx(0.75, abs=0.03)
    assert first[MAIL.ready] + first[FILES.ready] == 4000


def test_weighted_levels_come_first_in_proportion():
    """Also among those that are left when the first has nothing; what was returned comes before all."""
    found = Order([MAIL], level_weights=read_weights("9:10,5:3,0:1"))
    found.learn("mail", [0, 9], paused=False)
    orders = [streams(found.groups()) for _ in range(4000)]
    assert all(one[0][0] == MAIL.returned for one in orders)
    first = Counter(one[0][1] for one in orders)
    for level, weight in {9: 10, 5: 3, 0: 1}.items():
        assert first[MAIL.levels[level]] / 4000 == pytest.approx(weight / 14, abs=0.03)
    without_nine = [[key for group in one for key in group if key != MAIL.levels[9]][1] for one in orders]
    assert without_nine.count(MAIL.ready) / 4000 == pytest.approx(0.75, abs=0.03)


def test_an_order_has_everything_once():
    assert sorted(shuffled("abc", [1, 1000, 5])) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("mail", (("mail",), ())),
        ("mail, files", (("mail", "files"), ())),
        ("mail:3, files:1", (("mail", "files"), (3, 1))),
    ],
)
def test_queues_and_their_weights_are_read(text, found):
    assert read_queues(text) == found


def test_levels_and_their_weights_are_read():
    assert read_weights("auto") == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    assert read_weights("9:50, 0:7") == (7, 2, 3, 4, 5, 6, 7, 8, 9, 50)


@pytest.mark.parametrize("text", ["mail:3,files", "mail:0", "mail:x", "mail:1.5", "mail:", "mail:-1"])
def test_weights_of_queues_that_cannot_be_used(text):
    with pytest.raises(ConfigError, match=r"--queues '.*' cannot be used: each needs a whole number"):
        read_queues(text)


@pytest.mark.parametrize("text", ["10:1", "x:1", "9", "9:0", ":", "", "auto:1"])
def test_weights_of_levels_that_cannot_be_used(text):
    with pytest.raises(ConfigError, match=r"--weights .* cannot be used"):
        read_weights(text)
