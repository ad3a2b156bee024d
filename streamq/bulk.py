"""Many calls at once, taken from their iterable some at a time, so that it may be of any size."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from streamq.broker.caller import Broker
from streamq.checks import is_whole
from streamq.config import Durability
from streamq.errors import ConfigError
from streamq.message import Message
from streamq.results import AsyncResult
from streamq.workflows.signature import Signature

R = TypeVar("R")

CHUNK = 1000  # calls that are held in memory with their arguments

Progress = Callable[[int], object]


def check_chunk_size(size: int) -> int:
    """Return `size` if so many calls can be sent together.

    Raises:
        ConfigError: it is no whole number of 1 or more.
    """
    if not is_whole(size) or size < 1:
        raise ConfigError(f"chunk_size must be a whole number of 1 or more, not {size!r}")
    return size


def each(
    broker: Broker,
    signatures: Iterable[Signature[R]],
    durability: Durability | None,
    chunk_size: int,
    on_progress: Progress | None,
) -> Iterator[AsyncResult[R]]:
    """Enqueue calls chunk by chunk, and give their results in the order of the calls."""
    calls, count = iter(signatures), 0
    while chunk := list(islice(calls, chunk_size)):
        messages = [signature.to_message() for signature in chunk]
        results = _results(broker, chunk, messages, broker.enqueue_many(messages, durability))
        count += len(results)
        if on_progress:
            on_progress(count)
        yield from results


async def aeach(
    broker: Broker,
    signatures: Iterable[Signature[R]] | AsyncIterable[Signature[R]],
    durability: Durability | None,
    chunk_size: int,
    on_progress: Progress | None,
) -> AsyncIterator[AsyncResult[R]]:
    """Enqueue calls chunk by chunk, as `each` does."""
    count = 0
    async for chunk in _chunks(signatures, chunk_size):
        messages = [signature.to_message() for signature in chunk]
        results = _results(broker, chunk, messages, await broker.aenqueue_many(messages, durability))
        count += len(results)
        if on_progress:
            on_progress(count)
        for result in results:
            yield result


async def _chunks(
    signatures: Iterable[Signature[R]] | AsyncIterable[Signature[R]], size: int
) -> AsyncIterator[list[Signature[R]]]:
    if isinstance(signatures, Iterable):
        calls = iter(signatures)
        while chunk := list(islice(calls, size)):
            yield chunk
        return
    chunk = []
    async for signature in signatures:
        chunk.append(signature)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _results(
    broker: Broker, chunk: Sequence[Signature[R]], messages: Sequence[Message], there: dict[int, str]
) -> list[AsyncResult[R]]:
    pairs = zip(chunk, messages, strict=True)
    return [
        signature.to_result(message, broker, there.get(position)) for position, (signature, message) in enumerate(pairs)
    ]
