"""``app.on``: functions that are called when something happens, by a ``streamq listen``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from streamq.errors import ConfigError
from streamq.events.event import Event
from streamq.events.listening import Words, words_of
from streamq.events.wanted import Wanted

E = TypeVar("E", bound=Event)
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Handler:
    """A function, and the events for which it is called.

    Attributes:
        function: takes the event; async, or run in a thread.
        wanted: which events.
        is_async: it returns what is to be awaited.
    """

    function: Callable[[Any], Any]
    wanted: Wanted
    is_async: bool

    @property
    def name(self) -> str:
        """What logs call it."""
        return f"{self.function.__module__}.{getattr(self.function, '__qualname__', self.function)}"


class Handlers:
    """Registers the handlers of an app."""

    def __init__(self) -> None:
        self.all: list[Handler] = []

    @overload  # a class of events is one of any words too: the first that fits is meant
    def __call__(  # type: ignore[overload-overlap]
        self, kind: type[E], /, *, tasks: Words = ..., queues: Words = ...
    ) -> Callable[[Callable[[E], R]], Callable[[E], R]]: ...
    @overload
    def __call__(self, *types: str | type[Event], tasks: Words = ..., queues: Words = ...) -> Callable[[F], F]: ...
    def __call__(
        self, *types: str | type[Event], tasks: Words = (), queues: Words = ()
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Have a function called when something happens: ``@app.on("task.failed")``, ``@app.on(events.TaskFailed)``.

        It takes the event. It is called in the process of ``streamq listen MODULE:APP``, on its event loop if it is
        async, else in a thread. Several run at a time, so events of one task may be handled in another order than
        that in which they happened. What it raises is logged, and the event is not handled again.

        Args:
            types: such as ``task.failed``, ``failed``, ``worker.*``, or classes of events; none: all events.
            tasks: names of tasks; events of workers are left out.
            queues: names of queues; events of workers are left out.

        Raises:
            ConfigError: nothing can match them, or what is decorated is no function.
        """
        if types and not all(isinstance(one, str | type) for one in types):
            raise ConfigError("say which events call a handler: @app.on('task.failed')")
        wanted = Wanted(words_of(types), words_of(tasks), words_of(queues))

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            if not callable(function):
                raise ConfigError(f"a handler of events must be a function, not {function!r}")
            called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
            self.all.append(Handler(function, wanted, inspect.iscoroutinefunction(called)))
            return function

        return register

    def wanted(self) -> Wanted:
        """Return what at least one of them wants, or a little more."""
        every = [handler.wanted for handler in self.all]
        types = {word for wanted in every for word in wanted.types or ("*",)}
        tasks = {word for wanted in every for word in wanted.tasks or ("",)}
        queues = {word for wanted in every for word in wanted.queues or ("",)}
        return Wanted(
            () if "*" in types else tuple(sorted(types)),
            () if "" in tasks else tuple(sorted(tasks)),
            () if "" in queues else tuple(sorted(queues)),
        )
