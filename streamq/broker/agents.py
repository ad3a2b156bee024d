"""The calls of agents: who is there, and who has claimed what. Pure: nothing is sent here."""

from __future__ import annotations

from typing import Any, NamedTuple

from streamq._redis.keys import Keys
from streamq._redis.scripts import Call, load, nothing

_BEAT = load("presence_beat")
_LEAVE = load("presence_leave")
_LIST = load("presence_list")
_TAKE = load("claim_take")
_RENEW = load("claim_renew")
_RELEASE = load("claim_release")


class Present(NamedTuple):
    """One who is there: who it is, a JSON object, and until when that holds, Redis time in ms."""

    info: bytes
    until_ms: int


def beat(keys: Keys, channel: str, member: str, info: bytes, ttl_ms: int) -> Call[int]:
    """Note that one is there, tell all if that is new, and remove who is overdue; returns Redis time in ms."""
    words = (*keys.presence, keys.channel(channel).channel, member, info, ttl_ms)
    return Call(("EVALSHA", _BEAT.digest, 3, *words), int, _BEAT)


def leave(keys: Keys, channel: str, member: str) -> Call[None]:
    """Remove one who leaves, and tell it."""
    words = (*keys.presence, keys.channel(channel).channel, member)
    return Call(("EVALSHA", _LEAVE.digest, 3, *words), nothing, _LEAVE)


def present(keys: Keys, channel: str) -> Call[list[Present]]:
    """List who is there, and remove who is overdue."""

    def read(reply: list[Any]) -> list[Present]:
        return [Present(info, int(until)) for info, until in zip(reply[::2], reply[1::2], strict=True)]

    return Call(("EVALSHA", _LIST.digest, 3, *keys.presence, keys.channel(channel).channel), read, _LIST)


def take_claim(keys: Keys, name: str, token: str, ms: int) -> Call[str]:
    """Claim a name for a time if nobody has it; returns the token of who has it now."""
    return Call(("EVALSHA", _TAKE.digest, 1, keys.claim(name), token, ms), _text, _TAKE)


def renew_claim(keys: Keys, name: str, token: str, ms: int) -> Call[list[bytes]]:
    """Have a claim last for a time from now on; returns its token if it is lost, as those of leases do."""

    def read(reply: int) -> list[bytes]:
        return [] if reply else [token.encode()]

    return Call(("EVALSHA", _RENEW.digest, 1, keys.claim(name), token, ms), read, _RENEW)


def release_claim(keys: Keys, name: str, token: str) -> Call[bool]:
    """End a claim; False: it was not that of this token any more."""
    return Call(("EVALSHA", _RELEASE.digest, 1, keys.claim(name), token), bool, _RELEASE)


def claim_holder(keys: Keys, name: str) -> Call[str]:
    """Read the token of who has claimed a name; empty: nobody has."""
    return Call(("GET", keys.claim(name)), _text)


def _text(reply: bytes | None) -> str:
    return (reply or b"").decode()
