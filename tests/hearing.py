"""What tests of channels have in common: items are waited for, and accounts are made of them."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Self

from streamq.channels.envelope import Envelope
from streamq.channels.gaps import Gap

PATIENCE = 20.0  # seconds


async def take(listener: Any, number: int) -> list[Any]:
    """Wait for so many items."""
    async with asyncio.timeout(PATIENCE):
        return [await anext(listener) for _ in range(number)]


async def take_until(listener: Any, is_last: Callable[[Any], bool]) -> list[Any]:
    """Wait for an item that is the last, and return all up to it."""
    found: list[Any] = []
    async with asyncio.timeout(PATIENCE):
        while not found or not is_last(found[-1]):
            found.append(await anext(listener))
    return found


def payloads(items: Iterable[Any]) -> list[Any]:
    """Name what the messages among some items carry."""
    return [item.payload for item in items if isinstance(item, Envelope)]


def gaps(items: Iterable[Any]) -> list[Gap]:
    """Pick the gaps."""
    return [item for item in items if isinstance(item, Gap)]


def missed(items: Iterable[Any]) -> Counter[str | None]:
    """Count what the gaps say is missing, by sender."""
    found: Counter[str | None] = Counter()
    for gap in gaps(items):
        found[gap.sender] += gap.missed or 0
    return found


class Hearing:
    """Collects what a listener gives, in a thread of its own, for ``with``.

    Attributes:
        items: what came.
        error: what ended it.
    """

    def __init__(self, listener: Any) -> None:
        self.listener = listener
        self.items: list[Any] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="hearing", daemon=True)

    def _run(self) -> None:
        try:
            for item in self.listener:
                self.items.append(item)
        except BaseException as error:  # noqa: BLE001 - a test looks at it
            self.error = error

    def __enter__(self) -> Self:
        self.listener.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "close() does not end who waits"
