"""What an agent takes: its handlers, by the types of messages and of assignments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar, overload

from streamq.agent.handlers import Handlers
from streamq.channels.envelope import Envelope
from streamq.channels.gaps import Gap
from streamq.config import check_channel

T = TypeVar("T")
R = TypeVar("R")


class Taker(ABC):
    """Has handlers, which are added before it runs.

    Args:
        capabilities: what it can do beside what its handlers say.
    """

    def __init__(self, capabilities: tuple[str, ...]) -> None:
        self._handlers = Handlers(capabilities)
        self._followed: list[str] = []

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What it can do: what was said, and what its handlers take."""
        return self._handlers.capabilities

    @abstractmethod
    def _check_rest(self) -> None:
        """Raise `ConfigError` if it is running."""

    @overload
    def on(  # type: ignore[overload-overlap]  # a gap comes without an envelope
        self, kind: type[Gap]
    ) -> Callable[[Callable[[Gap], R]], Callable[[Gap], R]]: ...
    @overload
    def on(self, kind: str) -> Callable[[Callable[[Envelope[Any]], R]], Callable[[Envelope[Any]], R]]: ...
    @overload
    def on(self, kind: type[T]) -> Callable[[Callable[[Envelope[T]], R]], Callable[[Envelope[T]], R]]: ...
    def on(self, kind: Any) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
        """Have a function handle messages of one type: those sent to this agent, and those told to all.

        What it returns is the reply, if the message is a request; what it raises, the error of who has asked. A
        message that was sent is acknowledged when its handler has ended, either way; if the process dies before, it
        is handled again, by another instance or by the next of this name, three times at most.

        Args:
            kind: the class of their payloads, whose name their senders give as type; or a type by its name: then the
                payload is what JSON has. `Gap`: the function is told where messages are missing.

        Raises:
            ConfigError: messages of this type have a handler, the type cannot be used, or the agent is running.
        """
        self._check_rest()

        def add(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
            self._handlers.add(kind, function)
            return function

        return add

    @overload
    def takes(
        self, kind: str, *, capability: str | None = ...
    ) -> Callable[[Callable[[Any], R]], Callable[[Any], R]]: ...
    @overload
    def takes(
        self, kind: type[T], *, capability: str | None = ...
    ) -> Callable[[Callable[[T], R]], Callable[[T], R]]: ...
    def takes(
        self, kind: Any, *, capability: str | None = None
    ) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
        """Have a function do what is assigned, if it is of one type; it takes the payload, and returns the result.

        Args:
            kind: the class of the payloads, or their type by its name.
            capability: only what asks for this one. None: what asks for none, or for one of the agent's.

        Raises:
            ConfigError: such assignments have a handler, one of them cannot be used, or the agent is running.
        """
        self._check_rest()

        def add(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
            self._handlers.add_job(kind, capability, function)
            return function

        return add

    def follow(self, channel: str) -> None:
        """Have messages of another channel handled as well, or of a pattern such as ``agent:*:events``.

        What this agent itself publishes there is skipped.

        Raises:
            ConfigError: the name cannot be used, or the agent is running.
        """
        self._check_rest()
        check_channel(channel, pattern=True)
        self._followed.append(channel)
