"""How arguments, results and errors travel: JSON, by pydantic.

Arguments are a JSON array (a call with positional arguments), a JSON object (keywords), or, where a function takes
both kinds at once and they cannot be folded into names, an object whose key ``*`` holds the positional ones.
Bytes are base64. Nothing is ever imported because a message names it.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from streamq.errors import ArgumentError, ConfigError, EncodeError, ResultDecodeError, ResultEncodeError

JSON_CONFIG = ConfigDict(
    val_json_bytes="base64", ser_json_bytes="base64", validate_by_name=True, validate_by_alias=True
)
UNENCODABLE = (PydanticSerializationError, ValueError, TypeError, RecursionError)
_BOTH_KINDS = b'{"*":'
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

Call = tuple[tuple[Any, ...], dict[str, Any]]


# With round_trip, computed fields stay at home: a model that forbids extra fields could not be made of them.
encode_plain = partial(to_json, bytes_mode="base64", inf_nan_mode="constants", round_trip=True)

# An error's message, arguments and traceback have each so many characters at most; of a traceback the last ones.
_MOST_OF_AN_ERROR = 32 * 1024

# pydantic writes JSON of 254 levels, but reads only 200. So many brackets or more are worth a closer look.
_MANY_BRACKETS = 150


def encode_value(value: Any) -> bytes:
    """Encode a value; raise one of `UNENCODABLE` if that cannot be done, or could not be read again."""
    data = encode_plain(value)
    if len(data) > _MANY_BRACKETS and data.count(b"[") + data.count(b"{") > _MANY_BRACKETS:
        from_json(b"[%b]" % data)
    return data


def call_adapter(name: str, parameters: Iterable[inspect.Parameter]) -> TypeAdapter[Call]:
    """Make an adapter that validates JSON as a call with `parameters`, and returns it.

    pydantic validates the arguments of any callable from its signature, so a function that returns what it got,
    under the signature of the user's, is all that is needed; its config applies whatever the annotations are.
    """

    def collect(*args: Any, **kwargs: Any) -> Call:
        return args, kwargs

    collect.__name__ = name
    collect.__signature__ = inspect.Signature(list(parameters))  # type: ignore[attr-defined]
    collect.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return TypeAdapter(collect, config=JSON_CONFIG)  # type: ignore[arg-type]


class CallCodec:
    """Encodes and decodes the arguments of one function.

    Attributes:
        name: the task's name, for messages.
        function: the user's function.
        bind: its first parameter is the context, which does not travel.
    """

    def __init__(self, name: str, function: Callable[..., Any], *, bind: bool) -> None:
        self.name = name
        self.function = function
        self.signature = inspect.signature(function)
        parameters = list(self.signature.parameters.values())
        if bind:
            if not parameters or parameters[0].kind not in _POSITIONAL:
                raise ConfigError(f"task {name}: bind=True needs a first parameter for the context")
            self.signature = self.signature.replace(parameters=parameters[1:])
            parameters = parameters[1:]
        plain = [p for p in parameters if p.kind in _POSITIONAL]
        keywords_needed = any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
        self._fewest = len(parameters) + 1 if keywords_needed else sum(p.default is p.empty for p in plain)
        self._most = 2**31 if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(plain)

    @cached_property
    def parameters(self) -> list[inspect.Parameter]:
        """The parameters that travel, with their annotations resolved.

        Raises:
            ConfigError: an annotation names something that does not exist.
        """
        hints = _hints(self.name, self.function)
        return [p.replace(annotation=hints.get(p.name, Any)) for p in self.signature.parameters.values()]

    @cached_property
    def _adapter(self) -> TypeAdapter[Call]:
        try:
            return call_adapter(self.name, self.parameters)
        except PydanticUserError as error:
            raise ConfigError(f"task {self.name}: an annotation cannot be used: {error}") from error

    def prepare(self) -> None:
        """Build what decoding needs, so that a wrong annotation shows at start and not at the first message.

        Raises:
            ConfigError: an annotation cannot be resolved or is no type that JSON can carry.
        """
        self._adapter  # noqa: B018 - it is built by being looked at

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Encode a call's arguments.

        Raises:
            TypeError: the function does not take these arguments.
            EncodeError: one of them does not fit into JSON; the message names it.
        """
        if kwargs or not self._fewest <= len(args) <= self._most:
            args, kwargs = self._fold(args, kwargs)
        try:
            return encode_value(args if not kwargs else {"*": args, **kwargs} if args else kwargs)
        except UNENCODABLE as error:
            raise self._blame(args, kwargs) from error

    def named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Give the arguments of a call that is right by name, with defaults for those that are not there."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def _fold(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """Check the call against the signature, and name what can be named."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}() {error}") from None
        if not kwargs:
            return args, {}
        if "*" in kwargs:
            raise EncodeError(f"{self.name}(): an argument cannot be called '*'")
        kinds = {self.signature.parameters[name].kind for name in bound.arguments}
        if args and (kinds & {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL}):
            return args, dict(kwargs)
        named = dict(zip(bound.arguments, args, strict=False))
        return (), {**named, **kwargs}

    def _blame(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> EncodeError:
        bound = self.signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            try:
                encode_value(value)
            except UNENCODABLE as error:
                return EncodeError(f"{self.name}(): argument {name!r} cannot be sent as JSON: {error}")
        return EncodeError(f"{self.name}(): the arguments cannot be sent as JSON")

    def decode(self, data: bytes) -> Call:
        """Decode arguments and validate them against the function's annotations.

        Raises:
            ArgumentError: they do not fit.
        """
        try:
            if data.startswith(_BOTH_KINDS):
                return self._decode_both_kinds(data)
            return self._adapter.validate_json(data)
        except ValidationError as error:
            raise ArgumentError(f"{self.name}(): {explain(error, list(self.signature.parameters))}") from None

    def _decode_both_kinds(self, data: bytes) -> Call:
        """Validate parameter by parameter: pydantic takes an array or an object, but not both at once."""
        try:
            keywords = from_json(data)
            bound = self.signature.bind(*keywords.pop("*"), **keywords)
        except (ValueError, TypeError) as error:
            raise ArgumentError(f"{self.name}() {error}") from None
        for parameter in self.parameters:
            if parameter.name not in bound.arguments:
                continue
            value = bound.arguments[parameter.name]
            positional = parameter.kind is not inspect.Parameter.VAR_KEYWORD
            packed = value if parameter.kind in _VARIADIC else [value]
            if parameter.kind not in _VARIADIC:
                parameter = parameter.replace(kind=inspect.Parameter.POSITIONAL_ONLY)  # noqa: PLW2901 - as sent
            try:
                args, kwargs = call_adapter(self.name, [parameter]).validate_json(encode_plain(packed))
            except ValidationError as error:
                names = [parameter.name] * (len(packed) if positional else 0)
                raise ArgumentError(f"{self.name}(): {explain(error, names)}") from None
            valid: Any = args if positional else kwargs
            bound.arguments[parameter.name] = valid if parameter.kind in _VARIADIC else args[0]
        return bound.args, bound.kwargs


def _hints(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        raise ConfigError(f"task {name}: an annotation cannot be resolved: {error}") from error


# Messages of pydantic that would quote the value.
_TELLING = {"union_tag_invalid": "Input tag is none of the expected ones"}


def explain(error: ValidationError, names: Sequence[str] = (), kind: str = "argument") -> str:
    """Say in one line what is wrong where, without the values: they may be secret; `kind`: what the places are."""
    lines = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        first, *inner = item["loc"] or ("(all)",)
        if isinstance(first, int) and first < len(names):
            first = names[first]
        where = ".".join(map(str, (first, *inner)))
        lines.append(f"{kind} {where!r}: {_TELLING.get(item['type'], item['msg'])}")
    return "; ".join(lines)


def encode_result(value: Any, what: str = "returned") -> bytes:
    """Encode what a task returned, or else gives to its caller: `what` is for the message.

    Raises:
        ResultEncodeError: it does not fit into JSON.
    """
    if value is None:
        return b"null"
    try:
        return encode_value(value)
    except UNENCODABLE as error:
        raise ResultEncodeError(f"the {what} {type(value).__name__} cannot be stored as JSON: {error}") from error


class ResultCodec:
    """Decodes the results of one function by its return annotation; without one, as plain JSON.

    Attributes:
        chunks: decodes what the function yields; None: it yields nothing.
    """

    chunks: ResultCodec | None = None
    _what = "the result"

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.function = function

    def _part(self, annotation: Any) -> Any:
        return annotation

    @cached_property
    def _adapter(self) -> TypeAdapter[Call]:
        annotation = _hints(self.name, self.function).get("return", Any)
        part = self._part(annotation)
        value = inspect.Parameter("result", inspect.Parameter.POSITIONAL_ONLY, annotation=part)
        return call_adapter(self.name, [value])

    def decode(self, data: bytes) -> Any:
        """Decode a stored result.

        Raises:
            ResultDecodeError: it does not fit the return annotation.
        """
        try:
            return self._adapter.validate_json(b"[%b]" % data)[0][0]
        except (ValidationError, PydanticUserError) as error:
            detail = explain(error) if isinstance(error, ValidationError) else str(error)
            raise ResultDecodeError(f"{self._what} of {self.name} does not fit its annotation: {detail}") from None


def decode_plain(data: bytes) -> Any:
    """Decode JSON of which no type is known.

    Raises:
        ResultDecodeError: it is not JSON.
    """
    try:
        return from_json(data)
    except ValueError as error:
        raise ResultDecodeError(f"not JSON: {error}") from None


def type_name(kind: type[BaseException]) -> str:
    """Name an exception type as errors store it: bare for builtins, else with its module."""
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"


def text_of(error: BaseException) -> str:
    """Return an exception's message; a broken ``__str__`` of the user's must not hide the error itself."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - whatever it is
        return "(the message could not be made)"


def encode_error(error: BaseException, *, with_traceback: bool = True) -> bytes:
    """Encode an exception as plain data: type name, message, arguments that are JSON, traceback text."""
    try:
        packed = encode_value(error.args)
        args = from_json(packed) if len(packed) <= _MOST_OF_AN_ERROR else None
    except Exception:  # noqa: BLE001 - as in text_of
        args = None
    text = "".join(traceback.format_exception(error)) if with_traceback else ""
    stored = {
        "type": type_name(type(error)),
        "message": text_of(error)[:_MOST_OF_AN_ERROR],
        "args": args,
        "traceback": text[-_MOST_OF_AN_ERROR:],
    }
    return to_json(_printable(stored))


def _printable(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Replace lone surrogates (from file names, for one), which UTF-8 cannot carry."""
    return {
        name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for name, value in stored.items()
    }
