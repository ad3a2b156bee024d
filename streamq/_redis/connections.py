"""Connections to Redis, with every option set on purpose.

redis-py's own retries are off: its default of ten retries enqueued 50 of 50 messages twice when one reply was lost.
Every call of ours can be sent twice without harm, so we retry here, by one rule for sync and async. Its default
``socket_timeout`` is replaced too: it cuts blocking reads short.
"""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import redis
import redis.asyncio
from redis.asyncio.connection import ConnectionPool as AsyncConnectionPool
from redis.asyncio.connection import parse_url as parse_async_url
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry
from tenacity import (
    AsyncRetrying,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from streamq._redis.cancelling import cancelling
from streamq._redis.failures import translate
from streamq._redis.scripts import Call
from streamq.config import display_url
from streamq.errors import BrokerUnavailable, ConfigError

T = TypeVar("T")

CONNECT_SECONDS = 5.0
READ_SECONDS = 5.0
EMBEDDED = "embedded://"
_SCHEMES = ("redis://", "rediss://", "unix://")

# What may stand behind the "?" of a URL; other options of redis-py would break what is set on purpose below.
_QUERY_OPTIONS = {
    "db",
    "username",
    "password",
    "client_name",
    "socket_connect_timeout",
    "ssl_cert_reqs",
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_ca_data",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
    "ssl_check_hostname",
}

# A connection that went dead without a word is noticed within half a minute, also by one who only listens.
_KEEPALIVE = {
    getattr(socket, name): value
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}

_FAILURES = (RedisError, OSError)

# For callers that wait: full jitter, so that a fleet of producers does not come back in step.
_PATIENCE: dict[str, Any] = {
    "retry": retry_if_exception_type(BrokerUnavailable),
    "wait": wait_random_exponential(multiplier=0.05, max=1.0),
    "stop": stop_after_delay(5.0),
    "reraise": True,
}


def check_url(url: str) -> None:
    """Look at `url` without connecting.

    Raises:
        ConfigError: it is of no form that streamq knows.
    """
    _pool_options(url, parse_url)


def _check_parts(url: str) -> None:
    """Raise ValueError for what redis-py would take, but not as it is meant."""
    parts = urlsplit(url)
    if strange := parse_qs(parts.query).keys() - _QUERY_OPTIONS:
        raise ValueError(f"unknown option {', '.join(sorted(strange))}")
    if parts.scheme != "unix" and not re.fullmatch(r"/?|/\d+", parts.path):
        raise ValueError(f"the path {parts.path!r} is no database number")


def _pool_options(url: str, parse: Any) -> dict[str, Any]:
    if url.startswith(EMBEDDED):
        directory = url.removeprefix(EMBEDDED)
        if not directory:
            raise ConfigError("embedded:// needs a folder, such as embedded://./data or embedded:///var/lib/shop")
        return {"directory": Path(directory).expanduser().absolute()}
    if not url.startswith(_SCHEMES):
        known = ", ".join((*_SCHEMES, EMBEDDED))
        raise ConfigError(f"cannot use the URL {display_url(url)!r}: it must begin with one of {known}")
    try:
        options: dict[str, Any] = parse(url)
        _check_parts(url)
    except ValueError as error:
        # The error's text may quote a password that was not escaped.
        why = f"percent-encode what is special in its password ({type(error).__name__})" if "@" in url else error
        raise ConfigError(f"cannot use the URL {display_url(url)!r}: {why}") from None
    if "path" not in options:
        options = {"socket_keepalive": True, "socket_keepalive_options": _KEEPALIVE, **options}
    return options


def _options(url: str, parse: Any, read_timeout: float, retry: object, embedded_class: str) -> dict[str, Any]:
    """Make the options of a connection pool; an embedded server is started, and has us as its user from now on."""
    options = _pool_options(url, parse)
    if "directory" in options:
        from streamq._redis import embedded  # noqa: PLC0415 - an extra

        path = embedded.acquire(options["directory"])
        options |= {"path": str(path), "connection_class": getattr(embedded, embedded_class)}
    return {
        "protocol": 2,
        "socket_timeout": read_timeout,
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": retry,
        "retry_on_error": [],
        "health_check_interval": 0,
        "max_connections": 10_000,
        "client_name": "streamq",
        **options,
    }


def _release(options: dict[str, Any]) -> None:
    directory = options.pop("directory", None)
    if directory is not None:
        from streamq._redis import embedded  # noqa: PLC0415 - an extra

        embedded.release(directory)


class SyncConnection:
    """Runs calls from threads; opens as many sockets as there are calls at a time.

    Args:
        url: where the server is.
        read_timeout: seconds to wait for a reply.
        patient: try again for some seconds when the server is away, instead of raising at once.
    """

    def __init__(self, url: str, *, read_timeout: float = READ_SECONDS, patient: bool = False) -> None:
        self._patient = patient
        retry = Retry(NoBackoff(), 0)
        self._options = _options(url, parse_url, read_timeout, retry, "EmbeddedConnection")
        self.client = redis.Redis(connection_pool=redis.ConnectionPool(**self._options))
        self.client.response_callbacks.clear()  # replies are parsed by the calls
        self._send: Any = self.client.execute_command

    def run(self, call: Call[T]) -> T:
        """Send `call` and read its reply.

        Raises:
            BrokerError: as `failures.translate` says. After `BrokerUnavailable` it is not known whether the call
                was carried out; every call may be sent again.
        """
        try:
            return self._run_once(call)
        except BrokerUnavailable:
            if not self._patient:
                raise
        result: T = Retrying(**_PATIENCE)(self._run_once, call)
        return result

    def _run_once(self, call: Call[T]) -> T:
        try:
            try:
                return call.parse(self._send(*call.words))
            except NoScriptError:
                return call.parse(self._send(*call.with_text))
        except _FAILURES as error:
            raise translate(error) from error

    def pubsub(self) -> Any:
        """Return a subscriber on a socket of its own."""
        return self.client.pubsub()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close every socket; for an embedded server, cease to be one of its users."""
        self.client.connection_pool.disconnect()
        _release(self._options)


class AsyncConnection:
    """Runs calls on one event loop; otherwise as `SyncConnection`."""

    def __init__(self, url: str, *, read_timeout: float = READ_SECONDS, patient: bool = False) -> None:
        self._patient = patient
        retry = AsyncRetry(NoBackoff(), 0)
        self._options = _options(url, parse_async_url, read_timeout, retry, "AsyncEmbeddedConnection")
        self._options["connection_class"] = cancelling(self._options.get("connection_class", redis.asyncio.Connection))
        self.client = redis.asyncio.Redis(connection_pool=AsyncConnectionPool(**self._options))
        self.client.response_callbacks.clear()  # replies are parsed by the calls
        self._send: Any = self.client.execute_command

    async def run(self, call: Call[T]) -> T:
        """Send `call` and read its reply; raises as `SyncConnection.run`."""
        try:
            return await self._run_once(call)
        except BrokerUnavailable:
            if not self._patient:
                raise
        result: T = await AsyncRetrying(**_PATIENCE)(self._run_once, call)
        return result

    async def _run_once(self, call: Call[T]) -> T:
        try:
            try:
                return call.parse(await self._send(*call.words))
            except NoScriptError:
                return call.parse(await self._send(*call.with_text))
        except _FAILURES as error:
            raise translate(error) from error

    async def run_together(self, *calls: Call[Any]) -> list[Any]:
        """Send plain commands in one round trip; the first that failed raises."""
        pipeline = self.client.pipeline(transaction=False)
        for call in calls:
            pipeline.execute_command(*call.words)
        try:
            # Raised by the pipeline itself, an error would have a text of redis-py's before the server's.
            replies = await pipeline.execute(raise_on_error=False)
        except _FAILURES as error:
            raise translate(error) from error
        for reply in replies:
            if isinstance(reply, Exception):
                raise translate(reply) from reply
        return [call.parse(reply) for call, reply in zip(calls, replies, strict=True)]

    async def close(self) -> None:
        """Close every socket; for an embedded server, cease to be one of its users."""
        await self.client.connection_pool.disconnect()
        await asyncio.to_thread(_release, self._options)
