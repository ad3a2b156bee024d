"""How dead letters are printed. Whatever stands in them, it can neither break a line nor command a terminal."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from streamq.cli.options import in_one_line, to_json

if TYPE_CHECKING:
    from streamq.inspector import DeadLetter


_ONE_LINE = 80  # longer arguments are spread over lines


class Table:
    """Aligns rows that come page by page: a column is as wide as the widest cell so far."""

    def __init__(self) -> None:
        self._widths = [0] * 5
        self._rows = [["died", "queue", "task", "id", "reason"]]

    def add(self, letter: DeadLetter) -> None:
        """Take a letter into the present page."""
        cells = (
            _time(letter.time),
            letter.queue,
            letter.task or "-",
            letter.task_id or letter.letter_id,
            letter.reason,
        )
        self._rows.append([in_one_line(cell) for cell in cells])

    def page(self) -> str:
        """Write the rows since the last page."""
        rows, self._rows = self._rows, []
        self._widths = [
            max(widths) for widths in zip(self._widths, *([len(cell) for cell in row] for row in rows), strict=True)
        ]
        return "\n".join("  ".join(map(str.ljust, row, [*self._widths[:-1], 0])) for row in rows)


def as_dict(letter: DeadLetter) -> dict[str, Any]:
    """Give what a list shows."""
    return {
        "queue": letter.queue,
        "letter_id": letter.letter_id,
        "died": letter.time.isoformat(timespec="milliseconds"),
        "task_id": letter.task_id,
        "task": letter.task,
        "reason": letter.reason,
        "error": {"type": letter.error.type, "message": letter.error.message},
        "worker": letter.worker,
        "attempt": letter.attempt,
        "deaths": letter.deaths,
        "enqueued": letter.enqueued_at and letter.enqueued_at.isoformat(timespec="milliseconds"),
        "unreadable": letter.unreadable,
    }


def as_whole_dict(letter: DeadLetter) -> dict[str, Any]:
    """Give all there is of a letter; what is no text has escapes."""
    known = as_dict(letter)
    known["error"]["traceback"] = letter.error.traceback
    if letter.unreadable is None:
        args = letter.args
        return {**known, "args": _text(args) if isinstance(args, bytes) else args}
    return {**known, "fields": [[_text(name), _text(value)] for name, value in letter.fields]}


def as_text(letter: DeadLetter) -> str:
    """Write all there is of a letter, for people."""
    facts = {
        "task": letter.task or "(its message could not be read)",
        "id": letter.task_id,
        "queue": letter.queue,
        "letter": letter.letter_id,
        "died": _time(letter.time),
        "enqueued": letter.enqueued_at and _time(letter.enqueued_at),
        "worker": letter.worker,
        "attempt": letter.unreadable is None and letter.attempt,
        "deaths": letter.deaths and f"{letter.deaths} (workers that died under it)",
        "reason": letter.reason,
    }
    lines = [f"{name + ':':<10} {in_one_line(str(value))}" for name, value in facts.items() if value]
    if letter.unreadable is None:
        indent = 2 if len(letter.raw_args) > _ONE_LINE else None
        args = letter.args
        lines += _block("arguments", _text(args) if isinstance(args, bytes) else to_json(args, indent=indent))
    else:
        lines.append(in_one_line(f"fields, for it {letter.unreadable}:"))
        lines += [in_one_line(f"  {_text(name)} = {_text(value)}") for name, value in letter.fields]
    error, trace = f"{letter.error.type}: {letter.error.message}".removeprefix(": "), letter.error.traceback.strip("\n")
    lines += _block("error", error) if error else []
    return "\n".join([*lines, "", *_lines(trace)] if trace not in {"", error} else lines)


def _block(name: str, text: str) -> list[str]:
    lines = _lines(text)
    return [f"{name + ':':<10} {lines[0]}"] if len(lines) == 1 else [f"{name}:", *lines]


def _lines(text: str) -> list[str]:
    return [in_one_line(line) for line in text.split("\n")]


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


def _time(time: datetime) -> str:
    return time.astimezone().isoformat(" ", timespec="seconds")
