"""Schedules as values: when they come due, what of that is fired, and how they are stored. Pure; the time is given."""
