"""Makes typed payloads of what came as JSON."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pydantic import PydanticUserError, ValidationError

from streamq.codec import call_adapter, encode_plain, explain
from streamq.errors import ConfigError

Read = Callable[[Any], Any]
"""Takes a payload as JSON has it, and returns it as its type; ValueError: it does not fit, the text says where."""


def reader_of(kind: Any) -> Read:
    """Make what reads payloads of a type, anything that pydantic can validate.

    Raises:
        ConfigError: the type cannot be used.
    """
    try:
        return _cached(kind)
    except TypeError:  # it has no hash
        return _make(kind)


def _make(kind: Any) -> Read:
    if kind is Any:
        return lambda value: value
    only = inspect.Parameter("payload", inspect.Parameter.POSITIONAL_ONLY, annotation=kind)
    try:
        validate = call_adapter("payload", [only]).validate_json
    except PydanticUserError as error:
        raise ConfigError(f"the type {kind!r} cannot be used: {error}") from error

    def read(value: Any) -> Any:
        try:
            return validate(b"[%b]" % encode_plain(value))[0][0]  # as JSON: bytes and dates are text there
        except ValidationError as error:
            raise ValueError(explain(error, ["payload"], "field")) from None

    return read


_cached = lru_cache(maxsize=256)(_make)
