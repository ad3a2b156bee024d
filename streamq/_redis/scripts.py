"""Lua scripts and the calls that run them.

A `Call` is a value: the words of one command and how to read its reply. Building it is pure, so sync and async callers
share everything but the last line, which sends it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Word = str | bytes | int | float

_INCLUDE = re.compile(r"^--@include (\w+)$", re.MULTILINE)
_SCRIPT = re.compile(r"^--@script (\w+)$", re.MULTILINE)
_FOLDER = files(__package__) / "lua"


@dataclass(frozen=True, slots=True)
class Script:
    """The text of one script, and the digest under which servers keep it."""

    name: str
    text: str
    digest: str


def load(name: str) -> Script:
    """Read ``lua/<name>.lua``, with what it includes put in place: parts of scripts, and scripts that it runs whole."""
    text = _SCRIPT.sub(
        lambda found: (_FOLDER / f"{found[1]}.lua").read_text("utf-8").partition("\n")[2].rstrip(),
        (_FOLDER / f"{name}.lua").read_text("utf-8"),
    )
    text = _with_parts(text)
    # Servers name scripts by their SHA-1; nothing secret depends on it.
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _with_parts(text: str) -> str:
    return _INCLUDE.sub(lambda found: _with_parts((_FOLDER / f"_{found[1]}.lua").read_text("utf-8").rstrip()), text)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One command to send.

    Attributes:
        words: the command's words; those of a script begin with EVALSHA and its digest.
        parse: turns the reply into a value.
        script: for a server that does not have it yet.
    """

    words: Sequence[Word]
    parse: Callable[[Any], T]
    script: Script | None = None

    @property
    def with_text(self) -> tuple[Word, ...]:
        """The words of a script call, with the text in place of the digest."""
        return ("EVAL", self.script.text if self.script else "", *self.words[2:])


def nothing(_reply: object) -> None:
    """Read a reply that says no more than that it was done."""
