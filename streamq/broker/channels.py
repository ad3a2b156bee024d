"""The calls of channels: what is published, and what is kept in logs. Pure: nothing is sent here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from streamq._redis.keys import ChannelKeys, Keys
from streamq._redis.scripts import Call, load, nothing
from streamq.checks import is_number, is_whole
from streamq.errors import ConfigError

_APPEND = load("channel_append")
_FETCH = load("channel_fetch")
_CLAIM = load("channel_claim")
_ACK = load("channel_ack")
_RELEASE = load("channel_release")

PAGE = 100  # messages that are read in one step


@dataclass(frozen=True)
class Retention:
    """How much of a channel is kept, at least; what is older goes.

    Attributes:
        length: messages; None: any number.
        age: seconds; None: for ever.

    Raises:
        ConfigError: one of them is no number above 0.
    """

    length: int | None = 10_000
    age: float | None = 24 * 3600.0

    def __post_init__(self) -> None:
        if self.length is not None and not (is_whole(self.length) and self.length > 0):
            raise ConfigError(f"max_length must be a whole number of 1 or more, or None, not {self.length!r}")
        if self.age is not None and not (is_number(self.age) and self.age > 0):
            raise ConfigError(f"max_age must be more than 0 seconds, or None, not {self.age!r}")

    @property
    def age_ms(self) -> int:
        """The age in ms; 0: for ever."""
        return 0 if self.age is None else max(1, round(self.age * 1000))


class Published(NamedTuple):
    """What came of a message.

    Attributes:
        heard: how many connections heard it; in a Redis Cluster, of those to the node that took it, which of a channel
            that is not sharded may be none, though others hear it.
        entry: its place in the log of a durable channel; None: it was not kept, or was sent again after so many others
            that its place is not known.
        is_first: the log was empty before; its name is to be noted.
    """

    heard: int
    entry: str | None = None
    is_first: bool = False


class Kept(NamedTuple):
    """A message in a log: its entry, its number, the message itself, and how often it was handed over."""

    entry: str
    number: int
    data: bytes
    deliveries: int = 1


class Batch(NamedTuple):
    """What a group has got, how many it has missed because they were removed before, and where a sweep goes on."""

    kept: list[Kept]
    missed: int
    cursor: str = "0-0"


def publish(keys: ChannelKeys, data: bytes, *, sharded: bool) -> Call[Published]:
    """Publish a message, and keep nothing of it."""
    return Call(("SPUBLISH" if sharded else "PUBLISH", keys.told(sharded=sharded), data), Published)


def append(
    keys: ChannelKeys,
    data: bytes,
    session: str,
    sequence: int,
    retention: Retention,
    *,
    sharded: bool,
    listed: bool = True,
) -> Call[Published]:
    """Put a message into the log of a channel and publish it; sending that again puts and publishes nothing more."""

    def read(reply: list[Any]) -> Published:
        entry, heard, is_first = reply
        return Published(heard, entry.decode() or None, bool(is_first) and listed)

    command = "SPUBLISH" if sharded else "PUBLISH"
    words = (keys.told(sharded=sharded), command, data, sequence, retention.length or 0, retention.age_ms)
    return Call(("EVALSHA", _APPEND.digest, 3, keys.log, keys.numbers, keys.sent(session), *words), read, _APPEND)


def _read_kept(entry: Sequence[Any], deliveries: int = 1) -> Kept | None:
    place, fields = entry
    named = dict(zip(fields[::2], fields[1::2], strict=True)) if fields else {}
    number = named.get(b"n", b"")
    return Kept(place.decode(), int(number) if number.isdigit() else 0, named.get(b"m", b""), deliveries)


def page(keys: ChannelKeys, first: str, last: str = "+") -> Call[list[Kept]]:
    """Read a page of the log; before an entry ``(`` means: from the next one on."""

    def read(reply: list[Any]) -> list[Kept]:
        return [kept for found in reply if (kept := _read_kept(found))]

    return Call(("XRANGE", keys.log, first, last, "COUNT", PAGE), read)


def end_of(keys: ChannelKeys, *, newest: bool) -> Call[Kept | None]:
    """Read the newest or the oldest message of a log; None: there is none."""

    def read(reply: list[Any]) -> Kept | None:
        return _read_kept(reply[0]) if reply else None

    words = ("XREVRANGE", keys.log, "+", "-") if newest else ("XRANGE", keys.log, "-", "+")
    return Call((*words, "COUNT", 1), read)


def fetch(keys: ChannelKeys, group: str, consumer: str, *, count: int, start: str, retention: Retention) -> Call[Batch]:
    """Take messages for a group that no other consumer of it has got; a new group begins after the entry `start`."""

    def read(reply: list[Any]) -> Batch:
        missed, entries = reply
        return Batch([kept for found in entries if (kept := _read_kept(found))], missed)

    words = (group, consumer, count, start, retention.age_ms)
    return Call(("EVALSHA", _FETCH.digest, 2, keys.log, keys.numbers, *words), read, _FETCH)


def claim(keys: ChannelKeys, group: str, consumer: str, *, lease_ms: int, cursor: str, count: int) -> Call[Batch]:
    """Take over messages whose consumer gave no sign of life for a lease, looking at a bounded number."""

    def read(reply: list[Any]) -> Batch:
        following, entries, deliveries, gone = reply
        pairs = zip(entries, deliveries, strict=True)
        return Batch([kept for found, times in pairs if (kept := _read_kept(found, times))], gone, following.decode())

    words = (group, consumer, lease_ms, cursor, count)
    return Call(("EVALSHA", _CLAIM.digest, 1, keys.log, *words), read, _CLAIM)


def ack(keys: ChannelKeys, group: str, consumer: str, entries: Sequence[str]) -> Call[list[str]]:
    """Acknowledge messages; returns those that are another consumer's by now."""

    def read(reply: list[bytes]) -> list[str]:
        return [entry.decode() for entry in reply]

    return Call(("EVALSHA", _ACK.digest, 1, keys.log, group, consumer, *entries), read, _ACK)


def release(keys: ChannelKeys, group: str, consumer: str, entries: Sequence[str], lease_ms: int) -> Call[None]:
    """Give messages back that this consumer will not handle."""
    return Call(("EVALSHA", _RELEASE.digest, 1, keys.log, group, consumer, lease_ms, *entries), nothing, _RELEASE)


def note(keys: Keys, name: str) -> Call[None]:
    """Note the name of a durable channel, for those who look at all of them."""
    return Call(("SADD", keys.channels, name), nothing)
