"""What is stored of one task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from streamq.lifecycle import State
from streamq.progress import Progress, read_progress


@dataclass(frozen=True, slots=True)
class Record:
    """The stored truth about one task.

    Attributes:
        state: where the task is in its life.
        task: its registered name.
        body: the result or the error as JSON, when it has ended.
        ended_ms: Redis time of its end, ms.
        deaths: how many workers died under it.
        worker: who has it, while it runs.
        attempt: which attempt runs, is next, or was the last.
        failure: the stored error of the last attempt that failed and was to be tried again; empty: none was.
        moved_to: the queue where the task is now; None: this one.
        progress: how far it has last said to be; None: it has said nothing.
        out: the node whose value is its own, if it is a flow; None: it is none.
    """

    state: State
    task: str = ""
    body: bytes = b""
    ended_ms: int | None = None
    deaths: int = 0
    worker: str | None = None
    attempt: int = 1
    failure: bytes = b""
    moved_to: str | None = None
    progress: Progress | None = None
    out: int | None = None


def stored_error(kind: type[BaseException], message: str) -> bytes:
    """Make the stored form of an error of ours that was never raised, as `codec.encode_error` has it.

    Without pydantic: the supervisor, which comes here too, is too small for that.
    """
    name = f"{kind.__module__}.{kind.__qualname__}"
    error = {"type": name, "message": message, "args": None, "traceback": ""}
    return json.dumps(error, separators=(",", ":")).encode()


UNKNOWN = Record(State.UNKNOWN)


def read_record(fields: Sequence[bytes]) -> Record:
    """Make a record of the fields and values of its hash; none means that there is no record."""
    known = dict(zip(fields[::2], fields[1::2], strict=True))
    if b"state" not in known:
        return UNKNOWN
    ended = known.get(b"ended")
    return Record(
        state=State(known[b"state"].decode()),
        task=known.get(b"task", b"").decode(),
        body=known.get(b"result") or known.get(b"error") or b"",
        ended_ms=int(ended) if ended else None,
        deaths=int(known.get(b"deaths", 0)),
        attempt=int(known.get(b"attempt", 1)),
        failure=known.get(b"failure", b""),
        moved_to=known[b"moved_to"].decode() if b"moved_to" in known else None,
        progress=read_progress(known[b"progress"]) if b"progress" in known else None,
        out=int(known[b"out"]) if b"out" in known else None,
    )
