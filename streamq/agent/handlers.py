"""The handlers of one agent, and which of them takes what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from streamq.agent.names import tasks
from streamq.agent.payloads import Read, reader_of
from streamq.channels.envelope import Envelope
from streamq.channels.gaps import Gap
from streamq.config import check_channel, check_name
from streamq.errors import ConfigError


def name_of(kind: Any) -> str:
    """Name a type of messages, as their senders do.

    Raises:
        ConfigError: it is neither a class nor a name.
    """
    if isinstance(kind, str):
        return kind
    if not isinstance(kind, type):
        raise ConfigError(f"messages are handled by their class, or by the name of their type, not by {kind!r}")
    return kind.__name__


@dataclass(frozen=True)
class Handler:
    """A function, and how its argument is made.

    Attributes:
        function: the user's.
        read: makes the payload.
        is_bare: it takes the payload alone.
    """

    function: Callable[[Any], Any]
    read: Read
    is_bare: bool = False

    def argument(self, message: Envelope[Any], payload: Any) -> Any:
        """Make what the function takes.

        Raises:
            ValueError: the payload does not fit; the text says where.
        """
        made = self.read(payload)
        if self.is_bare:
            return made
        every = {name: getattr(message, name) for name in Envelope.__slots__}
        return Envelope(**{**every, "payload": made})


class Handlers:
    """The handlers of one agent.

    Args:
        capabilities: of the agent.
    """

    def __init__(self, capabilities: tuple[str, ...]) -> None:
        self.on_gap: Callable[[Gap], Any] | None = None
        self._own = tuple(check_name("capability", one) for one in capabilities)
        self._messages: dict[str, Handler] = {}
        self._jobs: dict[tuple[str, str | None], Handler] = {}

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Those of the agent, and those of its handlers."""
        return tuple(dict.fromkeys([*self._own, *(asked for _, asked in self._jobs if asked is not None)]))

    def add(self, kind: Any, function: Callable[[Any], Any]) -> None:
        """Have a function handle messages of one type.

        Raises:
            ConfigError: another does, or the type cannot be used.
        """
        if kind is Gap:
            self.on_gap = function
            return
        name = name_of(kind)
        if name in self._messages:
            raise ConfigError(f"messages of type {name} have a handler already")
        self._messages[name] = Handler(function, reader_of(Any if isinstance(kind, str) else kind))

    def add_job(self, kind: Any, capability: str | None, function: Callable[[Any], Any]) -> None:
        """Have a function handle assignments of one type.

        Raises:
            ConfigError: another does, or the type or the capability cannot be used.
        """
        name = name_of(kind)
        if capability is not None:
            check_name("capability", capability)
        check_channel(tasks(name, capability))
        if (name, capability) in self._jobs:
            raise ConfigError(f"assignments of type {name} have a handler already")
        self._jobs[name, capability] = Handler(
            function, reader_of(Any if isinstance(kind, str) else kind), is_bare=True
        )

    def of_message(self, kind: str) -> Handler | None:
        """Find who handles messages of a type."""
        return self._messages.get(kind)

    def of_job(self, kind: str, capability: str | None) -> Handler | None:
        """Find who handles assignments of a type that ask for a capability, or for none."""
        found = self._jobs.get((kind, capability))
        return found or (self._jobs.get((kind, None)) if capability in self._own else None)

    @property
    def takes_jobs(self) -> bool:
        """There are some who handle assignments."""
        return bool(self._jobs)

    def job_channels(self) -> Iterator[tuple[str, Handler]]:
        """Give the durable channels of assignments that are taken, and who handles them."""
        asked = dict.fromkeys(self._jobs)
        asked |= dict.fromkeys(
            (kind, own) for kind, capability in self._jobs if capability is None for own in self._own
        )
        for kind, capability in asked:
            handler = self.of_job(kind, capability)
            if handler is not None:
                yield tasks(kind, capability), handler
