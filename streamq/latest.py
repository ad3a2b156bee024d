"""The broker of the app that was made last, for what belongs to no app."""

from __future__ import annotations

from streamq.broker.caller import Broker
from streamq.errors import ConfigError

_current: list[Broker] = []


def make_current(broker: Broker) -> None:
    """Have the tasks that belong to no app go through this broker."""
    _current[:] = [broker]


class LatestBroker:
    """Gives that broker as the attribute of a task that has none of its own, and costs one that has nothing."""

    def __get__(self, _task: object, _kind: type | None = None) -> Broker:
        """Give the broker."""
        return current_broker()


def current_broker() -> Broker:
    """Give that broker.

    Raises:
        ConfigError: there is no app.
    """
    if not _current:
        raise ConfigError("there is no app yet: make a StreamQ(...) before tasks of streamq.task are enqueued")
    return _current[0]
