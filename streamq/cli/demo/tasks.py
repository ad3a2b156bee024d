"""The demo's app: one task, which reads a file and reports what is in it."""

import ast
import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from streamq import Context, StreamQ

_CHUNK_BYTES = 1024 * 1024
# Definitions are statements, so only what holds statements is looked into, and never an expression.
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
# Too deep a nesting is a RecursionError or a MemoryError, depending on the version; a null byte is a ValueError.
_UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
# Of two threads that parse at a time one may get a SystemError about its recursion depth, up to Python 3.11.8
# (github.com/python/cpython/issues/106905).
_PARSING = threading.Lock()

app = StreamQ()  # at $STREAMQ_URL, which the demo sets for its workers


@dataclass(frozen=True, slots=True)
class Contents:
    """What can be said of any file. A word is what stands between white space of ASCII."""

    size: int
    sha256: str
    lines: int
    words: int


@dataclass(frozen=True, slots=True)
class Definitions:
    """How many functions and classes a module defines, at whatever depth."""

    functions: int
    classes: int


@dataclass(frozen=True, slots=True)
class FileReport:
    """What a task returns.

    Attributes:
        contents: None if the file cannot be read.
        definitions: None if it is not Python, or cannot be parsed.
        problem: the name of the error that made one of them None; else empty.
        deliveries: how often the task was handed to a worker.
        process: the pid of the process that ran the task.
        supervisor: the pid of the worker that this process belongs to.
    """

    contents: Contents | None
    definitions: Definitions | None
    problem: str
    deliveries: int = 0
    process: int = 0
    supervisor: int = 0


@app.task(bind=True)
def report(context: Context, path: bytes) -> FileReport:
    """Read a file; its path comes as bytes, because a file name need not be text that JSON can carry."""
    contents, definitions, problem = examine(Path(os.fsdecode(path)))
    return FileReport(contents, definitions, problem, context.deliveries, os.getpid(), os.getppid())


def examine(path: Path) -> tuple[Contents | None, Definitions | None, str]:
    """Return what is in a file, what it defines if it is Python, and the name of the error if one of them failed."""
    try:
        with path.open("rb") as file:
            contents = _measure(file)
            if path.suffix != ".py":
                return contents, None, ""
            file.seek(0)
            source = file.read()
    except OSError as error:
        return None, None, type(error).__name__
    try:
        with _PARSING:
            tree = ast.parse(source)
        return contents, _count_definitions(tree), ""
    except _UNPARSABLE as error:
        return contents, None, type(error).__name__


def _measure(file: BinaryIO) -> Contents:
    """Read a file piece by piece, since it may be larger than memory."""
    digest = hashlib.sha256()
    size = lines = words = 0
    in_word, in_line = False, False
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
        lines += chunk.count(b"\n")
        words += len(chunk.split()) - (in_word and not chunk[:1].isspace())
        in_word = not chunk[-1:].isspace()
        in_line = chunk[-1:] != b"\n"
    return Contents(size, digest.hexdigest(), lines + in_line, words)


def _count_definitions(tree: ast.AST) -> Definitions:
    functions = classes = 0
    unseen = [tree]
    while unseen:
        node = unseen.pop()
        functions += isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        classes += isinstance(node, ast.ClassDef)
        for block in _BLOCKS:
            unseen += getattr(node, block, ())
    return Definitions(functions, classes)
