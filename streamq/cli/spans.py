"""How the commands write spans of time."""

from __future__ import annotations

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_MINUTE = 60
_FEW_SECONDS = 10  # up to there, fractions matter
_MS_A_SECOND = 1000


def span(ms: int) -> str:
    """Write what something took, in its two largest units."""
    if ms < _MS_A_SECOND:
        return f"{max(0, ms)} ms"
    seconds = ms / _MS_A_SECOND
    return f"{seconds:.2f} s" if seconds < _FEW_SECONDS else age(seconds)


def age(seconds: float) -> str:
    """Write an age in its two largest units."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    rest = int(seconds)
    parts: list[str] = []
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
