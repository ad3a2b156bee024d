"""The calls of those who look at all channels. Pure: nothing is sent here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from streamq._redis.keys import ChannelKeys, Keys
from streamq._redis.scripts import Call, nothing


def subscribed(keys: Keys, *, sharded: bool) -> Call[list[str]]:
    """List the channels that somebody listens to by name, as the server calls them; of a cluster those of one node."""

    def read(reply: list[bytes]) -> list[str]:
        return [name.decode("utf-8", "backslashreplace") for name in reply]

    return Call(("PUBSUB", "SHARDCHANNELS" if sharded else "CHANNELS", f"{keys.channel('').channel}*"), read)


def subscribers(channels: Sequence[str], *, sharded: bool) -> Call[list[int]]:
    """Count the connections that listen to channels by their names."""
    return Call(("PUBSUB", "SHARDNUMSUB" if sharded else "NUMSUB", *channels), lambda reply: reply[1::2])


def noted(keys: Keys) -> Call[list[str]]:
    """List the names of the durable channels that were noted."""
    return Call(("SMEMBERS", keys.channels), lambda reply: sorted(name.decode() for name in reply))


def strike(keys: Keys, name: str) -> Call[None]:
    """Note no more that a channel is durable."""
    return Call(("SREM", keys.channels, name), nothing)


def is_kept(keys: ChannelKeys) -> Call[bool]:
    """Tell whether a channel has a log."""
    return Call(("EXISTS", keys.log), bool)


def time_left(keys: ChannelKeys) -> Call[int | None]:
    """Find for how long a log is still there if nothing comes, ms; below 0: there is none; None: for ever."""
    return Call(("PTTL", keys.log), lambda reply: None if reply == -1 else reply)


def length(keys: ChannelKeys) -> Call[int]:
    """Count the messages in a log."""
    return Call(("XLEN", keys.log), int)


def numbers(keys: ChannelKeys) -> Call[dict[str, int]]:
    """Read how many messages were ever put into a log, ``n``, and, as ``g:GROUP``, the last that each group has got."""

    def read(reply: list[bytes] | dict[bytes, bytes]) -> dict[str, int]:
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
        return {name.decode(): int(number) for name, number in pairs}

    return Call(("HGETALL", keys.numbers), read)


class Group(NamedTuple):
    """A group of consumers: its name, how many they are, and how many messages they have and have not handled."""

    name: str
    consumers: int
    pending: int


def groups(keys: ChannelKeys) -> Call[list[Group]]:
    """List the groups of a log, which must be there."""

    def read(reply: list[Any]) -> list[Group]:
        found = []
        for one in reply:
            named = dict(zip(one[::2], one[1::2], strict=True)) if isinstance(one, list) else one
            found.append(Group(named[b"name"].decode(), named[b"consumers"], named[b"pending"]))
        return found

    return Call(("XINFO", "GROUPS", keys.log), read)
