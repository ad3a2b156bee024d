"""The proxy of the tests of faults does what it says."""

from __future__ import annotations

import contextlib

import pytest
import redis

from streamq._redis.connections import SyncConnection
from tests.proxy import Fault, Passed, Proxy
from tests.workers import until


@pytest.fixture
def proxy(server_url):
    with Proxy(server_url) as proxy:
        yield proxy


@pytest.fixture
def through(proxy):
    """Give a connection through the proxy that does not wait for long."""
    opened = SyncConnection(proxy.url, read_timeout=0.1)
    yield opened.client.execute_command
    opened.close()


def test_calls_pass(any_server, proxy, through, connection):
    """Whatever their size; and are noted by name."""
    large = b"x" * 200_000
    assert through("SET", "large", large, "PX", 60_000) == b"OK"
    assert through("GET", "large") == large
    assert through("EVAL", "return {1, {'two', false}}", 0) == [1, [b"two", None]]
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        through("XLEN", "large")
    assert proxy.passed[-4:] == [(name, None) for name in ("SET", "GET", "EVAL", "XLEN")]


def test_subscriptions_pass(proxy, connection):
    """What is published reaches a subscriber behind the proxy."""
    behind = SyncConnection(proxy.url)
    pubsub = behind.client.pubsub()
    pubsub.subscribe("news")
    until(lambda: connection.client.execute_command("PUBLISH", "news", "good"))
    found = until(lambda: pubsub.get_message(ignore_subscribe_messages=True, timeout=1))
    assert found["data"] == b"good"
    pubsub.close()
    behind.close()


@pytest.mark.parametrize(
    ("fault", "sees", "applied"),
    [
        (Fault.BEFORE, redis.ConnectionError, False),
        (Fault.AFTER, redis.ConnectionError, True),
        (Fault.DELAY, redis.TimeoutError, True),
        (Fault.HOLE, redis.TimeoutError, False),
    ],
)
def test_the_nth_call_is_struck(proxy, through, connection, fault, sees, applied):
    """That one alone, and the server has seen it or not."""
    strike = proxy.strike("INCR", fault, nth=2, seconds=None)
    connection.client.execute_command("SET", "n", 0, "PX", 60_000)
    assert through("INCR", "n") == 1
    assert not strike.struck
    with pytest.raises(sees):
        through("INCR", "n")
    assert strike.struck
    strike.release()
    assert through("INCR", "n") == (3 if applied else 2)
    assert [one.fault for one in proxy.passed if one.name == "INCR"] == [None, fault, None]


def test_a_delayed_reply_comes_when_it_is_released(proxy, connection):
    behind = SyncConnection(proxy.url)
    strike = proxy.strike("TIME", Fault.DELAY, seconds=None)
    strike.release()
    assert len(behind.client.execute_command("TIME")) == 2
    behind.close()


def struck_in_storm(server_url: str, seed: int) -> list[Passed]:
    with Proxy(server_url) as proxy:
        proxy.storm(seed, 0.2, [Fault.BEFORE, Fault.AFTER])
        behind = SyncConnection(proxy.url)
        for _ in range(100):
            with contextlib.suppress(redis.ConnectionError):
                behind.client.execute_command("DBSIZE")
        behind.close()
        return [one for one in proxy.passed if one.name == "DBSIZE"]


def test_a_storm_strikes_alike_by_its_seed(server_url):
    """About the share of calls that was asked for."""
    first = struck_in_storm(server_url, 1)
    assert 5 < sum(one.fault is not None for one in first) < 40
    together = min(len(first), len(again := struck_in_storm(server_url, 1)))
    assert first[:together] == again[:together]
    assert first != struck_in_storm(server_url, 2)
