"""Durable channels: what is kept is read from any point on, and each group gets each message, whoever dies."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta

import pytest

from streamq import BrokerReset, ConfigError, StreamQ
from streamq.channels.envelope import Envelope
from streamq.channels.gaps import Gap
from tests.hearing import Hearing, gaps, payloads, take
from tests.proxy import Fault, Proxy
from tests.workers import ROOT, until

LOG, NUMBERS = "sq:channel:{orders}:log", "sq:channel:{orders}:numbers"


@pytest.fixture
def app(server_url):
    with closing(StreamQ(server_url)) as app:
        yield app


@pytest.fixture
def orders(app):
    return app.channel("orders", int, durable=True)


@pytest.fixture
def raw(connection):
    return connection.client.execute_command


def publish(channel, *numbers):
    return [channel.publish_sync(number).entry for number in numbers]


def pending(raw, group="g"):
    return raw("XPENDING", LOG, group)[0]


# ---- what is kept


def test_what_is_published_is_kept_and_heard(any_server, orders):
    with orders.listen() as heard:
        [entry] = publish(orders, 7)
        message = next(heard)
    assert (message.payload, message.entry, message.number, message.deliveries) == (7, entry, 1, 1)
    [kept] = orders.replay()
    assert kept == message


def test_one_may_begin_in_the_past(any_server, orders):
    """After an entry, after a time; and goes on with what is published, without a hole or a repeat."""
    entries = publish(orders, *range(250))
    with orders.listen(after=entries[99]) as heard, orders.listen(since=datetime.now(UTC) - timedelta(hours=1)) as all_:
        publish(orders, *range(250, 300))
        assert payloads(next(heard) for _ in range(200)) == list(range(100, 300))
        assert payloads(next(all_) for _ in range(300)) == list(range(300))
        publish(orders, 300)
        assert next(heard).payload == next(all_).payload == 300
    later = datetime.now(UTC) + timedelta(hours=1)
    assert list(orders.replay(since=later)) == []
    assert payloads(orders.replay(after=entries[248])) == [249, *range(250, 301)]


async def test_one_may_begin_in_the_past_while_others_publish(any_server, app, orders):
    await asyncio.gather(*(orders.publish(number) for number in range(500)))
    going_on = asyncio.gather(*(orders.publish(number) for number in range(500, 1500)))
    async with orders.listen(after="0-0", buffer=20) as heard:
        assert payloads(await take(heard, 1500)) == list(range(1500))
    await going_on
    await app.aclose()


def test_a_listener_from_the_past_is_told_that_it_is_gone(any_server, app, orders):
    short = app.channel("orders", int, durable=True, max_length=1)
    [first, *_] = publish(orders, *range(10))
    publish(short, *range(10, 400))
    gap, *found = orders.replay(after=first)
    assert gap == Gap("trimmed", None, None, "orders", None, first)
    assert payloads(found) == list(range(found[0].payload, 400))


@pytest.mark.parametrize(
    "wrong",
    [
        {"after": "yesterday"},
        {"since": datetime(2030, 1, 1)},  # noqa: DTZ001 - that is what is wrong
        {"after": "1-1", "since": datetime.now(UTC)},
    ],
    ids=["no entry", "no time zone", "both"],
)
def test_what_is_no_place_is_refused(orders, wrong):
    for method in (orders.listen, orders.replay, lambda **words: orders.group("g", **words)):
        with pytest.raises(ConfigError):
            method(**wrong)


def test_what_needs_a_log_says_so(app):
    for method in (app.channel("prices").replay, lambda: app.channel("prices").group("g")):
        with pytest.raises(ConfigError, match="durable"):
            method()
    for wrong in ({"lease": 0}, {"lease": "1"}, {"prefetch": 0}, {"prefetch": 1.5}):
        with pytest.raises(ConfigError):
            app.channel("orders", durable=True).group("g", **wrong)
    for more in ({"sharded": True}, {"durable": True}):
        with pytest.raises(ConfigError, match="pattern"):
            app.channel("a*", **more)


def test_so_many_messages_are_kept(any_server, app, raw):
    publish(app.channel("orders", int, durable=True, max_length=100), *range(1000))
    assert 100 <= raw("XLEN", LOG) <= 300  # servers remove whole nodes


def test_for_so_long_messages_are_kept(any_server, app, raw):
    """All keys of a log go by themselves when nothing was published for so long."""
    short = app.channel("orders", int, durable=True, max_age=0.3)
    publish(short, *range(300))
    time.sleep(0.15)  # half of the age
    publish(short, 300)
    assert 0 < raw("PTTL", LOG) <= 300
    assert 0 < raw("PTTL", NUMBERS) <= 300
    until(lambda: not raw("EXISTS", LOG, NUMBERS))
    publish(short, *range(300))
    time.sleep(0.1)
    oldest = raw("XRANGE", LOG, "-", "+", "COUNT", 1)[0][0]
    until(lambda: publish(short, 300) and raw("XRANGE", LOG, "-", "+", "COUNT", 1)[0][0] != oldest)


def test_for_ever_is_for_ever(any_server, app, raw):
    """Also for what was kept for a time before."""
    log = "sq:channel:{forever}:log"
    publish(app.channel("forever", int, durable=True, max_age=60), 1)
    assert raw("PTTL", log) > 0
    publish(app.channel("forever", int, durable=True, max_age=None, max_length=None), 2)
    assert raw("PTTL", log) == raw("PTTL", "sq:channel:{forever}:numbers") == -1


def test_the_names_of_durable_channels_are_noted(any_server, app, orders, raw):
    publish(orders, 1, 2)
    app.channel("prices", int).publish_sync(1)
    assert raw("SMEMBERS", "sq:channels") == [b"orders"]


@pytest.mark.parametrize("on_loop", [False, True])
async def test_a_lost_reply_keeps_one_message(any_server, server_url, app, orders, on_loop):
    with Proxy(server_url) as proxy, closing(StreamQ(proxy.url)) as other:
        channel = other.channel("orders", int, durable=True)
        async with orders.listen() as heard:
            for number in range(3):
                strike = proxy.strike("channel_append", Fault.AFTER)
                published = (
                    await channel.publish(number) if on_loop else await asyncio.to_thread(channel.publish_sync, number)
                )
                assert strike.struck
                [message] = await take(heard, 1)
                assert (message.payload, message.entry, message.number) == (number, published.entry, number + 1)
        await other.aclose()
    assert payloads([item async for item in orders.replay()]) == [0, 1, 2]
    await app.aclose()


async def test_many_that_are_sent_again_together_are_kept_once_each(any_server, server_url, app, orders):
    """And each publisher is told the entry of its own."""
    with Proxy(server_url) as proxy, closing(StreamQ(proxy.url)) as other:
        channel = other.channel("orders", int, durable=True)
        await channel.publish(-1)
        proxy.strike("channel_append", Fault.AFTER, nth=30)
        published = await asyncio.gather(*(channel.publish(number) for number in range(100)))
        await other.aclose()
    kept = [item async for item in orders.replay()]
    assert payloads(kept) == [-1, *range(100)]
    assert [one.entry for one in published] == [item.entry for item in kept[1:]]
    await app.aclose()


def test_what_is_no_message_in_a_log_is_skipped(any_server, orders, raw):
    publish(orders, 1)
    raw("XADD", LOG, "*", "m", "{}", "n", "2")
    raw("XADD", LOG, "*", "other", "thing")
    raw("HSET", NUMBERS, "n", "3")
    publish(orders, 4)
    assert payloads(orders.replay()) == [1, 4]
    with orders.group("g") as group:
        assert payloads(next(group) for _ in range(2)) == [1, 4]
        assert group.counts.unreadable == 2
    assert pending(raw) == 1  # the last one was given back: nobody has asked for the next


def test_a_log_that_is_something_else_is_an_error(any_server, orders, raw):
    """To all who use it, and nothing is published."""
    raw("SET", LOG, "a string", "PX", 60_000)
    with pytest.raises(BrokerReset):
        orders.publish_sync(1)
    with pytest.raises(BrokerReset), orders.listen():
        pass
    with pytest.raises(BrokerReset):
        list(orders.replay())
    with pytest.raises(BrokerReset), orders.group("g"):
        pass


def test_a_group_waits_until_its_log_is_one_again(any_server, orders, raw, caplog):
    with Hearing(orders.group("g")) as group:
        publish(orders, 1)
        until(lambda: payloads(group.items) == [1])
        raw("SET", LOG, "a string", "PX", 60_000)
        raw("PUBLISH", "sq:channel:orders", "wakes it")
        until(lambda: "cannot be read" in caplog.text)
        raw("DEL", LOG)
        publish(orders, 2)
        until(lambda: payloads(group.items) == [1, 2])


# ---- groups


def test_each_group_gets_each_message_and_of_its_members_one(any_server, orders, raw):
    publish(orders, *range(50))
    with ExitStack() as stack:
        members = {
            name: [stack.enter_context(Hearing(orders.group(name, prefetch=3))) for _ in range(3)] for name in "ab"
        }
        publish(orders, *range(50, 300))
        for some in members.values():
            until(lambda: sum(len(one.items) for one in some) >= 300)  # noqa: B023
    for name, some in members.items():
        assert sorted(payloads(item for one in some for item in one.items)) == list(range(300))
        assert not any(one.error for one in some)
        assert all(item.deliveries == 1 for one in some for item in one.items)
        assert sum(bool(one.items) for one in some) > 1
        assert pending(raw, name) <= 3  # what a closed member had in hand


async def test_a_group_begins_where_it_is_told(any_server, app, orders):
    entries = [(await orders.publish(number)).entry for number in range(5)]
    async with orders.group("late", after=entries[2]) as late, orders.group("all") as every:
        assert payloads(await take(late, 2)) == [3, 4]
        assert payloads(await take(every, 5)) == [0, 1, 2, 3, 4]
    async with orders.group("late") as again:  # what was in hand comes again
        assert payloads(await take(again, 1)) == [4]
    await app.aclose()


async def test_acknowledged_by_hand(any_server, app, orders, raw):
    for number in range(4):
        await orders.publish(number)
    async with orders.group("g", auto_ack=False) as group:
        messages = await take(group, 4)
        assert pending(raw) == 4
        assert await group.ack(messages[0], messages[2])
        assert not await group.ack(messages[0])  # it has it no more
        assert await asyncio.to_thread(group.ack_sync, messages[1])
        assert pending(raw) == 1
        assert group.has(messages[3])
    async with orders.group("g") as group:
        [again] = await take(group, 1)
        assert (again.payload, again.entry) == (3, messages[3].entry)
    await app.aclose()


def test_what_is_closed_goes_to_another_at_once(any_server, app, orders, raw):
    publish(orders, *range(10))
    first = orders.group("g", lease=30)
    assert next(first).payload == 0
    assert next(first).payload == 1
    began = time.monotonic()
    first.close()
    with orders.group("g", lease=30) as second:
        assert sorted(payloads(next(second) for _ in range(9))) == list(range(1, 10))
    assert time.monotonic() - began < 5
    assert list(first) == []


def test_closed_while_it_handles_a_message_it_may_still_acknowledge_it(any_server, orders, raw):
    """Its handler asks for the next one, and comes to the end."""
    publish(orders, 1, 2)
    member = orders.group("g", lease=30)
    assert next(member).payload == 1
    member.close()
    assert list(member) == []
    with orders.group("g", lease=30) as other:
        assert payloads([next(other)]) == [2]
        assert pending(raw) == 1


def test_what_a_killed_process_has_goes_to_another_after_a_lease(any_server, server_url, orders, tmp_path):
    marker = tmp_path / "got"
    marker.touch()
    publish(orders, *range(5))
    words = [sys.executable, "-m", "tests.apps.consuming", "g", "0.5", str(marker), "stuck"]
    with subprocess.Popen(words, cwd=ROOT, env={**os.environ, "STREAMQ_URL": server_url}) as process:
        try:
            until(lambda: marker.read_text() == "0 1\n")
            with Hearing(orders.group("g", lease=0.5)) as other:
                publish(orders, 5)
                until(lambda: payloads(other.items) == [5])
                time.sleep(1.2)  # more than two leases: it lives, and so has what it took
                assert payloads(other.items) == [5]
                process.kill()
                process.wait()
                until(lambda: len(other.items) == 6, why="what it had is lost")
        finally:
            process.kill()
    assert sorted(payloads(other.items)) == list(range(6))
    assert [item.deliveries for item in other.items] == [1, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("blocked", [False, True], ids=["slow", "blocked event loop"])
async def test_a_slow_handler_keeps_its_message(any_server, server_url, app, orders, blocked):
    """Also if it blocks the event loop: leases are renewed by a thread."""
    await orders.publish(1)
    with closing(StreamQ(server_url)) as other_app:
        async with orders.group("g", lease=0.5, auto_ack=False) as group:
            [message] = await take(group, 1)
            with Hearing(other_app.channel("orders", int, durable=True).group("g", lease=0.5)) as other:
                if blocked:
                    time.sleep(2)  # noqa: ASYNC251 - that is what is wrong
                else:
                    await asyncio.sleep(2)
                assert other.items == []
                assert await group.ack(message)
    await app.aclose()


@pytest.mark.parametrize("call", ["channel_fetch", "channel_claim", "channel_ack"])
def test_lost_replies_lose_no_message_of_a_group(any_server, server_url, orders, raw, call):
    """What a member was given and does not know of comes after a lease."""
    publish(orders, *range(4))
    with Proxy(server_url) as proxy, closing(StreamQ(proxy.url)) as other:
        strike = proxy.strike(call, Fault.AFTER)
        with Hearing(other.channel("orders", int, durable=True).group("g", lease=0.3, prefetch=2)) as group:
            until(lambda: set(payloads(group.items)) == set(range(4)))
            publish(orders, 4)
            until(lambda: 4 in payloads(group.items))
            until(lambda: pending(raw) == 0)
        assert strike.struck


def test_who_has_lost_a_message_cannot_acknowledge_it(any_server, app, orders, raw, monkeypatch):
    publish(orders, 1)
    with orders.group("g", lease=0.2, auto_ack=False) as slow:
        [message] = [next(slow)]
        app.broadcast.renewer.remove(slow._held)  # as if its process stood still
        with orders.group("g", lease=0.2, auto_ack=False) as other:
            again = next(other)
            assert (again.entry, again.deliveries) == (message.entry, 2)
            assert not slow.ack_sync(message)
            assert pending(raw) == 1
            assert other.ack_sync(again)
            assert pending(raw) == 0


async def test_a_group_goes_on_after_everything_is_gone(any_server, app, orders, raw):
    async with orders.group("g", lease=0.5) as group:
        await orders.publish(1)
        assert payloads(await take(group, 1)) == [1]
        raw("FLUSHALL")
        await orders.publish(2)
        assert payloads(await take(group, 1)) == [2]
    await app.aclose()


async def test_a_listener_goes_on_after_everything_is_gone(any_server, app, orders, raw):
    async with orders.listen() as heard:
        for number in range(3):
            await orders.publish(number)
        assert payloads(await take(heard, 3)) == [0, 1, 2]
        raw("FLUSHALL")
        for number in range(3, 8):
            await orders.publish(number)
        assert payloads(await take(heard, 5)) == [3, 4, 5, 6, 7]
    await app.aclose()


async def test_a_group_is_told_what_was_removed_before_it_came(any_server, app, orders):
    short = app.channel("orders", int, durable=True, max_length=10)
    async with orders.group("g", prefetch=1) as group:
        await orders.publish(0)
        assert payloads(await take(group, 1)) == [0]
        await asyncio.gather(*(short.publish(number) for number in range(1, 1000)))
        found = await take(group, 3)
    first, gap, second = found if isinstance(found[1], Gap) else (None, *found[:2])
    before = 0 if first is None else first.payload
    assert (gap.reason, gap.channel) == ("trimmed", "orders")
    assert isinstance(second, Envelope)
    assert gap.missed == second.payload - before - 1
    await app.aclose()


def test_a_group_comes_back_when_the_server_does(private_server):
    server = private_server("--appendfsync", "always")
    with closing(StreamQ(f"redis://127.0.0.1:{server.port}/0")) as app:
        orders = app.channel("orders", int, durable=True)
        with Hearing(orders.group("g", lease=0.5)) as group, Hearing(orders.listen()) as heard:
            publish(orders, 1)
            until(lambda: payloads(group.items) == payloads(heard.items) == [1])
            server.kill()
            server.start()
            publish(orders, 2)
            until(lambda: payloads(heard.items) == [1, 2])
            until(lambda: set(payloads(group.items)) == {1, 2})
    assert not group.error
    assert not gaps(heard.items)


def test_members_that_are_dropped_are_renewed_no_more(any_server, app, orders):
    publish(orders, 1)
    member = orders.group("g", lease=0.3, auto_ack=False)
    assert next(member).payload == 1
    del member
    with orders.group("g", lease=0.3) as other:
        assert next(other).deliveries == 2
    until(lambda: not any(one.name == "streamq-renewals" for one in threading.enumerate()))


async def test_a_member_whose_start_is_cancelled_leaves_at_once(server_url, connection):
    """Over the connection that it has: what would be done later, by the garbage collector, would open another."""
    with Proxy(server_url) as proxy:
        app = StreamQ(proxy.url)
        strike = proxy.strike("channel_fetch", Fault.DELAY)
        beginning = asyncio.create_task(app.channel("orders", int, durable=True).group("g").__aenter__())
        await asyncio.to_thread(until, lambda: strike.struck)
        beginning.cancel()
        await asyncio.wait([beginning])
        assert "retire" in proxy.names
        strike.release()
        await app.aclose()
        del beginning
        gc.collect()
        assert "sync" not in vars(app.broker)
    until(lambda: not connection.client.execute_command("CLIENT", "LIST", "TYPE", "pubsub"))
