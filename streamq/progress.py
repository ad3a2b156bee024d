"""How far a task says that it is."""

from __future__ import annotations

import json
from typing import NamedTuple

from streamq.checks import is_number
from streamq.errors import ConfigError

_LONGEST_TEXT = 1000  # characters


class Progress(NamedTuple):
    """How far a task is.

    Attributes:
        fraction: 0 to 1.
        text: for people; at most 1,000 characters.
    """

    fraction: float
    text: str = ""

    def encode(self) -> bytes:
        """Make the stored form, in which it is also part of an event."""
        return json.dumps({"fraction": self.fraction, "text": self.text}, separators=(",", ":")).encode()


def check_progress(fraction: float, text: str) -> Progress:
    """Return what is said, with the text cut at its bound.

    Raises:
        ConfigError: the fraction is no number from 0 to 1, or the text is none.
    """
    if not (is_number(fraction) and 0 <= fraction <= 1):
        raise ConfigError(f"progress must be a fraction from 0 to 1, not {fraction!r}")
    if not isinstance(text, str):
        raise ConfigError(f"the text of a progress must be a text, not {text!r}")
    return Progress(float(fraction), text[:_LONGEST_TEXT])


def read_progress(stored: bytes) -> Progress:
    """Read the stored form."""
    said = json.loads(stored)
    return Progress(said["fraction"], said["text"])
