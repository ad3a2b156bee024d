"""What errors of redis-py and of sockets mean, and which URLs can be used."""

from __future__ import annotations

import ssl

import pytest
from redis import exceptions as redis_errors

from streamq import StreamQ
from streamq._redis.connections import check_url, display_url
from streamq._redis.failures import translate
from streamq.errors import (
    BrokerError,
    BrokerOutOfMemory,
    BrokerRefused,
    BrokerReset,
    BrokerUnavailable,
    ConfigError,
)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (redis_errors.ConnectionError("Error 111 connecting to h:1. Connection refused."), BrokerUnavailable),
        (redis_errors.TimeoutError("Timeout reading from socket"), BrokerUnavailable),
        (redis_errors.BusyLoadingError("LOADING Redis is loading the dataset in memory"), BrokerUnavailable),
        (redis_errors.ReadOnlyError("You can't write against a read only replica."), BrokerUnavailable),
        (redis_errors.MaxConnectionsError("Too many connections"), BrokerUnavailable),
        (redis_errors.ClusterCrossSlotError("Keys in request don't hash to the same slot"), BrokerRefused),
        (redis_errors.ClusterDownError("CLUSTERDOWN The cluster is down"), BrokerUnavailable),
        (redis_errors.TryAgainError("TRYAGAIN Multiple keys request during rehashing of slot"), BrokerUnavailable),
        (redis_errors.ResponseError("MISCONF Redis is configured to save RDB snapshots"), BrokerUnavailable),
        (redis_errors.ResponseError("MASTERDOWN Link with MASTER is down"), BrokerUnavailable),
        (redis_errors.ResponseError("NOREPLICAS Not enough good replicas to write."), BrokerUnavailable),
        (redis_errors.ResponseError("BUSY Redis is busy running a script."), BrokerUnavailable),
        (ConnectionResetError(104, "Connection reset by peer"), BrokerUnavailable),
        (TimeoutError(), BrokerUnavailable),
        (OSError(24, "Too many open files"), BrokerUnavailable),
        (ssl.SSLError("certificate verify failed"), BrokerUnavailable),
        (redis_errors.AuthenticationError("WRONGPASS invalid username-password pair"), BrokerRefused),
        (redis_errors.AuthenticationError("Authentication required."), BrokerRefused),
        (redis_errors.NoPermissionError("this user has no permissions to run the 'xadd' command"), BrokerRefused),
        (redis_errors.ResponseError("NOAUTH Authentication required."), BrokerRefused),
        (redis_errors.ResponseError("NOPERM No permissions to access a key"), BrokerRefused),
        (redis_errors.ResponseError("DENIED Redis is running in protected mode"), BrokerRefused),
        (redis_errors.InvalidResponse("Protocol Error: b'HTTP/1.1 400'"), BrokerRefused),
        (redis_errors.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), BrokerOutOfMemory),
        (redis_errors.ResponseError("OOM command not allowed when used memory > 'maxmemory'."), BrokerOutOfMemory),
        (redis_errors.ResponseError("NOGROUP No such key 's' or consumer group 'workers'"), BrokerReset),
        (redis_errors.ResponseError("UNBLOCKED the stream key no longer exists"), BrokerReset),
        (redis_errors.ResponseError("WRONGTYPE Operation against a key holding the wrong kind"), BrokerReset),
        (redis_errors.ResponseError("ERR unknown command 'XAUTOCLAIM'"), BrokerError),
        (redis_errors.DataError("Invalid input of type"), BrokerError),
        (redis_errors.RedisError(), BrokerError),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, Exception) else value.__name__,
)
def test_an_error_has_one_meaning(error, kind):
    """Each becomes one class, which says whether to wait, to give up, or to make the stream again."""
    found = translate(error)
    assert type(found) is kind
    assert str(found)


def test_what_is_no_redis_is_called_so():
    assert "not a Redis server" in str(translate(redis_errors.InvalidResponse("Protocol Error: b'HTTP'")))


# ---- URLs


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6379/0",
        "redis://",
        "rediss://user:p%40ss@example.org/1",
        "unix:///run/redis.sock?db=1",
        "redis://[::1]:6379",
        "embedded://./data",
        "embedded:///var/lib/shop",
    ],
)
def test_a_url_that_can_be_used(url):
    """An app is made of it, and nothing is connected."""
    check_url(url)
    assert StreamQ(url).settings.url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://localhost",
        "redis+sentinel://localhost",
        "redis://localhost:99999",
        "redis://localhost:port",
        "redis://localhost?db=x",
        "redis://localhost?socket_timeout=soon",
        "redis://[::1",
        "embedded://",
        "memory://",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_at_once(url):
    with pytest.raises(ConfigError, match=r"URL|embedded:// needs a folder"):
        StreamQ(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost/first",  # taken for database 0
        "redis://localhost?no_such_option=1",  # a TypeError at the first call
        "redis://localhost?decode_responses=true",  # replies of another kind
        "redis://localhost?protocol=3",
    ],
)
def test_a_url_that_would_fail_later_is_refused_at_once(url):
    with pytest.raises(ConfigError):
        check_url(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost"),
        ("redis://:secret@localhost/0", "redis://:***@localhost/0"),
        ("redis://user:secret@localhost", "redis://user:***@localhost"),
        ("redis://secret:secret@localhost", "redis://secret:***@localhost"),
        ("redis://:se:cr@et@localhost", "redis://:***@localhost"),
        ("redis://:s%65cret@localhost", "redis://:***@localhost"),
        ("unix://user:secret@/run/redis.sock", "unix://user:***@/run/redis.sock"),
        ("embedded://./data", "embedded://./data"),
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    assert display_url(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hun/ter2@localhost:6379",
        "redis://:hun#ter2@localhost:6379",
        "redis://:hun?ter2@localhost:6379",
        "redis://:[hunter2@localhost",
        "redis://:hunter2\u2100@localhost",
    ],
)
def test_a_url_with_a_password_that_was_not_escaped_does_not_show_it(url):
    """The most common mistake in a URL must not write the password to the log."""
    with pytest.raises(ConfigError) as caught:
        check_url(url)
    shown = f"{display_url(url)} {caught.value}"
    assert "hun" not in shown
    assert "ter2" not in shown


@pytest.mark.parametrize(
    "url", ["redis+sentinel://:hunter2@localhost", "user:hunter2@localhost:6379", " redis://:hunter2@localhost"]
)
def test_a_url_of_no_known_form_does_not_show_its_password(url):
    with pytest.raises(ConfigError) as caught:
        check_url(url)
    assert "hunter2" not in f"{display_url(url)} {caught.value}"


def test_a_password_in_the_query_is_not_shown():
    assert "hunter2" not in display_url("redis://localhost?password=hunter2")
