"""What a row has found: one line of JSON, or one line of a table."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Report:
    """The account of one row.

    Attributes:
        row: its number; of a negative control also its name.
        seed: repeats the row.
        server: the name it was asked for.
        versions: of all that took part.
        faults: how many of each kind there were.
        tasks: enqueues that were acknowledged.
        lost: of these, those that came to no final state.
        executed_again: tasks whose body began more than once in one attempt; retries do not count.
        committed_again: tasks that were committed more than once.
        stale: tasks whose stored result is of a run that had lost its lease.
        fenced: outcomes that were refused.
        reclaimed: times that a task was taken from a worker that died, or seemed to.
        recovery_p50: seconds from a fault that ended a run to the next run of the same task, the median.
        recovery_max: the longest of them.
        seconds: that the row took.
        left: what is left at rest and should not be.
        more: figures of this row alone.
        ok: all that must hold holds.
        why: what does not.
    """

    row: str
    seed: int
    server: str
    versions: dict[str, str] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    tasks: int = 0
    lost: int = 0
    executed_again: int = 0
    committed_again: int = 0
    stale: int = 0
    fenced: int = 0
    reclaimed: int = 0
    recovery_p50: float | None = None
    recovery_max: float | None = None
    seconds: float = 0.0
    left: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    ok: bool = True
    why: list[str] = field(default_factory=list)

    def require(self, holds: bool, why: str) -> None:  # noqa: FBT001 - as assert has it
        """Have the row fail if something does not hold."""
        if not holds:
            self.ok = False
            self.why.append(why)

    def recovered(self, seconds: list[float]) -> None:
        """Take down how long recoveries took."""
        if seconds:
            self.recovery_p50 = round(statistics.median(seconds), 2)
            self.recovery_max = round(max(seconds), 2)

    def to_json(self) -> str:
        return json.dumps(vars(self))


_COLUMNS = ("row", "tasks", "faults", "lost", "again", "twice", "stale", "fenced", "reclaimed", "recovery", "s", "")


def table(reports: list[Report]) -> str:
    """Write a Markdown table."""
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
    for one in reports:
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(one.faults.items()))
        p50, most = one.recovery_p50, one.recovery_max
        cells = (
            one.row,
            one.tasks,
            faults,
            one.lost,
            one.executed_again,
            one.committed_again,
            one.stale,
            one.fenced,
            one.reclaimed,
            "" if p50 is None else f"{p50:g} / {most:g} s",
            f"{one.seconds:.0f}",
            "ok" if one.ok else f"FAILED: {'; '.join(one.why)}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
