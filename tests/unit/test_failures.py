"""What errors of redis-py and of sockets mean, what follows them, and which URLs can be used."""

from __future__ import annotations

import ssl

import pytest
from redis import exceptions as redis_errors
from redis.sentinel import MasterNotFoundError

from streamq import StreamQ
from streamq._redis.connections import AsyncConnection, SyncConnection
from streamq._redis.failures import POLICY, Then, judge
from streamq._redis.urls import Address, check_url, read_cluster, read_url
from streamq.config import display_url
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
    found = judge(error).error(error)
    assert type(found) is kind
    assert str(found)


@pytest.mark.parametrize(
    ("error", "then"),
    [
        (redis_errors.ReadOnlyError("You can't write against a read only replica."), Then.RESOLVE),
        (redis_errors.ResponseError("UNBLOCKED force unblock from blocking operation, instance state"), Then.RESOLVE),
        (redis_errors.ResponseError("WAIT cannot be used with replica instances. Please also"), Then.RESOLVE),
        (redis_errors.MasterDownError("Link with MASTER is down"), Then.RESOLVE),
        (MasterNotFoundError("No master found for 'shop'"), Then.RESOLVE),
        (redis_errors.ConnectionError("Connection closed by server."), Then.RESOLVE),
        (ConnectionResetError(104, "Connection reset by peer"), Then.RESOLVE),
        (redis_errors.MaxConnectionsError("Too many connections"), Then.RETRY),
        (redis_errors.ConnectionError("max number of clients reached"), Then.RETRY),
        (redis_errors.ResponseError("BUSY Redis is busy running a script."), Then.RETRY),
        (redis_errors.ResponseError("UNBLOCKED the stream key no longer exists"), Then.REMAKE),
        (redis_errors.ResponseError("BUSYGROUP Consumer Group name already exists"), Then.RAISE),
        (redis_errors.ResponseError("BUSYKEY Target key name already exists."), Then.RAISE),
        (redis_errors.AuthenticationError("invalid username-password pair"), Then.RAISE),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_follows_an_error(error, then):
    """A server that may not be the master any longer is left; good sockets to the right one are kept."""
    assert judge(error).then is then


def test_the_policy_says_one_thing_of_each_error():
    """What is retried is what callers see as unavailable, and no line is hidden by one before it."""
    for number, rule in enumerate(POLICY):
        assert (rule.then in {Then.RETRY, Then.RESOLVE}) == (rule.means is BrokerUnavailable)
        assert (rule.then is Then.REMAKE) == (rule.means is BrokerReset)
        for before in POLICY[:number]:
            if isinstance(rule.sign, str) and isinstance(before.sign, str):
                assert not f"{rule.sign} ".startswith(f"{before.sign} ")
            elif not isinstance(rule.sign, str) and not isinstance(before.sign, str):
                assert not issubclass(rule.sign, before.sign)


def test_what_is_no_redis_is_called_so():
    error = redis_errors.InvalidResponse("Protocol Error: b'HTTP'")
    assert "not a Redis server" in str(judge(error).error(error))


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
        "redis+sentinel://localhost/shop",
        "rediss+sentinel://user:p%40ss@a:1,b:2,[::1]:3/shop/1?ssl_cert_reqs=none",
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
        "redis+sentinel://localhost/",
        "redis+sentinel:///shop",
        "redis+sentinel://a,,b/shop",
        "redis+sentinel://a:port/shop",
        "redis+sentinel://a:99999/shop",
        "redis+sentinel://a;b:26379/shop",
        "redis+sentinel://a/shop/first",
        "redis+sentinel://a/shop/1/2",
        "redis+sentinel://a/shop?no_such_option=1",
        "redis+sentinel://a/shop?db=x",
        "sentinel://a/shop",
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


def test_a_url_of_sentinels_is_read_whole():
    """Its login is the server's; the Sentinels have one of their own, and TLS is for both."""
    place = read_url("rediss+sentinel://me:p%40ss@a:1,b,[::1]:3/the%20shop/2?sentinel_password=x%26y&ssl_ca_certs=/ca")
    assert place.sentinels == (("a", 1), ("b", 26379), ("::1", 3))
    assert place.service == "the shop"
    server, sentinel = place.options, place.sentinel_options
    assert (server["username"], server["password"], server["db"]) == ("me", "p@ss", 2)
    assert "host" not in server
    assert sentinel["password"] == "x&y"  # noqa: S105 - made up
    assert {"username", "db"}.isdisjoint(sentinel)
    for options in (server, sentinel):
        assert options["ssl"] is True
        assert options["ssl_ca_certs"] == "/ca"
        assert options["socket_keepalive"] is True


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://",
        "redis+cluster:///",
        "redis+cluster://a,,b",
        "redis+cluster://a:port",
        "redis+cluster://a:99999",
        "redis+cluster://a;b",
        "redis+cluster://a/1",
        "redis+cluster://a?db=1",
        "redis+cluster://a?no_such_option=1",
        "redis+cluster://a?socket_connect_timeout=soon",
        "rediss+cluster://:hun/ter2@a",
        "redis+cluster://:hun#ter2@a",
        "redis+cluster://:hun@ter2@a",
    ],
)
def test_a_url_of_a_cluster_that_cannot_be_used_is_refused_at_once(url):
    with pytest.raises(ConfigError, match="URL") as caught:
        StreamQ(events_url=url)
    assert "ter2" not in str(caught.value)


def test_a_url_of_a_cluster_is_read_whole():
    """Its login and its options are those of every node."""
    place = read_cluster("rediss+cluster://me:p%40ss@a:1,b,[::1]:3?ssl_ca_certs=/ca")
    assert place.seeds == (("a", 1), ("b", 6379), ("::1", 3))
    urls = [place.url_of(address) for address in (*place.seeds, Address("10.0.0.7", 7000))]
    assert urls[0] == "rediss://me:p%40ss@a:1?ssl_ca_certs=/ca"
    assert urls[2] == "rediss://me:p%40ss@[::1]:3?ssl_ca_certs=/ca"
    for url, host in zip(urls, ("a", "b", "::1", "10.0.0.7"), strict=True):
        options = read_url(url).options
        assert (options["host"], options["username"], options["password"]) == (host, "me", "p@ss")
        assert options["ssl_ca_certs"] == "/ca"
    assert StreamQ(events_url="redis+cluster://a:1,b:2/").settings.events_url == "redis+cluster://a:1,b:2/"


@pytest.mark.parametrize("url", ["redis+sentinel://me:pw@a/shop", "rediss+sentinel://me:pw@a/shop?sentinel_password=x"])
async def test_sockets_to_sentinels_and_their_master_have_our_options(url):
    """redis-py's own retries and its protocol are off there too, and nothing is connected."""
    connections = [SyncConnection(url), AsyncConnection(url)]
    for connection in connections:
        (sentinel,) = connection._sentinels
        for pool in (connection.client.connection_pool, sentinel.connection_pool):
            made = pool.make_connection()
            assert made.retry.get_retries() == 0
            assert int(made.protocol if hasattr(made, "protocol") else made._protocol) == 2
            assert made.socket_timeout
            assert made.health_check_interval == 0
            assert ("SSL" in type(made).__name__) == url.startswith("rediss")
    connections[0].close()
    await connections[1].close()


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
        ("redis+sentinel://me:secret@a:1,b:2/shop", "redis+sentinel://me:***@a:1,b:2/shop"),
        ("redis+sentinel://a/shop?sentinel_password=secret&db=1", "redis+sentinel://a/shop?sentinel_password=***&db=1"),
        ("redis+sentinel://a:1/shop?sentinel_password=sec@ret", "redis+sentinel://***"),
        ("redis+cluster://me:secret@a:1,b:2", "redis+cluster://me:***@a:1,b:2"),
        ("redis://localhost:6379?password=sec@ret", "redis://***"),
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
