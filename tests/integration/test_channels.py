"""Typed messages between processes: published to all who listen, by one connection for all listeners of a process."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import threading
import time
import weakref
from contextlib import closing
from typing import Any

import pytest
from pydantic import BaseModel

from streamq import ConfigError, EncodeError, PayloadTooLarge, StreamQ
from streamq.channels import signal as signals
from tests.hearing import Hearing, payloads, take
from tests.workers import until


class Price(BaseModel):
    item: str
    cents: int


@pytest.fixture
def app(server_url):
    with closing(StreamQ(server_url)) as app:
        yield app


@pytest.fixture
def raw(connection):
    return connection.client.execute_command


def numsub(raw, name):
    return raw("PUBSUB", "NUMSUB", f"sq:channel:{name}")[1]


@pytest.mark.parametrize("sharded", [False, True])
async def test_what_was_published_before_is_not_heard(app, sharded):
    """Not even what was still on its way when another listener to the channel, the last, had just ended."""
    channel = app.channel("numbers", int, sharded=sharded)
    for number in range(100):
        async with channel.listen() as heard:
            await channel.publish(number)
            assert payloads(await take(heard, 1)) == [number]
            await channel.publish(-1)
    await app.aclose()


async def test_a_message_comes_as_what_it_was(any_server, app):
    channel = app.channel("prices", Price, sender="shop")
    async with channel.listen() as heard:
        before = time.time()
        said = {"type": "change", "correlation_id": "17", "reply_to": "answers", "expires": 5.0}
        published = await channel.publish(Price(item="tea", cents=499), **said)
        assert (published.heard, published.entry) == (1, None)
        [message] = await take(heard, 1)
    assert message.payload == Price(item="tea", cents=499)
    assert (message.sender, message.type, message.channel, message.sequence) == ("shop", "change", "prices", 1)
    assert (message.correlation_id, message.reply_to) == ("17", "answers")
    assert before - 1 < message.time.timestamp() < time.time() + 1
    assert message.expires_ms - message.time_ms == 5000
    assert message.id == f"{message.session}-1"
    assert (message.entry, message.number, message.deliveries) == (None, None, 1)
    await app.aclose()


def test_threads_publish_and_listen(any_server, app):
    channel = app.channel("prices", Price)
    with channel.listen() as heard:
        assert channel.publish_sync(Price(item="tea", cents=499)).heard == 1
        message = next(heard)
    assert (message.payload, message.type) == (Price(item="tea", cents=499), "Price")


async def test_without_a_type_it_is_whatever_json_can_carry(any_server, app):
    channel = app.channel("anything")
    values = [None, 1, "ü", [1, {"a": None}], {"id": 7, "payload": {}}]
    async with channel.listen() as heard:
        for value in values:
            await channel.publish(value)
        assert payloads(await take(heard, len(values))) == values
    await app.aclose()


async def test_a_pattern_hears_all_names_that_match(any_server, app):
    every = app.channel("shop:*", int)
    async with every.listen() as heard:
        for name in ("shop:a", "shop:b:c", "other:a"):
            await app.channel(name, int).publish(1)
        await app.channel("shop:a", int).publish(2)
        found = [(message.channel, message.payload) for message in await take(heard, 3)]
        assert found == [("shop:a", 1), ("shop:b:c", 1), ("shop:a", 2)]
    with pytest.raises(ConfigError, match="pattern"):
        await every.publish(1)
    await app.aclose()


async def test_namespaces_hear_nothing_of_each_other(any_server, server_url, app):
    with closing(StreamQ(server_url, namespace="other")) as other:
        async with app.channel("*").listen() as heard, app.channel("prices").listen() as one:
            assert (await other.channel("prices").publish(1)).heard == 0
            await app.channel("prices").publish(2)
            assert payloads([*await take(heard, 1), *await take(one, 1)]) == [2, 2]
        await other.aclose()
    await app.aclose()


async def test_a_thousand_listeners_share_one_connection(any_server, app, raw):
    """Of one name, of many, and of patterns; each hears what is its own."""
    names = [*[f"room:{number}" for number in range(500)], *["lobby"] * 490, *["room:*"] * 10]
    listeners = [app.channel(name, int).listen() for name in names]
    for listener in listeners:
        await listener.__aenter__()
    assert raw("CLIENT", "LIST", "TYPE", "pubsub").count(b"id=") == 1
    await app.channel("lobby", int).publish(1)
    await asyncio.gather(*(app.channel(f"room:{number}", int).publish(number) for number in range(500)))
    for number, listener in enumerate(listeners):
        if number < 500:
            assert payloads(await take(listener, 1)) == [number]
        elif number < 990:
            assert payloads(await take(listener, 1)) == [1]
        else:
            assert sorted(payloads(await take(listener, 500))) == list(range(500))
    for listener in listeners:
        await listener.aclose()
    until(lambda: raw("PUBSUB", "NUMPAT") == 0 and raw("PUBSUB", "CHANNELS") == [])
    await app.aclose()


async def test_one_event_loop_publishes_in_order(any_server, app):
    channel = app.channel("prices", int)
    async with channel.listen(buffer=5000) as heard:
        await asyncio.gather(*(channel.publish(number) for number in range(3000)))
        messages = await take(heard, 3000)
    assert payloads(messages) == list(range(3000))
    assert [message.sequence for message in messages] == list(range(1, 3001))
    await app.aclose()


def test_threads_number_what_they_publish_without_holes(any_server, app):
    channel = app.channel("prices", int)
    with Hearing(channel.listen()) as hearing:
        threads = [
            threading.Thread(target=lambda: [channel.publish_sync(number) for number in range(100)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: len(hearing.items) == 400)
    assert [message.sequence for message in hearing.items] == list(range(1, 401))


@pytest.mark.parametrize(
    ("payload", "error"),
    [({"item": "tea"}, EncodeError), (Price(item="x" * 3000, cents=1), PayloadTooLarge)],
    ids=["wrong type", "too large"],
)
async def test_what_cannot_be_sent_is_not_sent(any_server, server_url, payload, error):
    """Nor does it leave a hole in the numbers."""
    with closing(StreamQ(server_url, max_message=2000)) as app:
        channel = app.channel("prices", Price)
        async with channel.listen() as heard:
            with pytest.raises(error, match="channel prices"):
                await channel.publish(payload)
            with pytest.raises(error, match="channel prices"):
                channel.publish_sync(payload)
            await channel.publish(Price(item="tea", cents=1))
            channel.publish_sync(Price(item="tea", cents=2))
            first, second = await take(heard, 2)
            assert (first.payload.cents, first.sequence) == (1, 1)
            assert (second.payload.cents, second.sequence) == (2, 1)
        await app.aclose()


async def test_what_is_no_message_is_skipped_and_counted(any_server, app, raw, caplog):
    """With one line in the log, and not one for each."""
    channel = app.channel("prices", int)
    async with channel.listen() as heard:
        good = {"sender": "a", "type": "int", "channel": "prices", "time_ms": 1, "session": "s", "sequence": 1}
        broken = [b"", b"\xff", b"[1]", b"null", b"{}", json.dumps({**good, "payload": "x"}), json.dumps(good)]
        broken.append(json.dumps({**good, "payload": 1, "sequence": "first"}))
        for data in broken:
            assert raw("PUBLISH", "sq:channel:prices", data) == 1
        newer = {**good, "payload": 7, "colour": "blue"}  # of a version to come
        raw("PUBLISH", "sq:channel:prices", json.dumps(newer))
        [message] = await take(heard, 1)
    assert (message.payload, message.sender) == (7, "a")
    assert heard.counts.unreadable == len(broken)
    assert heard.counts.received == len(broken) + 1
    complaints = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert ["prices" in record.getMessage() for record in complaints] == [True]
    await app.aclose()


@pytest.mark.parametrize(
    "options",
    [{"buffer": 0}, {"buffer": 1.5}, {"buffer": True}, {"when_full": "wait"}, {"after": "1-1"}],
    ids=str,
)
def test_what_a_listener_cannot_do_is_refused(app, options):
    with pytest.raises(ConfigError):
        app.channel("prices").listen(**options)


@pytest.mark.parametrize("name", ["", "a b", "a{b}", "a::b", ":a", "a:", 7, None], ids=str)
def test_names_that_cannot_be_used_are_refused(app, name):
    with pytest.raises(ConfigError):
        app.channel(name)


@pytest.mark.parametrize("retention", [{"max_length": 0}, {"max_length": 1.5}, {"max_age": 0}, {"max_age": "1"}])
def test_retention_that_cannot_be_used_is_refused(app, retention):
    with pytest.raises(ConfigError):
        app.channel("prices", durable=True, **retention)


@pytest.mark.parametrize("durable", [False, True])
async def test_a_channel_may_be_sharded(any_server, app, raw, durable):
    channel = app.channel("prices", int, sharded=True, durable=durable)
    async with channel.listen() as heard, app.channel("prices", int).listen() as other:
        assert raw("PUBSUB", "SHARDNUMSUB", "sq:channel:{prices}")[1] == 1
        await channel.publish(1)
        assert payloads(await take(heard, 1)) == [1]
        raw("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.to_thread(until, lambda: heard.counts.reconnected)
        await channel.publish(2)
        [*_, message] = await take(heard, 1 if durable else 2)
        assert message.payload == 2
        assert other.counts.received == 0
    until(lambda: raw("PUBSUB", "SHARDNUMSUB", "sq:channel:{prices}")[1] == 0)
    await app.aclose()


async def test_channels_may_be_on_another_server(any_server, server_url, private_server, raw):
    url = f"redis://127.0.0.1:{private_server().port}/0"
    with closing(StreamQ(server_url, events_url=url)) as app, closing(StreamQ(url)) as there:
        async with there.channel("orders", int).listen() as heard:
            await app.channel("orders", int, durable=True).publish(1)
            assert payloads(await take(heard, 1)) == [1]
            assert raw("DBSIZE") == 0
        await there.aclose()
        await app.aclose()


# ---- the end


async def test_who_leaves_the_loop_is_subscribed_until_it_lets_go(any_server, app, raw):
    channel = app.channel("prices", int)

    async def first():
        async for message in channel.listen():
            return message.payload
        return None

    reading = asyncio.create_task(first())
    await asyncio.to_thread(until, lambda: numsub(raw, "prices") == 1)
    await channel.publish(1)
    assert await reading == 1
    del reading
    await asyncio.to_thread(until, lambda: gc.collect() is not None and numsub(raw, "prices") == 0)
    await app.aclose()


def test_a_listener_that_is_dropped_hears_no_more(any_server, app, raw):
    listener = app.channel("prices", int).listen()
    listener.__enter__()
    assert numsub(raw, "prices") == 1
    del listener
    until(lambda: numsub(raw, "prices") == 0)


def test_one_may_listen_again(any_server, app):
    channel = app.channel("prices", int)
    for number in range(3):
        with channel.listen() as heard:
            channel.publish_sync(number)
            assert next(heard).payload == number


def test_one_of_two_listeners_goes(any_server, app, raw):
    channel = app.channel("prices", int)
    with channel.listen() as stays:
        with channel.listen():
            pass
        channel.publish_sync(1)
        assert next(stays).payload == 1
        assert numsub(raw, "prices") == 1


@pytest.mark.parametrize("durable", [False, True])
def test_close_ends_who_waits_in_another_thread(any_server, app, durable):
    with Hearing(app.channel("prices", int, durable=durable).listen()) as hearing:
        app.channel("prices", int, durable=durable).publish_sync(1)
        until(lambda: payloads(hearing.items) == [1])
        hearing.listener.close()
        until(lambda: not hearing._thread.is_alive())
    assert hearing.error is None


async def test_close_ends_who_waits_in_another_task(any_server, app):
    listener = app.channel("prices", int).listen()
    await listener.__aenter__()

    async def collect():
        return [message async for message in listener]

    waiting = asyncio.create_task(collect())
    await asyncio.sleep(0)
    await listener.aclose()
    async with asyncio.timeout(5):
        assert await waiting == []
    await app.aclose()


async def test_who_is_cancelled_while_it_waits_can_go_on(any_server, app):
    channel = app.channel("prices", int)
    async with channel.listen() as heard:
        for number in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await anext(heard)
            await channel.publish(number)
            assert payloads(await take(heard, 1)) == [number]
    await app.aclose()


def test_an_event_loop_that_has_waited_can_go(any_server, app):
    """What wakes those who wait on it does not hold it."""

    async def once():
        channel = app.channel("prices", int)
        async with channel.listen() as heard:
            waiting = asyncio.create_task(anext(heard))
            await asyncio.sleep(0)
            await channel.publish(1)
            assert (await waiting).payload == 1
        await app.aclose()
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(once())
    gc.collect()
    assert loop() is None
    assert len(signals._bells) == 0


def test_listeners_of_two_event_loops_and_a_thread_hear_the_same(any_server, app):
    channel = app.channel("prices", int)
    found: list[Any] = []

    async def hear():
        async with channel.listen() as heard:
            found.append(payloads(await take(heard, 3)))

    threads = [threading.Thread(target=lambda: asyncio.run(hear())) for _ in range(2)]
    with channel.listen() as heard:
        for thread in threads:
            thread.start()
        until(lambda: len(app.broadcast.reach.hub._topics[b"message"][b"sq:channel:prices"].sinks) == 3)
        for number in range(3):
            channel.publish_sync(number)
        assert [next(heard).payload for _ in range(3)] == [0, 1, 2]
        for thread in threads:
            thread.join(10)
    assert found == [[0, 1, 2]] * 2


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_connections_and_numbers_of_its_own(any_server, app):
    """What it publishes is neither taken for the parent's, nor kept from the log as sent before."""
    channel, kept = app.channel("prices", str), app.channel("orders", str, durable=True)
    with channel.listen() as heard, kept.listen() as heard_kept:
        for one in (channel, kept):
            one.publish_sync("before")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for one in (channel, kept):
                    one.publish_sync("child")
                with channel.listen() as own:
                    channel.publish_sync("child again")
                    code = 0 if next(own).payload == "child again" else 2
                with kept.group("g") as group:
                    code = code or (0 if payloads(next(group) for _ in range(2)) == ["before", "child"] else 3)
                    code = code or (0 if app.broadcast.renewer._thread.is_alive() else 4)
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        for one in (channel, kept):
            one.publish_sync("after")
        messages = [next(heard) for _ in range(4)]
        assert payloads(messages) == ["before", "child", "child again", "after"]
        assert [message.sender.endswith(f"-{child}") for message in messages] == [False, True, True, False]
        assert [next(heard_kept).payload for _ in range(3)] == ["before", "child", "after"]
