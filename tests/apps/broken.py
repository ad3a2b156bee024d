"""A module that cannot be imported."""

from streamq import StreamQ

app = StreamQ()
nothing = 1 / 0
