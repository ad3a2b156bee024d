"""What callers' values are, where their types do not say enough."""

from __future__ import annotations

from typing import TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a value is a number; True and False are none, though Python counts with them."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_whole(value: object) -> TypeGuard[int]:
    """Tell whether a value is a whole number; True and False are none here either."""
    return isinstance(value, int) and not isinstance(value, bool)
