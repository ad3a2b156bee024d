"""What the demo shows: bars in a terminal, plain lines in a log, and the tables at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from streamq.cli.demo.checking import Comparison
from streamq.cli.demo.processes import LEASE_SECONDS, Worker
from streamq.cli.demo.session import Session
from streamq.cli.demo.tasks import FileReport

_LARGEST = 5
_LINES_IN_A_LOG = 4
_MOST_DIFFERENCES = 20


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text(f"{rate:,.0f} files/s" if rate else "", style="progress.data.speed")


class Display:
    """Writes to one console.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._phase = ""
        self._done = self._total = 0
        self._began = 0.0

    def say(self, text: str, style: str = "") -> None:
        """Print a line, above the bar if there is one."""
        self._console.print(Text(self._printable(text), style=style), soft_wrap=True)

    def _printable(self, text: str) -> str:
        """Replace what a file name may hold and a terminal should not get, or cannot show."""
        visible = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
        return visible.encode(self._console.encoding, "replace").decode(self._console.encoding)

    # ---- progress

    def phase(self, name: str, total: int) -> AbstractContextManager[object]:
        """Begin something that takes `total` steps; each is told by `on_result`."""
        self._phase, self._done, self._total, self._began = name, 0, total, time.monotonic()
        if not self._console.is_terminal:
            return nullcontext()
        columns = TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), _Rate(), TimeElapsedColumn()
        self._progress = Progress(*columns, console=self._console, expand=True)
        self._progress.add_task(name, total=total)
        return self._progress

    def on_result(self) -> None:
        """Move the bar on; in a log, print a line now and then."""
        self._done += 1
        if self._progress is not None:
            self._progress.advance(self._progress.task_ids[0])
        elif self._done * _LINES_IN_A_LOG // self._total > (self._done - 1) * _LINES_IN_A_LOG // self._total:
            rate = self._done / (time.monotonic() - self._began)
            self.say(f"{self._phase}: {self._done:,} of {self._total:,} files, {rate:,.0f} files/s")

    def on_kill(self, worker: Worker, process: int, held: int) -> None:
        """Announce the kill."""
        self.say(
            f"SIGKILL to {worker.name} (pid {worker.pid}) and its process (pid {process}): "
            f"{_count(held, 'task')} in its hands, nobody left to hand them back",
            "bold red",
        )

    def on_return(self, report: FileReport, seconds: float) -> None:
        """Announce that a task of the killed worker has been done by another."""
        self.say(
            f"{seconds:.1f} s later: its lease of {LEASE_SECONDS:g} s has run out, and its tasks are done elsewhere "
            f"(first by pid {report.process})",
            "bold green",
        )

    # ---- the end

    def show_totals(self, session: Session, comparison: Comparison, tasks: int) -> None:
        """Print what came of it all."""
        sums = comparison.tasks
        table = Table(title="streamq demo", title_justify="left", show_header=False, min_width=40)
        table.add_column()
        table.add_column(justify="right")
        rows: dict[str, str] = {"files": f"{tasks:,}", "tasks": f"{tasks:,}", "results": f"{len(session.reports):,}"}
        rows["redelivered"] = f"{session.redelivered:,}"
        rows["lost"] = f"{len(session.lost):,}"
        if session.failures:
            rows["failed"] = f"{len(session.failures):,}"
        if unreadable := sum(report.contents is None for report in session.reports.values()):
            rows["unreadable"] = f"{unreadable:,}"
        if wrong := sum(bool(report.contents and report.problem) for report in session.reports.values()):
            rows["not valid Python"] = f"{wrong:,}"
        found = [report.definitions for report in session.reports.values() if report.definitions]
        rows |= {"bytes": f"{sums.size:,}", "lines": f"{sums.lines:,}", "words": f"{sums.words:,}"}
        rows["functions"] = f"{sum(one.functions for one in found):,}"
        rows["classes"] = f"{sum(one.classes for one in found):,}"
        rows["time"] = f"{session.seconds:.1f} s"
        for name, value in rows.items():
            bad = name == "failed" or (name == "lost" and session.lost)
            table.add_row(name, value, style="bold red" if bad else "bold" if name == "lost" else "")
        self._console.print(table)

    def show_largest(self, reports: dict[Path, FileReport], folder: Path) -> None:
        """Print the modules with the most lines."""
        modules = [
            (report.contents.lines, path, report.definitions)
            for path, report in reports.items()
            if report.contents and report.definitions
        ]
        if not modules:
            return
        table = Table(title="largest modules", title_justify="left")
        table.add_column("module", overflow="fold")
        for name in ("lines", "functions", "classes"):
            table.add_column(name, justify="right")
        for lines, path, found in sorted(modules, key=lambda one: (-one[0], one[1]))[:_LARGEST]:
            module = Text(self._printable(str(path.relative_to(folder))))
            table.add_row(module, f"{lines:,}", f"{found.functions:,}", f"{found.classes:,}")
        self._console.print(table)

    def show_verdict(self, session: Session, comparison: Comparison) -> None:
        """Print whether the plain walk agrees, and on what it does not."""
        if comparison.changed:
            files = _count(len(comparison.changed), "file")
            self.say(f"{files} came, went or changed meanwhile and could not be compared", "yellow")
        lines = [f"{path}: the task failed: {error}" for path, error in session.failures.items()]
        self._say_some([*lines, *comparison.differences])
        if session.killed_at is None:
            self.say("no worker was killed: with so few files none was found at work half way", "yellow")
        if comparison.equal:
            self.say(f"A plain walk of the folder agrees, on {_count(comparison.plain.files, 'file')}.", "bold green")
        else:
            self.say("A plain walk of the folder does not agree.", "bold red")

    def _say_some(self, lines: Sequence[str]) -> None:
        for line in lines[:_MOST_DIFFERENCES]:
            self.say(line, "red")
        if len(lines) > _MOST_DIFFERENCES:
            self.say(f"and {len(lines) - _MOST_DIFFERENCES:,} more", "red")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
