"""What is missing: a listener is told so, since Pub/Sub itself loses messages without a word."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

Reason = Literal["reconnected", "sequence", "overflow", "trimmed"]

_MOST_SESSIONS = 10_000  # that are remembered; of one that is forgotten a hole may go unseen


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages are missing here, in the order in which they would have come.

    Attributes:
        reason: ``reconnected``: the connection was lost, and is there again; how many messages came meanwhile is not
            known, and those that are noticed follow as ``sequence``. ``sequence``: a sender's numbers have a hole.
            ``overflow``: the listener was too slow, and its buffer full. ``trimmed``: they were removed from the log
            of a durable channel, by its retention, before they were read.
        missed: how many; None: not known.
        sender: whose they are; None: not known, or of several.
        channel: where they were published; None: any of those that are listened to.
        since: the time after which they were published: that of the last message before them, or of the loss.
        after: the last entry before them, in the log of a durable channel; None: not known.
    """

    reason: Reason
    missed: int | None = None
    sender: str | None = None
    channel: str | None = None
    since: datetime | None = None
    after: str | None = None


def moment(seconds: float) -> datetime:
    """Make a time of Unix time, s."""
    return datetime.fromtimestamp(seconds, UTC)


class Sequences:
    """Compares the numbers that senders give their messages, for one listener."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

    def note(self, channel: str, session: str, sequence: int, time_ms: int) -> int:
        """Note a message.

        Returns:
            How many of the same session are missing before it; -1: it was here before.
        """
        key = (channel, session)
        last = self._last.get(key)
        if last is not None and sequence <= last[0]:
            return -1
        self._last[key] = (sequence, time_ms)
        if last is None:
            if len(self._last) > _MOST_SESSIONS:
                self._last.popitem(last=False)
            return 0
        self._last.move_to_end(key)
        return sequence - last[0] - 1

    def last_time(self, channel: str, session: str) -> datetime | None:
        """Return the time of the last message that was noted of a session; None: none was."""
        last = self._last.get((channel, session))
        return None if last is None else moment(last[1] / 1000)
