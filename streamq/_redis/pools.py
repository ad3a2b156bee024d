"""Pools of sockets, with every option of redis-py set on purpose.

Its own retries are off: its default of ten retries enqueued 50 of 50 messages twice when one reply was lost. Its
default ``socket_timeout`` is replaced too: it cuts blocking reads short.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.connection import ConnectionPool as AsyncConnectionPool
from redis.asyncio.connection import parse_url as parse_async_url
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from streamq._redis.cancelling import cancelling
from streamq._redis.urls import Place, read_url

CONNECT_SECONDS = 5.0
READ_SECONDS = 5.0
_SENTINEL_SECONDS = 1.0  # for an answer of each Sentinel: there are others to be asked


def _on_purpose(read_timeout: float, connect_timeout: float, retry: object) -> dict[str, Any]:
    return {
        "protocol": 2,
        "socket_timeout": read_timeout,
        "socket_connect_timeout": connect_timeout,
        "retry": retry,
        "retry_on_error": [],
        "health_check_interval": 0,
        "client_name": "streamq",
    }


def _options(place: Place, read_timeout: float, retry: object, embedded_class: str) -> dict[str, Any]:
    options = {**_on_purpose(read_timeout, CONNECT_SECONDS, retry), "max_connections": 10_000, **place.options}
    if place.directory is not None:
        from streamq._redis import embedded  # noqa: PLC0415 - an extra

        path = embedded.acquire(place.directory)
        options |= {"directory": place.directory, "path": str(path)}
        options["connection_class"] = getattr(embedded, embedded_class)
    return options


def _sentinel_options(place: Place, retry: object) -> dict[str, Any]:
    return {**_on_purpose(_SENTINEL_SECONDS, _SENTINEL_SECONDS, retry), **place.sentinel_options}


def open_pool(url: str, read_timeout: float) -> tuple[redis.ConnectionPool, list[redis.Redis]]:
    """Make a pool for threads, and the clients of the Sentinels that tell it who the master is.

    An embedded server is started, and has us as its user from now on, until `leave`.
    """
    retry, place = Retry(NoBackoff(), 0), read_url(url, parse_url)
    options = _options(place, read_timeout, retry, "EmbeddedConnection")
    if not place.sentinels:
        return redis.ConnectionPool(**options), []
    module: Any = redis.sentinel
    manager = module.Sentinel(place.sentinels, sentinel_kwargs=_sentinel_options(place, retry))
    return module.SentinelConnectionPool(place.service, manager, **options), manager.sentinels


def open_async_pool(url: str, read_timeout: float) -> tuple[AsyncConnectionPool, list[redis.asyncio.Redis]]:
    """Make a pool for an event loop; otherwise as `open_pool`."""
    retry, place = AsyncRetry(NoBackoff(), 0), read_url(url, parse_async_url)
    options = _options(place, read_timeout, retry, "AsyncEmbeddedConnection")
    if not place.sentinels:
        options["connection_class"] = cancelling(options.get("connection_class", redis.asyncio.Connection))
        return AsyncConnectionPool(**options), []
    module: Any = redis.asyncio.sentinel
    is_safe = options.pop("ssl", False)
    kind = module.SentinelManagedSSLConnection if is_safe else module.SentinelManagedConnection
    options["connection_class"] = cancelling(kind)
    manager = module.Sentinel(place.sentinels, sentinel_kwargs=_sentinel_options(place, retry))
    return module.SentinelConnectionPool(place.service, manager, **options), manager.sentinels


def leave(directory: Path) -> None:
    """Cease to be a user of an embedded server."""
    from streamq._redis import embedded  # noqa: PLC0415 - an extra

    embedded.release(directory)
