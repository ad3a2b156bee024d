"""Enqueues tasks as a program of a user does, and remembers what was acknowledged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from streamq.config import Durability
from streamq.errors import BrokerError
from streamq.tasks import Task

_AGAIN_SECONDS = 60.0
_PAUSE_SECONDS = 0.05  # after an error


class Order(NamedTuple):
    """A call to be enqueued: a task of `app` by the name of its function, its arguments, and how it is sent.

    Or a flow, by the name of the function of `app` that makes it.
    """

    task: str
    args: tuple[Any, ...] = ()
    countdown: float | None = None
    durability: Durability | None = None


class Sent(NamedTuple):
    """A call that was tried, for the first time `at` this time of this machine's clock."""

    order: Order
    at: float


class Producer:
    """Enqueues from several threads.

    Args:
        app: the module of the tasks.
        prefix: of the ids.

    Attributes:
        acknowledged: ids of the tasks whose enqueue returned.
        sent: by id, what was tried.
        errors: by type, how often an enqueue raised; it was sent again under the same id, as the manual says.
    """

    def __init__(self, app: Any, prefix: str = "t") -> None:
        self.acknowledged: list[str] = []
        self.sent: dict[str, Sent] = {}
        self.errors: list[str] = []
        self._app = app
        self._prefix = prefix
        self._threads: list[threading.Thread] = []
        self._count = 0

    def send(self, orders: Iterable[Order]) -> list[str]:
        """Enqueue calls, one after the other; returns their ids."""
        ids = []
        for order in orders:
            self._count += 1
            ids.append(f"{self._prefix}{self._count}")
            self._send_one(order, ids[-1])
        return ids

    def begin(self, orders: Sequence[Order], *, seconds: float, threads: int = 4) -> None:
        """Enqueue calls over a span of time, while the caller does something else."""
        first, self._count = self._count, self._count + len(orders)
        began = time.monotonic()

        def produce(offset: int) -> None:
            for number in range(offset, len(orders), threads):
                pause = began + seconds * number / len(orders) - time.monotonic()
                time.sleep(max(0.0, pause))
                self._send_one(orders[number], f"{self._prefix}{first + number + 1}")

        self._threads += [threading.Thread(target=produce, args=(n,), daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def _send_one(self, order: Order, task_id: str) -> None:
        deadline = time.monotonic() + _AGAIN_SECONDS
        send = self._sender(order, task_id)
        self.sent[task_id] = Sent(order, time.time())
        while time.monotonic() < deadline:
            try:
                send()
            except BrokerError as error:
                self.errors.append(type(error).__name__)
                time.sleep(_PAUSE_SECONDS)
            else:
                self.acknowledged.append(task_id)
                return

    def _sender(self, order: Order, task_id: str) -> Callable[[], object]:
        called = getattr(self._app, order.task)
        if not isinstance(called, Task):
            return called(*order.args).set(task_id=task_id).delay
        sender = called.using(task_id=task_id, countdown=order.countdown, durability=order.durability)
        return lambda: sender.delay(*order.args)

    @property
    def is_busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        """Wait until all that was begun is sent."""
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def close(self) -> None:
        """Close its connections."""
        self._app.app.close()
