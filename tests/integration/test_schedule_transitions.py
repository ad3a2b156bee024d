"""Cron expressions over all changes of the clock from 2000 to 2040."""

from __future__ import annotations

import pytest

from streamq.schedule.rules import cron
from tests.transitions import INTERVALS, WALL_CLOCK, ZONES, crossings, instants_meant, instants_shown


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    ("expression", "listed"),
    [*dict.fromkeys(INTERVALS, instants_shown).items(), *dict.fromkeys(WALL_CLOCK, instants_meant).items()],
)
def test_none_is_left_out_and_none_is_due_twice(zone, expression, listed):
    """Each minute of real time in the hours around a change is looked at."""
    rule, fits = cron(expression, tz=zone), {**INTERVALS, **WALL_CLOCK}[expression]
    looked_at = [crossing for crossing in crossings(range(2000, 2041)) if crossing.zone == zone]
    assert len(looked_at) >= 41 - 5  # one of them has changed its mind about summer time
    for crossing in looked_at:
        assert crossing.instants(rule) == listed(crossing, fits), crossing
