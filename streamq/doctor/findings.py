"""What the doctor finds: values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How much a finding matters."""

    OK = "ok"
    UNKNOWN = "unknown"  # the server does not tell: look yourself
    WARNING = "warning"  # it can be used, and something may be lost or fail
    REFUSED = "refused"  # it cannot be used


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: how much it matters.
        check: what was looked at, in one word; it stays the same from release to release.
        text: what was found, in one line.
        advice: what to do about it; may be empty.
    """

    level: Level
    check: str
    text: str
    advice: str = ""

    def __str__(self) -> str:
        """What was found and what to do, in one line."""
        return f"{self.text}; {self.advice}" if self.advice else self.text
