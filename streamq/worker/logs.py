"""Log lines of a worker process: those of a task, also the user's own, carry its id, name and attempt."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from streamq.context import running

_TEXT = "%(asctime)s %(levelname)-7s %(worker)s %(name)s: %(message)s%(task)s"


class _TaskFilter(logging.Filter):
    """Adds the worker and, inside a task, the task to each record; the arguments stay out: they may be secret."""

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        record.worker = self._worker
        found = running.get(None)
        record.task_id = record.task_name = record.attempt = None
        record.task = ""
        if found is not None:
            delivery = found[0]
            message = delivery.message
            record.task_id, record.task_name, record.attempt = message.id, message.task, delivery.attempt
            record.task = f" [{message.task} {message.id} attempt {delivery.attempt}]"
        return True


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "worker": getattr(record, "worker", None),
        }
        for name in ("task_id", "task_name", "attempt"):
            if (value := getattr(record, name, None)) is not None:
                line[name] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(worker: str, level: str, form: str) -> None:
    """Send the log of this process to standard error, as ``text`` or ``json``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_TaskFilter(worker))
    handler.setFormatter(_JsonFormatter() if form == "json" else logging.Formatter(_TEXT))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)
