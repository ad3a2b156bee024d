"""How a call is encoded whose first arguments are the values of other tasks, and which such calls a function takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from streamq.codec import UNENCODABLE, CallCodec, encode_plain, encode_value
from streamq.errors import EncodeError


def tail_of(whole: bytes, count: int) -> bytes:
    """Make the tail of an encoded call, of which so many arguments were given by position."""
    if whole.startswith(b"["):
        return _tail(whole)
    if not count:
        return b"]," + whole[1:]
    named = from_json(whole)
    args = named.pop("*") if "*" in named else [named.pop(name) for name in [*named][:count]]
    return _tail(encode_plain(args)) + b"," + encode_plain(named)[1:]


def _tail(args: bytes) -> bytes:
    return b"]" if args == b"[]" else b"," + args[1:]


def encode_tail(codec: CallCodec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """Encode what follows the values: other positional arguments, and those by name.

    Raises:
        EncodeError: one of them does not fit into JSON.
    """
    if "*" in kwargs:
        raise EncodeError(f"{codec.name}(): an argument cannot be called '*'")
    tail = _tail(_encode(codec, args, enumerate(args, 1)))
    return tail if not kwargs else tail + b"," + _encode(codec, dict(kwargs), kwargs.items())[1:]


def encode_whole(codec: CallCodec, values: Sequence[Any], tail: bytes) -> bytes:
    """Encode a call of which the first values have come.

    Raises:
        EncodeError: one of them does not fit into JSON.
    """
    head = _encode(codec, tuple(values), enumerate(values, 1))[1:-1]
    return (b'{"*":[' if tail.endswith(b"}") else b"[") + head + tail


def _encode(codec: CallCodec, values: Any, named: Any) -> bytes:
    try:
        return encode_value(values)
    except UNENCODABLE as error:
        for name, value in named:
            try:
                encode_value(value)
            except UNENCODABLE as cause:
                raise EncodeError(f"{codec.name}(): argument {name!r} cannot be sent as JSON: {cause}") from cause
        raise EncodeError(f"{codec.name}(): the arguments cannot be sent as JSON: {error}") from error


def misfit(codec: CallCodec, leading: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """Say why a function does not take so many values and these arguments; None if it does."""
    try:
        codec.signature.bind(*[None] * leading, *args, **kwargs)
    except TypeError as error:
        return f"{codec.name}() {error}"
    return None


def takes_more(codec: CallCodec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether these arguments make a call when some values come before them."""
    most = len(codec.signature.parameters)
    return any(misfit(codec, leading, args, kwargs) is None for leading in range(1, most + 1))


class Unknown(LookupError):
    """An argument is asked for that is known only when the tasks before have ended."""


class Known(dict[str, Any]):
    """Arguments by name, of which some are not known yet; those must not be asked for."""

    def __init__(self, codec: CallCodec, leading: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        later = object()
        bound = codec.signature.bind(*[later] * leading, *args, **kwargs)
        bound.apply_defaults()
        names = codec.signature.parameters
        super().__init__(
            (name, value)
            for name, value in bound.arguments.items()
            if value is not later
            and not (names[name].kind is inspect.Parameter.VAR_POSITIONAL and value and value[0] is later)
        )
        self._later = bound.arguments.keys() - self.keys()

    def __missing__(self, name: str) -> Any:
        if name in self._later:
            raise Unknown(name)
        raise KeyError(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Give an argument; those that come later cannot be asked for."""
        return default if name not in self and name not in self._later else self[name]
