"""`chain`: calls that run one after another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, overload

from streamq.workflows.canvas import Chain, Step, check_step

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
S = TypeVar("S")


@overload
def chain(first: Step[Any, S], /) -> Chain[S]: ...
@overload
def chain(first: Step[Any, A], second: Step[A, S], /) -> Chain[S]: ...
@overload
def chain(first: Step[Any, A], second: Step[A, B], third: Step[B, S], /) -> Chain[S]: ...
@overload
def chain(first: Step[Any, A], second: Step[A, B], third: Step[B, C], fourth: Step[C, S], /) -> Chain[S]: ...
@overload
def chain(*parts: Step[Any, Any]) -> Chain[Any]: ...
@overload
def chain(parts: Iterable[Step[Any, Any]], /) -> Chain[Any]: ...
def chain(*parts: Any) -> Chain[Any]:
    """Have calls run one after another; each gets the value of the one before as its first argument.

    Args:
        parts: signatures, groups, and so on, or one iterable of them. ``a | b`` makes a chain too.

    Raises:
        FlowError: there are none, or one is none.
    """
    given: Iterable[Any] = parts
    if len(parts) == 1 and not isinstance(parts[0], Step) and isinstance(parts[0], Iterable):
        given = parts[0]
    return Chain(tuple(check_step(part, f"chain, step {number}:") for number, part in enumerate(given, 1)))
