"""How weights are written on the command line: ``mail:3,files:1``."""

from __future__ import annotations

from streamq.config import LEVELS
from streamq.errors import ConfigError


def read_queues(text: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Read the names of queues, and their weights: one for each, or none.

    Raises:
        ConfigError: only some have a weight, or one is no whole number of 1 or more.
    """
    parts = [part.strip().partition(":") for part in text.split(",")]
    names = tuple(name for name, _, _ in parts)
    if not any(colon for _, colon, _ in parts):
        return names, ()
    return names, tuple(_weight("--queues", text, weight) for _, _, weight in parts)


def read_weights(text: str) -> tuple[int, ...]:
    """Read the weights of priority levels; returns that of each.

    Raises:
        ConfigError: it names what is no level, or a weight is no whole number of 1 or more.
    """
    weights = [level + 1 for level in LEVELS]
    for part in [] if text == "auto" else text.split(","):
        level, _, weight = part.strip().partition(":")
        if level not in map(str, LEVELS):
            raise ConfigError(f"--weights {text!r} cannot be used: {level!r} is no level from 0 to {LEVELS[-1]}")
        weights[int(level)] = _weight("--weights", text, weight)
    return tuple(weights)


def _weight(option: str, text: str, weight: str) -> int:
    if not (weight.isascii() and weight.isdigit() and int(weight)):
        raise ConfigError(f"{option} {text!r} cannot be used: each needs a whole number of 1 or more after its colon")
    return int(weight)
