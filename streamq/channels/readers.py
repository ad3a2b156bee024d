"""Makes messages and gaps of what was heard on channels, or lies in their logs."""

from __future__ import annotations

import logging
import time
from typing import Any, TypeVar

from pydantic_core import from_json

from streamq._redis.keys import ChannelKeys
from streamq.broker import channels as calls
from streamq.broker.channels import Kept
from streamq.channels.buffer import Counts, Missing
from streamq.channels.envelope import Envelope, EnvelopeCodec
from streamq.channels.gaps import Gap, Sequences, moment
from streamq.channels.listener import Reader, Steps, insist

T = TypeVar("T")

_log = logging.getLogger("streamq.channels")
_QUIET_SECONDS = 60.0  # after a complaint about a channel


class Complaints:
    """Logs what is no message, once a minute for each channel.

    Args:
        what: it is not.
    """

    def __init__(self, what: str = "message") -> None:
        self._what = what
        self._next: dict[str, float] = {}

    def skip(self, channel: str, reason: str, counts: Counts) -> None:
        """Note one that is skipped."""
        counts.unreadable += 1
        now = time.monotonic()
        if now >= self._next.get(channel, 0.0):
            self._next[channel] = now + _QUIET_SECONDS
            _log.warning(
                "skipped what is no %s on channel %s: %s (%d so far)", self._what, channel, reason, counts.unreadable
            )


def tell(gap: Gap, *, gives: bool) -> list[Gap]:
    """Give a gap, or log it."""
    if gives:
        return [gap]
    _log.warning("messages are missing: %s", gap)
    return []


def session_of(data: bytes) -> bytes:
    """Name the session that a message is of; empty: it cannot be told."""
    try:
        session = from_json(data)["session"]
    except (ValueError, TypeError, KeyError):
        return b""
    return session.encode() if isinstance(session, str) else b""


class LiveReader(Reader[Envelope[T] | Gap]):
    """Reads what is published, and finds holes by the numbers that senders give.

    Args:
        codec: of the channel.
        gaps: whether gaps are given; they are logged otherwise.
        prefix: that of the server's names of channels.
    """

    def __init__(self, codec: EnvelopeCodec[T], prefix: str, *, gaps: bool) -> None:
        self._codec = codec
        self._prefix = len(prefix)
        self._gaps = gaps
        self._sequences = Sequences()
        self._complaints = Complaints()
        self._last_entry: str | None = None

    def origin(self, data: bytes) -> bytes:
        """Name the session that a message is of."""
        return session_of(data)

    def read(self, channel: bytes, data: bytes, counts: Counts) -> list[Envelope[T] | Gap]:
        """Make a message, and a gap before it if its sender's numbers have a hole."""
        try:
            message = self._codec.decode(data)
        except ValueError as error:
            self._complaints.skip(self._name(channel), str(error), counts)
            return []
        since = self._sequences.last_time(message.channel, message.session)
        hole = self._sequences.note(message.channel, message.session, message.sequence, message.time_ms)
        if hole < 0:
            counts.repeated += 1
            return []
        before, self._last_entry = self._last_entry, message.entry or self._last_entry
        if not hole:
            return [message]
        gap = Gap("sequence", hole, message.sender, message.channel, since, before)
        return [*self._told(gap), message]

    def missing(self, gap: Missing) -> list[Envelope[T] | Gap]:
        """Say that the connection was lost, or of whom messages were dropped."""
        found: list[Envelope[T] | Gap] = []
        if gap.reason == "reconnected":  # what was dropped beside it is told of by itself
            found += self._told(Gap("reconnected", since=moment(gap.since), after=self._last_entry))
        for (channel, session), (dropped, data) in gap.last.items():
            try:
                last = self._codec.decode(data)
            except ValueError:
                found += self._told(Gap("overflow", dropped, None, self._name(channel), moment(gap.since)))
                continue
            name = session.decode()
            since = self._sequences.last_time(last.channel, name)
            hole = self._sequences.note(last.channel, name, last.sequence, last.time_ms)
            if hole >= 0:
                missed = dropped if since is None else hole + 1
                found += self._told(
                    Gap("overflow", missed, last.sender, last.channel, since or moment(gap.since), self._last_entry)
                )
        return found

    def _name(self, channel: bytes) -> str:
        return channel.decode("utf-8", "backslashreplace")[self._prefix :].strip("{}")  # a sharded one has braces

    def _told(self, gap: Gap) -> list[Gap]:
        return tell(gap, gives=self._gaps)


class LogReader(Reader[Envelope[T] | Gap]):
    """Reads what is published and also kept: what was missed is got from the log, in order, and nothing comes twice.

    Args:
        codec: of the channel.
        keys: of the channel.
        after: the entry, or the time in ms, after which to begin; None: with what is published from now on.
        gaps: whether gaps are given; they are logged otherwise.
        until_now: come to the end when all is read that is there.
    """

    def __init__(
        self, codec: EnvelopeCodec[T], keys: ChannelKeys, after: str | None, *, gaps: bool, until_now: bool = False
    ) -> None:
        self._codec = codec
        self._keys = keys
        self._last = after
        self._number: int | None = None
        self._time_ms = 0
        self._trimmed = False
        self._gaps = gaps
        self._until_now = until_now
        self._complaints = Complaints()
        self._counts = Counts()
        self.is_behind = True

    def read(self, _channel: bytes, data: bytes, counts: Counts) -> list[Envelope[T] | Gap]:
        """Make a message if it is the next one; else what is between is got from the log, and this one as well."""
        self._counts = counts
        try:
            message = self._codec.decode(data)
        except ValueError as error:
            self._complaints.skip(self._keys.name, str(error), counts)
            self.is_behind = self.is_behind or b'"number":' in data  # of what is kept, the log has the number
            return []
        if message.entry is None or message.number is None:
            return [message]  # from one who does not keep what he publishes
        if self.is_behind or (self._last is not None and _order(message.entry) <= _order(self._last)):
            return []
        before = self._number if self._number is not None and message.number > self._number else 0  # it begins anew
        if message.number > before + 1:
            self.is_behind = True
            return []
        self._last, self._number, self._time_ms = message.entry, message.number, message.time_ms
        return [message]

    def missing(self, _gap: Missing) -> list[Envelope[T] | Gap]:
        """Have it got from the log."""
        self.is_behind = True
        return []

    def begin(self) -> Steps[Envelope[T] | Gap]:
        """Look where to begin, and whether what stood there has been removed."""
        if self._last is None:
            newest: Kept | None = yield from insist(calls.end_of(self._keys, newest=True))
            self._last, self._number = (newest.entry, newest.number) if newest else ("0-0", 0)
            self.is_behind = False
            return []
        oldest: Kept | None = yield from insist(calls.end_of(self._keys, newest=False))
        here: list[Kept] = yield from insist(calls.page(self._keys, self._last, self._last))
        if here:
            self._number = here[0].number
        elif oldest is not None and oldest.number > 1 and _order(oldest.entry) > _order(self._last):
            self._trimmed = True
        return []

    def catch_up(self) -> Steps[Envelope[T] | Gap]:
        """Read the next page of the log."""
        page: list[Kept] = yield from insist(calls.page(self._keys, f"({self._last}"))
        if not page:
            self.is_behind = False
            return None if self._until_now else []
        found: list[Envelope[T] | Gap] = []
        for kept in page:
            found += self._of_log(kept)
        return found

    def _of_log(self, kept: Kept) -> list[Envelope[T] | Gap]:
        found: list[Envelope[T] | Gap] = []
        missed = None if self._number is None else kept.number - self._number - 1
        if self._trimmed or (missed is not None and missed > 0):
            since = moment(self._time_ms / 1000) if self._time_ms else None
            gap = Gap("trimmed", missed, None, self._keys.name, since, self._last)
            self._trimmed = False
            found += tell(gap, gives=self._gaps)
        self._last, self._number = kept.entry, kept.number
        try:
            message = kept_message(self._codec, kept)
        except ValueError as error:
            self._complaints.skip(self._keys.name, str(error), self._counts)
            return found
        self._time_ms = message.time_ms
        return [*found, message]


def kept_message(codec: EnvelopeCodec[T], kept: Kept) -> Envelope[T]:
    """Make a message of what lies in a log.

    Raises:
        ValueError: it is none.
    """
    message: Any = codec.decode(kept.data)
    for name in ("entry", "number", "deliveries"):
        object.__setattr__(message, name, getattr(kept, name))  # nobody has seen it yet
    read: Envelope[T] = message
    return read


def _order(entry: str) -> tuple[int, int]:
    ms, _, nth = entry.partition("-")
    return int(ms), int(nth or 0)
