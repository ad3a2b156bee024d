"""The calls that pause a queue. Pure: nothing is sent here."""

from __future__ import annotations

from streamq._redis.keys import QueueKeys
from streamq._redis.scripts import Call, load

_PAUSE = load("pause")


def pause(queue: QueueKeys) -> Call[bool]:
    """Have nobody fetch from a queue; False if it was paused already."""
    return Call(("EVALSHA", _PAUSE.digest, 1, queue.paused), bool, _PAUSE)


def resume(queue: QueueKeys) -> Call[bool]:
    """End the pause of a queue; False if there was none."""
    return Call(("DEL", queue.paused), bool)
