"""What concerns a server or a connection, and no queue. Pure: nothing is sent here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamq._redis.scripts import Call, nothing
from streamq.errors import BrokerRefused

_OLDEST_REDIS = 7


def client_id() -> Call[int]:
    """The server's number of the connection that this is sent over."""
    return Call(("CLIENT", "ID"), int)


def unblock(client: int) -> Call[None]:
    """End the blocking read of a connection as if its time were up; nothing is lost by that."""
    return Call(("CLIENT", "UNBLOCK", client), nothing)


def listeners(beacon: str) -> Call[bool]:
    """Whether anybody listens to events, and so is subscribed to the beacon."""
    return Call(("PUBSUB", "NUMSUB", beacon), _is_any)


def _is_any(reply: list[Any]) -> bool:
    return bool(reply[1])


def read_info(reply: bytes) -> dict[str, str]:
    """Read what INFO says."""
    pairs = (line.partition(":") for line in reply.decode().splitlines())
    return {name: value for name, colon, value in pairs if colon}


def server_info() -> Call[dict[str, str]]:
    """What kind of server this is."""
    return Call(("INFO", "server"), read_info)


def name_server(info: Mapping[str, str]) -> str:
    """Name a server by what it says of itself.

    Raises:
        BrokerRefused: it is too old: the scripts need what came with Redis 7.0, which each Valkey has.
    """
    version = info.get("redis_version", "0")
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    if int(version.partition(".")[0]) < _OLDEST_REDIS:
        raise BrokerRefused(f"this is Redis {version}; streamq needs Redis 7.0 or newer, or Valkey")
    return f"Redis {version}"
