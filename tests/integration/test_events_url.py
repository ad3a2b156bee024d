"""Channels on a server of their own: tasks know nothing of it, and do not need it."""

from __future__ import annotations

import time
from contextlib import closing

import pytest
from tenacity import stop_after_delay

from streamq import BrokerUnavailable, ConfigError, StreamQ
from streamq._redis import connections
from tests.hearing import payloads, take
from tests.serving import job_of, serving


@pytest.fixture
def events_server(start_node):
    return start_node()


@pytest.fixture
def app(server_url, events_server):
    with closing(StreamQ(server_url, events_url=events_server.url)) as app:
        yield app
        app.broadcast.close()


async def test_channels_are_there_and_tasks_are_not(app, events_server, connection):
    """A task publishes on a channel; its result comes by the main server as ever."""

    @app.task
    async def double(n: int) -> int:
        await app.channel("doubled", durable=True).publish(2 * n)
        return 2 * n

    async with app.channel("doubled", durable=True).listen() as heard:
        async with serving(job_of(app.settings, "app", app.tasks, "w-1", lease=2.0)):
            assert await (await double.adelay(4)).aget(timeout=10) == 8
        assert payloads(await take(heard, 1)) == [8]
        assert events_server.client.keys("*:channel*")
        assert not events_server.client.keys("*default*")
        assert not [key for key in connection.client.execute_command("KEYS", "*") if b"channel" in key]
    await app.broadcast.aclose()
    await app.aclose()


async def test_tasks_do_not_suffer_when_that_server_fails(app, events_server, monkeypatch):
    """Who publishes is told so; who listens hears of a gap when it is there again."""
    monkeypatch.setitem(connections.PATIENCE, "stop", stop_after_delay(0.2))

    @app.task
    async def double(n: int) -> int:
        return 2 * n

    async with serving(job_of(app.settings, "app", app.tasks, "w-1", lease=2.0)), app.channel("prices").listen():
        events_server.kill()
        began = time.monotonic()
        assert [await (await double.adelay(n)).aget(timeout=10) for n in range(20)] == [2 * n for n in range(20)]
        assert time.monotonic() - began < 5
        with pytest.raises(BrokerUnavailable):
            await app.channel("prices").publish(1)
        with pytest.raises(BrokerUnavailable):
            app.channel("prices").publish_sync(1)
    await app.broadcast.aclose()
    await app.aclose()


def test_a_url_that_cannot_be_used_is_refused_at_once(server_url):
    with pytest.raises(ConfigError, match="redis\\+cluster://"):
        StreamQ(server_url, events_url="redis+cluster://")


@pytest.mark.parametrize("url", ["redis+cluster://localhost", "rediss+cluster://me:secret@a:1,b:2"])
def test_queues_are_not_on_a_cluster(url):
    """It is said at once, and what may be there."""
    with pytest.raises(ConfigError, match=r"single server, or Sentinel.*events_url") as caught:
        StreamQ(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("durable", [False, True])
async def test_a_server_alone_has_sharded_channels_too(any_server, server_url, durable):
    """All of them are on its one connection; what is plain and has the same name is apart."""
    with closing(StreamQ(server_url)) as app:
        channel, plain = (app.channel("orders", durable=durable, sharded=sharded) for sharded in (True, False))
        async with channel.listen() as heard:
            assert (await channel.publish(1)).heard == 1
            assert payloads(await take(heard, 1)) == [1]
            assert (await plain.publish(2)).heard == 0
            assert (await channel.publish(3)).heard == 1
        for _ in range(20):  # what ends and what begins at the same time are told apart
            async with channel.listen() as heard:
                await channel.publish(4)
                assert payloads(await take(heard, 1)) == [4]
                assert heard.counts.reconnected == 0
        await app.aclose()
