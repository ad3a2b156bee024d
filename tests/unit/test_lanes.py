"""How many messages a worker fetches, given how many runs of each kind go on and wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.worker.lanes import Lane, Pace, free_places


def lane(size: int, running: int = 0, waiting: int = 0) -> Lane:
    made = Lane(size, lambda _run: None, running)
    made.waiting.extend([None] * waiting)
    return made


@pytest.mark.parametrize(
    ("loop", "threads", "processes", "free"),
    [
        ((100,), (16,), (4,), 4),  # whatever comes next can start
        ((100, 99), (16,), (4,), 1),
        ((100, 100), (16,), (4,), 0),  # nothing is fetched while the loop is full
        ((100, 100), (16, 16), (4, 4), 0),
        ((100,), (16,), (4, 4), 1),  # for the sake of the others, one more than what waits
        ((100,), (16,), (4, 4, 3), 4),
        ((100,), (16,), (4, 4, 4), 0),  # as many wait as may run: enough
        ((100,), (16, 15), (4, 4, 2), 1),
        ((100,), (16, 16), (4, 4), 1),
        ((100,), (16, 16, 2), (4, 4, 1), 4),
        ((100, 98), (16, 16, 2), (4, 4, 1), 2),
        ((100,), (64, 64, 16), (4,), 0),  # of many threads, too, only some may be waited for
    ],
)
def test_how_many_can_start_whatever_comes(loop, threads, processes, free):
    on_loop = lane(*loop)
    assert free_places([on_loop, lane(*threads), lane(*processes)], on_loop) == free


def test_a_kind_that_cannot_come_does_not_count():
    """The app has no task for it."""
    on_loop = lane(100, 100)
    assert free_places([lane(16)], on_loop) == 16
    assert free_places([lane(16, 16)], on_loop) == 0


places = st.integers(1, 50).flatmap(
    lambda size: st.builds(lane, st.just(size), st.integers(0, size), st.integers(0, 60))
)


@given(st.lists(places, min_size=1, max_size=4), st.integers(0, 3))
def test_never_more_than_could_wait(lanes, which):
    """Whatever comes, what waits for places of one kind stays bounded, and a full worker fetches nothing."""
    free = free_places(lanes, lanes[which % len(lanes)])
    assert 0 <= free <= max(one.free for one in lanes)
    if all(one.free == 0 for one in lanes):
        assert free == 0


def test_all_runs_are_counted():
    """Also those that the pace of late has forgotten."""
    pace = Pace()
    for _ in range(3):
        pace.ended += 5
        pace._since -= 1
        pace.ahead()
    pace.ended += 2
    assert pace.total == 17
