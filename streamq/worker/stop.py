"""The wish that a worker process stops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable


class Stop:
    """A wish to stop, and perhaps to do so at once. Set from signal handlers, and by what the supervisor says.

    That a signal comes again is no reason to hurry: service managers signal all processes of a service, and the
    supervisor passes on what it got itself. Whether there is a reason is for the supervisor to say.

    Attributes:
        before_quitting: called first when the wish is that of a SIGQUIT.
    """

    before_quitting: Callable[[], None] | None = None

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def ask(self) -> None:
        """Ask, from any thread or from a signal handler."""
        self._soon(self.asked.set)

    def hurry(self) -> None:
        """Ask for a stop without grace time; on the event loop."""
        self.asked.set()
        self.at_once.set()

    def quit(self) -> None:
        """Show where everything is, and ask for a stop without grace time; from a signal handler."""
        if self.before_quitting is not None:
            self.before_quitting()
        self._soon(self.hurry)

    def orphaned(self) -> None:
        """Note that the supervisor is gone: reason to stop, but not to hurry."""
        self.asked.set()

    def _soon(self, wish: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: we are as good as gone
            self._loop.call_soon_threadsafe(wish)
