"""What travels on a channel: a JSON object with the payload and what is said of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Generic, NotRequired, TypeVar

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from typing_extensions import TypedDict, get_type_hints

from streamq.codec import JSON_CONFIG, UNENCODABLE, call_adapter, encode_value, explain
from streamq.errors import ConfigError, EncodeError, PayloadTooLarge

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Envelope(Generic[T]):
    """A message of a channel.

    Attributes:
        payload: what was published.
        sender: who did it.
        type: what the payload is: the name of its class, if the sender said nothing else.
        channel: where it was published.
        time_ms: when, by the sender's clock, Unix time in ms.
        session: of the sender's: with another one it counts anew.
        sequence: the number of this message among those of the session on this channel, from 1.
        correlation_id: of a reply: that of what it replies to.
        reply_to: the channel on which a reply is expected.
        expires_ms: when it is of no use any more, by the sender's clock, Unix time in ms.
        entry: its place in the log of a durable channel.
        number: its number in that log, from 1.
        deliveries: how often it was handed to a consumer of its group and not given back, this time counted.
    """

    payload: T
    sender: str
    type: str
    channel: str
    time_ms: int
    session: str
    sequence: int
    correlation_id: str | None = None
    reply_to: str | None = None
    expires_ms: int | None = None
    entry: str | None = None
    number: int | None = None
    deliveries: int = 1

    @property
    def id(self) -> str:
        """The id of the message: no other has it."""
        return f"{self.session}-{self.sequence}"

    @property
    def time(self) -> datetime:
        """When it was published, by the sender's clock."""
        return datetime.fromtimestamp(self.time_ms / 1000, UTC)


class _Header(TypedDict):
    """What stands in each message beside its payload; what newer versions add is left alone."""

    sender: str
    type: str
    channel: str
    time_ms: int
    session: str
    sequence: int
    correlation_id: NotRequired[str]
    reply_to: NotRequired[str]
    expires_ms: NotRequired[int]
    entry: NotRequired[str]
    number: NotRequired[int]


def _reader(kind: Any) -> Callable[[bytes], dict[str, Any]]:
    """Make what validates a message with one type of payload straight from its bytes."""
    make: Any = TypedDict  # type checkers want what is known before
    whole = make("whole", {**get_type_hints(_Header, include_extras=True), "payload": kind})
    whole.__pydantic_config__ = JSON_CONFIG
    adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(whole)
    return adapter.validate_json


@cache
def _any_reader() -> Callable[[bytes], dict[str, Any]]:
    """Make once what many channels need: it takes a while."""
    return _reader(Any)


class EnvelopeCodec(Generic[T]):
    """Encodes and decodes the messages of channels with one type of payload.

    Args:
        kind: the type; `Any`: whatever JSON can carry.
        name: of the channel, for messages.
        most: bytes that an encoded message may have.

    Raises:
        ConfigError: the type cannot be used.
    """

    def __init__(self, kind: Any, name: str, most: int) -> None:
        self._name = name
        self._most = most
        only = inspect.Parameter("payload", inspect.Parameter.POSITIONAL_ONLY, annotation=kind)
        try:
            self._read = _any_reader() if kind is Any else _reader(kind)
            self._check: Callable[[Any], Any] | None = None
            if kind is not Any:
                self._check = call_adapter(name, [only]).validate_python
        except PydanticUserError as error:
            raise ConfigError(f"channel {name}: the type {kind!r} cannot be used: {error}") from error

    def encode(self, envelope: Envelope[T]) -> bytes:
        """Encode a message.

        Raises:
            EncodeError: the payload is not of the channel's type, or no JSON.
            PayloadTooLarge: the message has too many bytes.
        """
        value: Any = envelope.payload
        try:
            if self._check is not None:
                value = self._check([value])[0][0]
            said = {
                "id": envelope.id,
                "sender": envelope.sender,
                "type": envelope.type,
                "channel": envelope.channel,
                "time_ms": envelope.time_ms,
                "session": envelope.session,
                "sequence": envelope.sequence,
            }
            for name in _OPTIONAL:
                if (found := getattr(envelope, name)) is not None:
                    said[name] = found
            said["payload"] = value
            data = encode_value(said)
        except ValidationError as error:
            raise EncodeError(
                f"channel {self._name}: the message does not fit: {explain(error, ['payload'], 'field')}"
            ) from None
        except UNENCODABLE as error:
            raise EncodeError(f"channel {self._name}: the message cannot be sent as JSON: {error}") from error
        if len(data) > self._most:
            raise PayloadTooLarge(
                f"channel {self._name}: the message has {len(data)} bytes, over the limit of {self._most} (max_message)"
            )
        return data

    def decode(self, data: bytes) -> Envelope[T]:
        """Decode a message.

        Raises:
            ValueError: it is none, or its payload does not fit; the text says where.
        """
        try:
            return Envelope(**self._read(data))
        except ValidationError as error:
            raise ValueError(explain(error, kind="field")) from None


_OPTIONAL = ("correlation_id", "reply_to", "expires_ms")
