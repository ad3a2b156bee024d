"""Cancels many tasks at once: those that fit what is said of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from streamq.broker.caller import Broker
from streamq.broker.cancels import Canceller, Seen, count, walk
from streamq.broker.walking import Steps, acomplete, complete
from streamq.choosing import checked_time, compiled, moment_ms
from streamq.config import check_name
from streamq.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Choice:
    """Which tasks are meant: those that fit all that is said.

    Attributes:
        queues: the names of their queues; None: any.
        task: a pattern of their name; None: any.
        older_than: they were enqueued at least so many seconds ago, or not after this time; None: at any.
        running: also those that workers have.
    """

    queues: tuple[str, ...] | None = None
    task: re.Pattern[str] | None = None
    older_than: float | datetime | None = None
    running: bool = False

    def fits(self, seen: Seen, now_ms: int) -> bool:
        """Tell whether a task of one of the queues is meant."""
        if self.task is not None and self.task.fullmatch(seen.task) is None:
            return False
        return self.older_than is None or seen.enqueued_ms <= moment_ms(self.older_than, now_ms)


def choose(
    *,
    task: str | None = None,
    queue: str | Iterable[str] | None = None,
    older_than: float | datetime | None = None,
    running: bool = False,
    everything: bool = False,
) -> Choice:
    """Say which tasks are meant.

    Raises:
        ConfigError: one of them cannot be used, or nothing says which tasks are meant.
    """
    if not everything and task is None and queue is None and older_than is None:
        raise ConfigError("say which tasks: by task=, queue= or older_than=, or everything=True")
    names = None if queue is None else [queue] if isinstance(queue, str) else queue
    return Choice(
        queues=None if names is None else tuple(dict.fromkeys(check_name("queue", name) for name in names)),
        task=None if task is None else compiled("task", task),
        older_than=None if older_than is None else checked_time("older_than", older_than),
        running=running,
    )


class Cancellation:
    """Goes through all that waits, and cancels what is meant.

    Args:
        broker: where it waits.
        choice: which tasks are meant.
    """

    def __init__(self, broker: Broker, choice: Choice) -> None:
        self._broker = broker
        self._choice = choice

    def _cancel(self, on_progress: Callable[[int], None] | None) -> Steps[int]:
        deal = Canceller(self._broker.keys.done, self._broker.ttl_ms, running=self._choice.running)
        return walk(self._broker.keys, self._choice.queues, self._choice.fits, deal, on_progress)

    def count(self) -> int:
        """Count the tasks that are meant, those that workers have with them, and leave them alone.

        Raises:
            BrokerError: Redis cannot be asked.
        """
        return complete(self._broker.sync, walk(self._broker.keys, self._choice.queues, self._choice.fits, count))

    def run(self, on_progress: Callable[[int], None] | None = None) -> int:
        """Cancel; returns how many were. `on_progress` is called with how many are so far, after each step.

        Raises:
            BrokerError: Redis does not do what is asked. What was cancelled stays so.
        """
        return complete(self._broker.sync, self._cancel(on_progress))

    async def arun(self, on_progress: Callable[[int], None] | None = None) -> int:
        """Cancel, as `run` does."""
        return await acomplete(self._broker.on_loop, self._cancel(on_progress))
