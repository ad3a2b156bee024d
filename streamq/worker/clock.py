"""The time as Redis has it, by which messages are dated: a host whose clock is wrong must not give up an hour early."""

from __future__ import annotations

import time

_offset_ms = 0


def now_ms() -> int:
    """Return Redis time, ms, as far as this process knows."""
    return time.time_ns() // 1_000_000 + _offset_ms


def offset_ms() -> int:
    """Return by how much Redis is ahead of this host, ms."""
    return _offset_ms


def set_offset(milliseconds: int) -> None:
    """Note by how much Redis is ahead of this host."""
    global _offset_ms  # noqa: PLW0603 - there is one clock in a process
    _offset_ms = milliseconds
