"""What is sent arrives as what it was, or is refused at once, by name."""

from __future__ import annotations

import inspect
import json
import math
from collections import deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, computed_field

from streamq.codec import (
    CallCodec,
    ResultCodec,
    decode_plain,
    encode_error,
    encode_result,
    type_name,
)
from streamq.errors import ArgumentError, ConfigError, EncodeError, ResultDecodeError, ResultEncodeError

_SECRET = "hunter2"  # noqa: S105 - what must not show up in messages


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 9


class Word(StrEnum):
    YES = "yes"


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Part:
    name: str
    raw: bytes
    made: datetime | None = None


class Item(BaseModel):
    name: str
    price: Decimal
    tags: set[str] = set()


class Renamed(BaseModel):
    kind: str = Field(alias="type")


class Square(BaseModel):
    model_config = ConfigDict(extra="forbid")
    side: int

    @computed_field
    def area(self) -> int:
        return self.side**2


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


def codec(function: Any, *, bind: bool = False) -> CallCodec:
    return CallCodec("shop.buy", function, bind=bind)


def travel(function: Any, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Encode and decode a call."""
    return codec(function).decode(codec(function).encode(args, kwargs))


def taking(annotation: Any) -> Any:
    """Make a function of one parameter, and of the same type its result."""

    def function(x):
        return x

    function.__annotations__ = {"x": annotation, "return": annotation}
    return function


def anything(*args: Any, **kwargs: Any) -> None:
    pass


def plain(a: int, b: str = "b", *, c: float = 0.5) -> None:
    pass


def strict(a: int, /, b: int = 0, *rest: int, c: int, **more: int) -> None:
    pass


# ---- values


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 10**400),
        (float, 0.1 + 0.2),
        (float, math.inf),
        (complex, 1 - 2j),
        (str, "Grüße \U0001f375 \x00 </script>"),
        (bool, True),
        (None, None),
        (bytes, bytes(range(256))),
        (Decimal, Decimal("3.10")),
        (datetime, datetime(2026, 11, 22, 12, 30, 0, 123456, tzinfo=UTC)),
        (datetime, datetime(2026, 11, 22, 12, 30, tzinfo=timezone(timedelta(hours=-3.5)))),
        (datetime, datetime(2026, 11, 22, 12, 30)),  # noqa: DTZ001 - users have naive ones too
        (date, date(2026, 11, 22)),
        (time, time(12, 30, 0, 5)),
        (timedelta, timedelta(days=-1, microseconds=7)),
        (UUID, UUID("0193-5b7e-f9f5-7a30-8b5c-1f0e2d3c4b5a".replace("-", ""))),
        (Path, Path("/srv/orders")),
        (Colour, Colour.RED),
        (Level, Level.HIGH),
        (Word, Word.YES),
        (Point, Point(1, 2)),
        (Part, Part("bolt", b"\xff\xfb", datetime(2026, 11, 22, tzinfo=UTC))),
        (Item, Item(name="tea", price=Decimal("3.10"), tags={"a", "b"})),
        (Renamed, Renamed(type="box")),
        (list[Item], [Item(name="tea", price=Decimal(1))]),
        (dict[str, list[Part]], {"parts": [Part("nut", b"")]}),
        (dict[int, tuple[int, str]], {1: (2, "three")}),
        (tuple[int, ...], (1, 2, 3)),
        (set[int], {1, 2, 3}),
        (frozenset[UUID], frozenset({UUID(int=7)})),
        (deque[int], deque([1, 2])),
        (Cat | Dog, Dog(kind="dog")),
        (Annotated[int, Field(gt=0)], 1),
        (Any, {"list": [1, 2.5, None, "x"], "nested": {"a": {}}}),
    ],
    ids=lambda one: type(one).__name__,  # those of sets would differ between processes
)
def test_a_value_arrives_as_what_it_was(annotation, value):
    """Arguments and results of an annotated type keep type and value, by place, by name, and in both kinds at once."""
    function = taking(annotation)
    assert travel(function, value) == ((value,), {})
    assert travel(function, x=value) == ((), {"x": value})
    result = ResultCodec("shop.buy", function).decode(encode_result(value))
    assert result == value
    assert type(result) is type(value)

    def both(x, /, *, y):
        return x, y

    both.__annotations__ = {"x": annotation, "y": annotation}
    assert travel(both, value, y=value) == ((value,), {"y": value})


def test_not_a_number_arrives():
    """NaN is a float like others."""
    ((value,), _) = travel(taking(float), math.nan)
    assert math.isnan(value)


def test_without_annotations_plain_json_arrives():
    """Where no type is known a tuple or a set comes as a list, a model as a dict and bytes as base64."""
    sent = (1, {2}, Item(name="tea", price=Decimal(1)), b"\xff")
    assert travel(anything, sent) == (([1, [2], {"name": "tea", "price": "1", "tags": []}, "_w=="],), {})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
keywords = st.dictionaries(st.text(max_size=5).filter(lambda name: name != "*"), json_values, max_size=3)


@given(st.lists(json_values, max_size=3), keywords)
def test_any_json_arrives(args, kwargs):
    """Whatever JSON a call holds, it arrives as it was sent, in each of the three forms."""
    assert travel(anything, *args, **kwargs) == (tuple(args), kwargs)


@given(json_values)
def test_any_json_is_a_result(value):
    """Whatever JSON a task returns is what the caller gets, with or without the function at hand."""
    assert decode_plain(encode_result(value)) == value
    assert ResultCodec("shop.buy", taking(Any)).decode(encode_result(value)) == value


def test_models_travel_without_what_is_computed():
    """A model whose extra fields are forbidden travels although it has a computed field."""
    assert travel(taking(Square), Square(side=3)) == ((Square(side=3),), {})


# ---- the three forms


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "form"),
    [
        (plain, (1,), {}, b"[1]"),
        (plain, (1, "x"), {}, b'[1,"x"]'),
        (plain, (), {"b": "x", "a": 1}, b'{"b":"x","a":1}'),
        (plain, (1,), {"c": 2}, b'{"a":1,"c":2}'),
        (anything, (), {}, b"[]"),
        (anything, (1,), {"a": 2}, b'{"*":[1],"a":2}'),
        (strict, (1,), {"c": 2}, b'{"*":[1],"c":2}'),
        (strict, (1, 2, 3), {"c": 4, "d": 5}, b'{"*":[1,2,3],"c":4,"d":5}'),
    ],
)
def test_a_call_is_an_array_or_an_object(function, args, kwargs, form):
    """Positional arguments are an array and keywords an object; ``*`` is there only where names cannot say it."""
    assert codec(function).encode(args, kwargs) == form
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    got_args, got_kwargs = codec(function).decode(form)
    again = inspect.signature(function).bind(*got_args, **got_kwargs)
    again.apply_defaults()
    assert again == bound


def test_defaults_are_those_of_the_worker():
    """What a caller leaves out is filled in where the function runs, so both may have different versions."""
    older = codec(plain).encode((1,), {})

    def newer(a: int, b: str = "new", *, c: float = 0.5, d: int = 4):
        return a, b, c, d

    args, kwargs = codec(newer).decode(older)
    assert newer(*args, **kwargs) == (1, "new", 0.5, 4)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "missing a required argument: 'a'"),
        ((1, "b", 2), {}, "too many positional arguments"),
        ((1,), {"z": 1}, "unexpected keyword argument 'z'"),
        ((1,), {"a": 1}, "multiple values for argument 'a'"),
    ],
)
def test_a_call_that_does_not_fit_names_the_task(args, kwargs, message):
    """As in a plain call, a wrong number of arguments is a TypeError; nothing is encoded."""
    with pytest.raises(TypeError, match=r"^shop\.buy\(\)") as caught:
        codec(plain).encode(args, kwargs)
    assert message in str(caught.value)


def test_a_required_keyword_cannot_be_left_out():
    with pytest.raises(TypeError, match=r"missing a required.*'c'"):
        codec(strict).encode((1,), {})


@pytest.mark.parametrize(("args", "keyword"), [((), [1, 2]), ((1,), [2])])
def test_a_keyword_called_star_is_refused(args, keyword):
    """The name that marks positional arguments cannot be mistaken for them."""
    with pytest.raises(EncodeError, match=r"cannot be called '\*'"):
        codec(anything).encode(args, {"*": keyword})


def test_bind_skips_the_context():
    """The first parameter of a bound task neither travels nor needs an annotation that JSON can carry."""

    def bound(context: object, a: int, *, b: int = 0) -> None:
        pass

    one = codec(bound, bind=True)
    assert one.encode((1,), {"b": 2}) == b'{"a":1,"b":2}'
    assert one.decode(b"[1]") == ((1,), {"b": 0})
    assert list(one.signature.parameters) == ["a", "b"]
    with pytest.raises(TypeError, match="too many"):
        one.encode((None, 1), {})


@pytest.mark.parametrize("function", [lambda: None, lambda *, a: a, lambda *a: a])
def test_bind_needs_a_first_parameter(function):
    with pytest.raises(ConfigError, match=r"bind=True needs a first parameter"):
        codec(function, bind=True)


# ---- annotations


def test_annotations_are_resolved_where_the_function_is():
    """With ``from __future__ import annotations``, as here, types are still known."""
    assert isinstance(plain.__annotations__["a"], str)
    assert codec(plain).decode(b'["7","x"]') == ((7, "x"), {"c": 0.5})


@pytest.mark.parametrize(
    "annotation",
    [
        "Nowhere",
        "Nowhere[int]",
        "int.nowhere",
        bytearray,
        "1 +",
    ],
)
def test_an_annotation_that_cannot_be_used_shows_at_start(annotation):
    """A worker learns of it before the first message, and which task it is."""
    with pytest.raises(ConfigError, match=r"task shop\.buy: an annotation cannot be"):
        codec(taking(annotation)).prepare()


def test_a_caller_needs_no_annotations():
    """Encoding looks at names and numbers only: annotations for type checkers may be missing at run time."""
    assert codec(taking("Nowhere")).encode((1,), {}) == b"[1]"


# ---- what is refused


def cyclic() -> list[Any]:
    one: list[Any] = []
    one.append(one)
    return one


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


class Broken(BaseModel):
    raw: bytes


@pytest.mark.parametrize(
    "value",
    [object(), cyclic(), nested(1000), "\udc80", {"\udc80": 1}, print, Broken(raw=b"\xff"), {"a": [{1: object()}]}],
    ids=lambda value: type(value).__name__,
)
def test_an_argument_that_json_cannot_carry_is_named(value):
    """Nothing is sent, and the message says which argument it is, by place and by name."""
    with pytest.raises(EncodeError, match=r"^shop\.buy\(\): argument 'b' cannot be sent as JSON"):
        codec(plain).encode((1, value), {})
    with pytest.raises(EncodeError, match="argument 'c'"):
        codec(plain).encode((1,), {"c": value})
    with pytest.raises(EncodeError, match="argument 'more'"):
        codec(strict).encode((1,), {"c": 1, "d": value})


@pytest.mark.parametrize("depth", [10, 150])
def test_nesting_that_can_be_sent_arrives(depth):
    assert travel(anything, nested(depth)) == ((nested(depth),), {})


@pytest.mark.parametrize("depth", [200, 230, 253])
def test_what_could_not_be_read_is_not_sent(depth):
    """Nesting beyond what the worker can read is refused at the caller."""
    with pytest.raises(EncodeError):
        codec(anything).encode((nested(depth),), {})
    with pytest.raises(ResultEncodeError):
        encode_result(nested(depth))


@pytest.mark.parametrize(
    ("function", "data", "where"),
    [
        (plain, b'["hunter2"]', "argument 'a'"),
        (plain, b'{"a":1,"b":{"hunter2":1}}', "argument 'b'"),
        (plain, b'{"a":1,"c":"hunter2"}', "argument 'c'"),
        (taking(list[Item]), b'[[{"name":"tea","price":"hunter2"}]]', "argument 'x.0.price'"),
        (taking(Colour), b'["hunter2"]', "argument 'x'"),
        (taking(UUID), b'["hunter2"]', "argument 'x'"),
        (taking(datetime), b'["hunter2"]', "argument 'x'"),
        (strict, b'{"*":["hunter2"],"c":1}', "argument 'a'"),
    ],
)
def test_an_argument_of_another_type_is_named_and_not_shown(function, data, where):
    """The error says which argument it is and what was expected, but not the value, which may be secret."""
    with pytest.raises(ArgumentError, match=r"^shop\.buy\(\): ") as caught:
        codec(function).decode(data)
    assert where in str(caught.value)
    assert _SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b'{"*":[1],"c":"x"}', "argument 'c'"),
        (b'{"*":[1,"x"],"c":1}', "argument 'b'"),
        (b'{"*":[1,2,3,"x"],"c":1}', "argument 'rest"),
    ],
)
def test_in_a_call_of_both_kinds_the_right_argument_is_named(data, where):
    with pytest.raises(ArgumentError) as caught:
        codec(strict).decode(data)
    assert where in str(caught.value)


def test_the_tag_of_a_union_is_not_shown():
    union = taking(Annotated[Cat | Dog, Field(discriminator="kind")])
    with pytest.raises(ArgumentError) as caught:
        codec(union).decode(b'[{"kind":"hunter2"}]')
    assert _SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        b"null",
        b"3",
        b"[",
        b"[1,2,3,4]",
        b"[]",
        b'{"a":1,"zz":2}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"*":3}',
        b'{"*":[1],"b":1,"zz":2}',
    ],
)
def test_arguments_that_are_no_call_do_not_fit(data):
    """Whatever a message holds, the worker gets an ArgumentError that names the task."""
    with pytest.raises(ArgumentError, match=r"^shop\.buy\(\)"):
        codec(plain).decode(data)


def beginning_with(prefix: bytes) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=20).map(lambda rest: prefix + rest)


@pytest.mark.parametrize("data", [b'{"*":', b'{"*":[1],"c":', b'{"*":' + b"[" * 100_000])
def test_broken_arguments_of_both_kinds_do_not_fit(data):
    with pytest.raises(ArgumentError, match=r"^shop\.buy\(\)"):
        codec(strict).decode(data)


@settings(max_examples=20)
@given(st.binary(max_size=40) | st.sampled_from([b'{"a":', b'{"*":', b'{"*":[1],', b"[1,"]).flatmap(beginning_with))
def test_any_bytes_are_a_call_or_an_argument_error(data):
    try:
        args, kwargs = codec(plain).decode(data)
    except ArgumentError:
        return
    inspect.signature(plain).bind(*args, **kwargs)


# ---- results


@pytest.mark.parametrize("value", [object(), cyclic(), nested(1000), "\udc80", Broken(raw=b"\xff")])
def test_a_result_that_json_cannot_carry_is_an_error(value):
    """The message says what kind of value it was, and not the value."""
    with pytest.raises(ResultEncodeError, match=f"the returned {type(value).__name__} cannot be stored as JSON"):
        encode_result(value)


def test_a_result_that_does_not_fit_the_annotation_is_an_error():
    """The error names the task, and not the value."""
    with pytest.raises(ResultDecodeError, match=r"shop\.buy") as caught:
        ResultCodec("shop.buy", taking(int)).decode(b'"hunter2"')
    assert _SECRET not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"nonsense", b"[", b"\xff"])
def test_a_stored_result_that_is_no_json_is_an_error(data):
    with pytest.raises(ResultDecodeError):
        decode_plain(data)
    with pytest.raises(ResultDecodeError):
        ResultCodec("shop.buy", taking(Any)).decode(data)


# ---- errors


class BrokenText(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


def stored(error: BaseException, **options: Any) -> dict[str, Any]:
    return json.loads(encode_error(error, **options))


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause  # noqa: TRY301 - so that it has a traceback
    except BaseException as caught:  # noqa: BLE001
        return caught


def test_an_error_is_plain_data():
    """Type, message, arguments and traceback are stored; nothing is imported to read them."""
    error = raised(KeyError("shelf", 3))
    assert stored(error) | {"traceback": ...} == {
        "type": "KeyError",
        "message": "('shelf', 3)",
        "args": ["shelf", 3],
        "traceback": ...,
    }
    assert "raise error from cause" in stored(error)["traceback"]
    assert stored(error, with_traceback=False)["traceback"] == ""


def test_the_traceback_tells_of_causes():
    """What led to the error is in its traceback, as Python prints it."""
    text = stored(raised(ValueError("late"), raised(OSError("early"))))["traceback"]
    assert text.index("early") < text.index("direct cause") < text.index("late")


def test_a_group_of_errors_is_an_error():
    found = stored(raised(ExceptionGroup("two", [ValueError("one"), OSError("other")])))
    assert found["type"] == "ExceptionGroup"
    assert found["args"] is None
    assert "one" in found["traceback"]


def test_an_error_without_text_is_still_an_error():
    """A ``__str__`` that raises does not hide the error."""
    found = stored(raised(BrokenText("x")))
    assert found["type"].endswith("test_codec.BrokenText")
    assert found["message"]
    assert "BrokenText" in found["traceback"]


@pytest.mark.parametrize("argument", [object(), cyclic(), "\udc80", nested(1000), BrokenText()], ids=type)
def test_arguments_of_an_error_that_json_cannot_carry_are_left_out(argument):
    found = stored(raised(ValueError("kept", argument)))
    assert found["args"] is None
    assert found["type"] == "ValueError"


def test_an_error_about_a_strange_file_name_can_be_stored():
    """Lone surrogates, which UTF-8 has no place for, become escapes."""
    found = stored(raised(FileNotFoundError(2, "gone", "caf\udce9")))
    assert "caf\\udce9" in found["message"]
    assert "caf\\udce9" in found["traceback"]


def test_a_type_is_named_with_its_module():
    """Builtins have a bare name; others are found by module and qualified name, as ``raises`` compares them."""
    assert type_name(ValueError) == "ValueError"
    assert type_name(ArgumentError) == "streamq.errors.ArgumentError"
