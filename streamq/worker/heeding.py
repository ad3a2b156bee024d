"""What the options of a message say, and what follows from them before it is run."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from streamq.broker.records import stored_error
from streamq.errors import StreamqError, TaskExpired
from streamq.lifecycle import Expired, Outcome, Rejected
from streamq.sending import read_steering
from streamq.worker.clock import now_ms
from streamq.worker.holdings import Run

_log = logging.getLogger("streamq.task")


def heed(run: Run) -> Outcome | None:
    """Note what the options of its message say of a run; returns the outcome of one that is not to begin."""
    delivery = run.delivery
    try:
        run.expires_ms = read_steering(delivery.message.options).expires_at(delivery.enqueued_ms)
        if not run.expires_ms > 0:
            raise ValueError(f"they expire at {run.expires_ms}")  # noqa: TRY301 - as what else is wrong with them
    except (ValueError, TypeError, RecursionError) as error:
        text = f"its options cannot be read: {error}"
        return Rejected(stored_error(StreamqError, text), text)
    return expiry(run)


def expiry(run: Run) -> Expired | None:
    """Return the outcome of a run to which a worker has come too late."""
    if run.expires_ms > now_ms():
        return None
    moment = datetime.fromtimestamp(run.expires_ms / 1000, UTC).isoformat(timespec="milliseconds")
    _log.info("%s has expired: it was to begin before %s", run.delivery.message.task, moment)
    return Expired(stored_error(TaskExpired, f"it had not begun by {moment}"))
