"""How those wait who look at flows: the same steps for threads and for an event loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from streamq._redis.scripts import Call
from streamq._redis.steps import adrive, drive
from streamq.broker.caller import Broker
from streamq.channels.listener import Pause
from streamq.channels.signal import Signal
from streamq.errors import ResultTimeout

T = TypeVar("T")

Steps = Generator[Any, Any, T]
"""Gives calls to be answered, and pauses; returns what they come to."""

# A lost notification costs at most this many seconds.
_LOOK_AGAIN_SECONDS = 1.0

# Whoever is told of each node looks less often the more there is to look at.
_REST_SECONDS_A_NODE = 5e-6
_LONGEST_REST_SECONDS = 0.05


def finish(broker: Broker, steps: Steps[T], signal: Signal | None = None) -> T:
    """Do steps in this thread; pauses end when the signal is set."""
    woken = signal or Signal()

    def do(step: Call[Any] | Pause) -> Any:
        return woken.wait(step.seconds) if isinstance(step, Pause) else broker.sync.run(step)

    return drive(steps, do)


async def afinish(broker: Broker, steps: Steps[T], signal: Signal | None = None) -> T:
    """Do steps on this event loop, as `finish` does."""
    woken = signal or Signal()

    async def do(step: Call[Any] | Pause) -> Any:
        return await woken.await_(step.seconds) if isinstance(step, Pause) else await broker.on_loop.run(step)

    return await adrive(steps, do)


def listen(broker: Broker, flow_id: str, steps_of: Callable[[Signal], Steps[T]]) -> T:
    """Do steps that wait for what is told of a flow, by a signal that they get."""
    signal = Signal()
    with broker.doorbell.on_ring(flow_id, signal.set):
        return finish(broker, steps_of(signal), signal)


async def alisten(broker: Broker, flow_id: str, steps_of: Callable[[Signal], Steps[T]]) -> T:
    """Do steps that wait for what is told of a flow, as `listen` does."""
    signal = Signal()
    with broker.doorbell.on_ring(flow_id, signal.set):
        return await afinish(broker, steps_of(signal), signal)


class Patience:
    """For how long something is waited for.

    Args:
        timeout: seconds; None: for as long as it takes.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def pause(self, late: str) -> Pause:
        """Make the next pause; a lost notification costs no more than it.

        Raises:
            ResultTimeout: the time is over; it says `late`, and after how long.
        """
        if self._deadline is None:
            return Pause(_LOOK_AGAIN_SECONDS)
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise ResultTimeout(f"{late} after {self._timeout:g} s")
        return Pause(min(left, _LOOK_AGAIN_SECONDS))


def rest(signal: Signal, looked_at: float, size: int) -> Steps[None]:
    """Wait until it is worth looking again at so many nodes."""
    until = looked_at + min(size * _REST_SECONDS_A_NODE, _LONGEST_REST_SECONDS)
    while (left := until - time.monotonic()) > 0:
        signal.clear()
        yield Pause(left)
