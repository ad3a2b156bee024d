"""What channels there are, for those who look at all of them."""

from __future__ import annotations

from dataclasses import dataclass

from streamq._redis.keys import Keys
from streamq.broker import census as calls
from streamq.broker.channels import note
from streamq.broker.walking import Steps


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A group of consumers of a durable channel.

    Attributes:
        name: its name.
        consumers: how many there are, also those that have gone and left messages.
        pending: messages that were handed to them and are not acknowledged.
        lag: messages that none of them has got; those that were removed count too.
    """

    name: str
    consumers: int
    pending: int
    lag: int


@dataclass(frozen=True, slots=True)
class ChannelInfo:
    """A channel.

    Attributes:
        name: its name.
        subscribers: connections that listen to it by its name; those that do by a pattern are not known.
        is_durable: its messages are kept.
        length: how many are.
        groups: of its consumers.
    """

    name: str
    subscribers: int
    is_durable: bool = False
    length: int = 0
    groups: tuple[GroupInfo, ...] = ()


def census(keys: Keys) -> Steps[list[ChannelInfo]]:
    """Look at all channels that somebody listens to, or that keep messages; sorted by name."""
    heard: dict[str, int] = {}
    prefix = len(keys.channel("").channel)
    for sharded in (False, True):
        channels: list[str] = yield calls.subscribed(keys, sharded=sharded)
        if channels:
            for channel, number in zip(channels, (yield calls.subscribers(channels, sharded=sharded)), strict=True):
                name = channel[prefix:].strip("{}")  # a sharded one has braces
                heard[name] = heard.get(name, 0) + number
    kept: list[str] = yield from _kept(keys)
    found = [ChannelInfo(name, number) for name, number in heard.items() if name not in kept]
    for name in kept:
        own = keys.channel(name)
        numbers: dict[str, int] = yield calls.numbers(own)
        groups = [
            GroupInfo(one.name, one.consumers, one.pending, numbers.get("n", 0) - numbers.get(f"g:{one.name}", 0))
            for one in (yield calls.groups(own))
        ]
        length: int = yield calls.length(own)
        found.append(ChannelInfo(name, heard.get(name, 0), is_durable=True, length=length, groups=tuple(groups)))
    return sorted(found, key=lambda one: one.name)


def _kept(keys: Keys) -> Steps[list[str]]:
    """List the durable channels; those whose log is gone are noted no more."""
    kept = []
    for name in (yield calls.noted(keys)):
        is_kept = yield calls.is_kept(keys.channel(name))
        if not is_kept:
            yield calls.strike(keys, name)
            # One whose first message came meanwhile may have been noted before it was struck out.
            if is_kept := (yield calls.is_kept(keys.channel(name))):
                yield note(keys, name)
        if is_kept:
            kept.append(name)
    return kept
