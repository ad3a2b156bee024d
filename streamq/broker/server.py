"""Calls that concern a server or a connection, and no queue. Pure: nothing is sent here."""

from __future__ import annotations

from typing import Any

from streamq._redis.scripts import Call, nothing


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
