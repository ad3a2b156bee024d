"""What the processes of a worker begin with: the app that a command names, and an event loop."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from streamq.errors import ConfigError, StreamqError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from streamq.app import StreamQ

T = TypeVar("T")


def loop_factory() -> Callable[[], AbstractEventLoop] | None:
    """Return what makes the fastest event loop that there is; None: the interpreter's own."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


def run_on_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on the fastest event loop that there is."""
    import asyncio  # noqa: PLC0415 - see load_app

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main)


def load_app(target: str) -> StreamQ:
    """Import the app that `target` names, as ``module:attribute``; without attribute it is ``app``.

    The current folder is searched first, as ``python -m`` does.

    Raises:
        ConfigError: there is no such module or attribute, it fails to import, or it is not a `StreamQ`.
    """
    from streamq.app import StreamQ  # noqa: PLC0415 - the command line must answer --help quickly

    name, _, attribute = target.partition(":")
    attribute = attribute or "app"
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(name)
    except StreamqError as error:
        raise ConfigError(f"cannot import {name!r}: {error}") from error
    except Exception as error:
        raise ConfigError(f"cannot import {name!r}: {_reason(name, error)}") from error
    try:
        found: object = module
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise ConfigError(f"module {name!r} has no attribute {attribute!r}") from None
    if not isinstance(found, StreamQ):
        raise ConfigError(f"{name}:{attribute} is a {type(found).__name__}, not a StreamQ app")
    return found


def _reason(name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and name.startswith(error.name):
        return f"there is no module {error.name!r} in {os.getcwd()} or on the path"  # noqa: PTH109 - for people
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"
