"""What an enqueue can ask for beyond Redis's own word: that a replica has it, or the disk.

WAIT and WAITAOF answer for what was written before them on the same socket, and for nothing else. So they are sent over
it together with the scripts, and a script that finds its message there already writes again what it finds: sent anew
after a lost reply, on a new socket that has written nothing yet, they would confirm at once whatever had happened.
"""

from __future__ import annotations

import contextlib
from typing import Any

from streamq._redis.connections import SyncConnection
from streamq._redis.scripts import Call, nothing
from streamq.config import Durability
from streamq.errors import BrokerError, BrokerRefused, BrokerUnavailable

CONFIRM_SECONDS = 3.0  # below the time that a connection waits for a reply, and above that between two fsyncs
_CONFIRM_MS = round(CONFIRM_SECONDS * 1000)

_NEEDS = {
    "replica": "a server that allows WAIT",
    "fsync": "a server with WAITAOF, as Redis since 7.2 and Valkey, with appendonly on, appendfsync not off",
}


def ability(durability: Durability) -> Call[None]:
    """Ask whether the server can confirm such writes at all; it answers at once, with an error if not."""
    return Call(("WAITAOF", 1, 0, 1) if durability == "fsync" else ("WAIT", 0, 1), nothing)


def confirmation(durability: Durability) -> Call[str]:
    """Ask to confirm what this socket has written; returns what is missing, or nothing.

    Answers after at most `CONFIRM_SECONDS`.
    """

    def read(reply: Any) -> str:
        if durability == "fsync":
            return "" if reply[0] >= 1 else f"no fsync within {CONFIRM_SECONDS:g} s"
        return "" if reply >= 1 else f"no replica has it after {CONFIRM_SECONDS:g} s"

    return Call(("WAITAOF", 1, 0, _CONFIRM_MS) if durability == "fsync" else ("WAIT", 1, _CONFIRM_MS), read)


def fsync_policy() -> Call[str]:
    """Ask when the server syncs its append-only file; "no" is never, so that it would never confirm it either."""
    return Call(("CONFIG", "GET", "appendfsync"), lambda reply: reply[1].decode() if reply else "")


def require(connection: SyncConnection, durability: Durability) -> None:
    """See to it that the server can confirm such writes.

    Raises:
        BrokerRefused: it cannot.
    """
    needs = f"durability={durability!r} needs {_NEEDS[durability]}; nothing was enqueued"
    try:
        connection.run(ability(durability))
    except BrokerUnavailable:
        raise
    except BrokerError as error:
        raise BrokerRefused(f"{needs}: {error}") from error.__cause__
    policy = ""
    if durability == "fsync":
        with contextlib.suppress(BrokerError):  # managed servers forbid CONFIG
            policy = connection.run(fsync_policy())
    if policy == "no":
        raise BrokerRefused(f"{needs}: appendfsync is 'no'")
