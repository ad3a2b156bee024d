"""Tasks whose functions are generators: what they yield is emitted, chunk by chunk."""

from __future__ import annotations

import collections.abc
import contextlib
import inspect
from collections.abc import Callable
from typing import Any, get_args, get_origin

from streamq.codec import ResultCodec
from streamq.context import current

_YIELDING = (
    *(collections.abc.AsyncIterator, collections.abc.AsyncGenerator, collections.abc.AsyncIterable),
    *(collections.abc.Iterator, collections.abc.Generator, collections.abc.Iterable),
)
_PARTS = 3  # of Generator[yielded, sent, returned]


class _ChunkCodec(ResultCodec):
    """Decodes what a generator function yields."""

    _what = "a chunk"

    def _part(self, annotation: Any) -> Any:
        words = get_args(annotation)
        return words[0] if words and get_origin(annotation) in _YIELDING else Any


class _LastCodec(ResultCodec):
    """Decodes what a generator function returns in the end."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        super().__init__(name, function)
        self.chunks = _ChunkCodec(name, function)

    def _part(self, annotation: Any) -> Any:
        words = get_args(annotation)
        is_told = len(words) == _PARTS and get_origin(annotation) is collections.abc.Generator
        return words[2] if is_told else Any


def result_codec(name: str, function: Callable[..., Any]) -> ResultCodec:
    """Make what decodes the results of a function, and its chunks if it is a generator."""
    is_generator = inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
    return (_LastCodec if is_generator else ResultCodec)(name, function)


def driven(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that runs a generator function to its end and emits what it yields; others are left alone."""
    if inspect.isasyncgenfunction(function):

        async def drive_async(*args: Any, **kwargs: Any) -> None:
            emit = current().emit
            async with contextlib.aclosing(function(*args, **kwargs)) as generator:
                async for value in generator:
                    await emit(value)

        return drive_async
    if inspect.isgeneratorfunction(function):

        def drive(*args: Any, **kwargs: Any) -> Any:
            emit = current().emit
            with contextlib.closing(function(*args, **kwargs)) as generator:
                while True:
                    try:
                        value = next(generator)
                    except StopIteration as end:
                        return end.value
                    emit(value)

        return drive
    return function
