"""Refs: the numbers of many nodes of a flow, held and stored as runs. Pure.

They are numbers, and runs of them as (first, last, step), with the last one included. Most are ascending, but those of
the inputs of a task are in the order of its arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

Run = tuple[int, int, int]
Refs = tuple[int | Run, ...]


def each(refs: Refs) -> Iterator[int]:
    """Go through all numbers, in order."""
    for one in refs:
        if isinstance(one, int):
            yield one
        else:
            first, last, step = one
            yield from range(first, last + 1, step)


def count(refs: Refs) -> int:
    """Say how many numbers there are."""
    return sum(1 if isinstance(one, int) else (one[1] - one[0]) // one[2] + 1 for one in refs)


class Row:
    """Ascending numbers that come one after another, held as runs."""

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        self._runs: list[list[int]] = []  # first, last, step; a single number has step 0

    @property
    def last(self) -> int:
        """The number at the end; -1: there is none."""
        return self._runs[-1][1] if self._runs else -1

    def add(self, number: int) -> None:
        """Put a number at the end."""
        last = self._runs[-1] if self._runs else None
        if last is None or number <= last[1] or (last[2] and number - last[1] != last[2]):
            self._runs.append([number, number, 0])
            return
        last[2] = number - last[1]
        last[1] = number

    def extend(self, refs: Refs) -> None:
        """Put many at the end."""
        for one in refs:
            if isinstance(one, int):
                self.add(one)
            elif self._runs and self._runs[-1][2] == one[2] == one[0] - self._runs[-1][1]:
                self._runs[-1][1] = one[1]
            else:
                self._runs.append(list(one))

    def refs(self) -> Refs:
        """Give them in the stored form."""
        found: list[int | Run] = []
        for first, last, step in self._runs:
            if step == 0:
                found.append(first)
            elif last - first == step:
                found += (first, last)
            else:
                found.append((first, last, step))
        return tuple(found)


def merge(many: Iterable[Refs]) -> Refs:
    """Make one of several: ascending, each number once."""
    said = [refs for refs in many if refs]
    if len(said) <= 1:
        return said[0] if said else ()
    parts = sorted({one for refs in said for one in refs}, key=first_of)
    lasts = [one if isinstance(one, int) else one[1] for one in parts]
    if any(first_of(part) <= last for part, last in zip(parts[1:], lasts, strict=False)):
        parts = [*sorted({number for refs in said for number in each(refs)})]
    row = Row()
    row.extend(tuple(parts))
    return row.refs()


def first_of(one: int | Run) -> int:
    """Give the number, or the first of a run."""
    return one if isinstance(one, int) else one[0]


def encode_refs(refs: Refs) -> bytes:
    """Write refs as JSON."""
    if len(refs) == 1 and isinstance(refs[0], int):  # most nodes have one neighbour
        return b"[%d]" % refs[0]
    return json.dumps(refs, separators=(",", ":")).encode()


def read_refs(said: Any) -> Refs:
    """Read refs from what JSON has.

    Raises:
        ValueError: they are none.
    """
    if not isinstance(said, list):
        raise ValueError("refs are no list")  # noqa: TRY004 - as json.loads says it
    return tuple(one if isinstance(one, int) else _read_run(one) for one in said)


def _read_run(said: Any) -> Run:
    match said:
        case [int(first), int(last), int(step)] if step > 0:
            return first, last, step
    raise ValueError("refs have a part that is no run")
