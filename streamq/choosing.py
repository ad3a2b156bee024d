"""How those who deal with many tasks at once say which they mean."""

from __future__ import annotations

import math
import re
from datetime import datetime

from streamq.checks import is_number
from streamq.errors import ConfigError


def compiled(name: str, pattern: str) -> re.Pattern[str]:
    """Make a pattern of a text in which ``*`` stands for any text and ``?`` for any character.

    Raises:
        ConfigError: it is empty, or no text.
    """
    if not isinstance(pattern, str) or not pattern:
        raise ConfigError(f"{name} must be some text, with * and ? for any, not {pattern!r}")
    parts = (".*" if part == "*" else "." if part == "?" else re.escape(part) for part in re.split(r"([*?])", pattern))
    return re.compile("".join(parts), re.DOTALL)


def checked_time(name: str, time: float | datetime) -> float | datetime:
    """Return `time` if it is an age in seconds or a moment.

    Raises:
        ConfigError: it is neither.
    """
    is_age = is_number(time) and 0 <= time < math.inf
    if not is_age and not (isinstance(time, datetime) and time.tzinfo):
        raise ConfigError(f"{name} must be 0 or more seconds, or a datetime with its time zone, not {time!r}")
    return time


def moment_ms(time: float | datetime, now_ms: int) -> int:
    """Give a moment as entries have it; what lies before the beginning of time is its beginning."""
    ms = time.timestamp() * 1000 if isinstance(time, datetime) else now_ms - time * 1000
    return max(0, round(ms))
