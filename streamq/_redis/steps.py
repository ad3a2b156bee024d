"""Has steps done that are the same for threads and for an event loop: only what does one of them differs.

Steps are a generator. It gives what is to be done, gets what came of it, an error of ours where it stands, and returns
what all of it comes to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from streamq.errors import BrokerError

S = TypeVar("S")
T = TypeVar("T")


def drive(steps: Generator[S, Any, T], do: Callable[[S], Any]) -> T:
    """Do steps, and return what they return.

    Raises:
        BrokerError: one of them could not be done, and they do without it no further.
    """
    answer: Any = None
    while True:
        try:
            step = steps.throw(answer) if isinstance(answer, BrokerError) else steps.send(answer)
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            answer = None  # an error would hold itself, by its traceback
        try:
            answer = do(step)
        except BrokerError as error:
            answer = error


async def adrive(steps: Generator[S, Any, T], do: Callable[[S], Awaitable[Any]]) -> T:
    """Do steps, and return what they return, as `drive` does."""
    answer: Any = None
    while True:
        try:
            step = steps.throw(answer) if isinstance(answer, BrokerError) else steps.send(answer)
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            answer = None  # see above
        try:
            answer = await do(step)
        except BrokerError as error:
            answer = error
