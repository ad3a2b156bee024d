"""Medians of all rounds, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import Figure
from benchmarks.measures import Measure

CELERY = (
    "celery: the same chains and chords with Celery 5.7, with the same server as its broker and result backend, and CPU"
    " time of process and server; the process of a whole chord is its worker. JSON, one worker process with 8 threads,"
    " which is faster with no-ops than its solo pool or prefork with one process; no gossip, mingle and heartbeats,"
    " worker_prefetch_multiplier 128, rate limits off, results kept for an hour, and ignored where only the next in a"
    " chain needs them. Its chords have 1,000 members. It acknowledges a task before it runs (task_acks_late is off, as"
    " by default): one whose worker dies is lost, where streamq's runs again. Left out: other pools and brokers, and"
    " other task queues."
)


def summary(measure: Measure) -> dict[str, Any]:
    """Reduce the rounds of a measure to medians; the ratio is the median of the ratios of the rounds."""
    ratios = [ours.rate / bare.rate for bare, ours in zip(measure.bare, measure.ours, strict=False)]
    if measure.goal is not None:
        ratios = [ours.rate / measure.goal for ours in measure.ours]
    return {
        "title": measure.title,
        "unit": measure.unit,
        "bare": _side(measure.bare),
        "streamq": _side(measure.ours),
        "celery": _side(measure.celery),
        "goal": measure.goal,
        "ratio": _median(ratios),
    }


def _side(figures: list[Figure]) -> dict[str, Any] | None:
    if not figures:
        return None
    return {
        "value": _median(figure.rate for figure in figures),
        "process_us": _median(figure.process_us for figure in figures),
        "server_us": _median(figure.server_us for figure in figures),
        "rounds": [figure.rate for figure in figures],
    }


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def show(console: Console, measures: Mapping[str, Measure], about: str) -> None:
    """Print the table, and below it what each line means."""
    console.print(about, highlight=False, soft_wrap=True)
    table = Table()
    table.add_column("")
    peers = ("celery",) if any(measure.celery for measure in measures.values()) else ()
    for name in ("bare", "streamq", "ratio", "process µs", "server µs", *peers):
        table.add_column(name, justify="right")
    for measure in measures.values():
        line = summary(measure)
        bare, ours = line["bare"] or {}, line["streamq"] or {}
        table.add_row(
            measure.title,
            _number(bare.get("value"), measure.unit),
            _number(ours.get("value"), measure.unit),
            f"{line['ratio']:.2f}" if line["ratio"] is not None else "",
            _pair(bare.get("process_us"), ours.get("process_us")),
            _pair(bare.get("server_us"), ours.get("server_us")),
            *(_peer(line[name], measure.unit) for name in peers),
        )
    console.print(table)
    for measure in measures.values():
        console.print(f"{measure.title}: {measure.explanation}", highlight=False, soft_wrap=True)
    if peers:
        console.print(CELERY, highlight=False, soft_wrap=True)
    console.print(
        "ratio: streamq to bare, the median of the rounds. process and server µs: CPU time per task, user and"
        " system, bare -> streamq; the process is the producer, or in a drain the one that runs the tasks.",
        highlight=False,
        soft_wrap=True,
    )


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:.2f} {unit}" if unit in ("ms", "MB") else f"{value:,.0f} {unit}"


def _peer(side: dict[str, Any] | None, unit: str) -> str:
    if side is None:
        return ""
    times = [side[name] for name in ("process_us", "server_us")]
    return _number(side["value"], unit) + (f" ({times[0]:.0f}, {times[1]:.0f} µs)" if None not in times else "")


def _pair(bare: float | None, ours: float | None) -> str:
    if ours is None:
        return ""
    return f"{ours:.0f}" if bare is None else f"{bare:.0f} -> {ours:.0f}"
