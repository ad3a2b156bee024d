"""One call for many items: how they travel, and how a function is run over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

from pydantic_core import from_json

from streamq.codec import Call, CallCodec, ResultCodec, encode_plain
from streamq.errors import ArgumentError, EncodeError

Kind = Literal["map", "starmap"]
"""Whether an item is the argument of a call, or the list of its arguments."""

KINDS: tuple[Kind, ...] = get_args(Kind)


def run_over_items(function: Callable[..., Any], *, is_async: bool) -> Callable[..., Any]:
    """Make a function that takes calls, after the context if there is one, and runs `function` with each, in order."""
    if is_async:

        async def run_async(*context_and_calls: Any) -> list[Any]:
            *context, calls = context_and_calls
            return [await function(*context, *args, **kwargs) for args, kwargs in calls]

        return run_async

    def run(*context_and_calls: Any) -> list[Any]:
        *context, calls = context_and_calls
        return [function(*context, *args, **kwargs) for args, kwargs in calls]

    return run


def _shape(items: list[Any]) -> None:
    """Have the signature of a call with many items."""


class ItemsCodec(CallCodec):
    """Encodes and decodes the items of one call, each as the arguments of a task's call.

    Args:
        name: that of this call, for messages.
        one: the codec of the task.
        kind: what an item is.
    """

    def __init__(self, name: str, one: CallCodec, kind: Kind) -> None:
        super().__init__(name, _shape, bind=False)
        self._one = one
        self._is_star = kind == "starmap"

    def prepare(self) -> None:
        """Build what decoding needs, as that of the task does."""
        self._one.prepare()

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Encode the items.

        Raises:
            TypeError: the function does not take one of them.
            EncodeError: one of them does not fit into JSON; the message says which.
        """
        [items] = self.signature.bind(*args, **kwargs).arguments.values()
        if not isinstance(items, Iterable):
            raise TypeError(f"{self.name}() needs an iterable of items, not {items!r}")
        return b"[[%b]]" % b",".join(self._encode_one(number, item) for number, item in enumerate(items, 1))

    def _encode_one(self, number: int, item: Any) -> bytes:
        try:
            if not self._is_star:
                return self._one.encode((item,), {})[1:-1]
            if isinstance(item, (str, bytes)) or not isinstance(item, Iterable):
                raise TypeError(f"{self.name}() needs a tuple of arguments, not {item!r}")  # noqa: TRY301 - as others
            return self._one.encode((*item,), {})
        except EncodeError as error:
            raise EncodeError(f"{error}, in item {number}") from error
        except TypeError as error:
            raise TypeError(f"{error}, for item {number}") from None

    def decode(self, data: bytes) -> Call:
        """Decode the items, each of them validated as the arguments of a call.

        Raises:
            ArgumentError: they do not fit.
        """
        try:
            [items] = from_json(data)
        except (ValueError, TypeError) as error:
            raise ArgumentError(f"{self.name}(): these are no items: {error}") from None
        if not isinstance(items, list):
            raise ArgumentError(f"{self.name}(): these are no items")
        return ([self._decode_one(number, item) for number, item in enumerate(items, 1)],), {}

    def _decode_one(self, number: int, item: Any) -> Call:
        try:
            return self._one.decode(encode_plain(item if self._is_star else [item]))
        except ArgumentError as error:
            raise ArgumentError(f"{error}, in item {number}") from None


class ItemsResultCodec(ResultCodec):
    """Decodes the list of what a function returned for each item."""

    def _part(self, annotation: Any) -> Any:
        return list[annotation]
