"""What does not arrive is told: how many are said to be missing is how many are missing."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime

import pytest
from tenacity import stop_after_delay

from streamq import BrokerUnavailable, SlowListener, StreamQ
from streamq._redis import connections, hub
from streamq.channels import buffer as buffers
from streamq.channels.envelope import Envelope
from streamq.channels.gaps import Gap
from tests.hearing import Hearing, gaps, missed, payloads, take, take_until
from tests.proxy import Fault, Proxy
from tests.workers import until


@pytest.fixture
def app(server_url):
    with closing(StreamQ(server_url)) as app:
        yield app


@pytest.fixture
def kill(connection):
    """Give a function that ends all subscription connections."""
    return lambda: connection.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


@pytest.fixture
def impatient(monkeypatch):
    """Have those who wait for a server give up soon."""
    monkeypatch.setitem(connections.PATIENCE, "stop", stop_after_delay(0.2))


def pubsub_clients(connection):
    listed = connection.client.execute_command("CLIENT", "LIST", "TYPE", "pubsub").decode()
    return [dict(word.partition("=")[::2] for word in line.split()) for line in listed.splitlines()]


def test_what_is_missed_while_the_connection_is_away_is_told(any_server, app, kill):
    """From two senders without a pause: each kill is told, and each hole has the size it has."""
    kills, sent = 5, Counter()
    done = threading.Event()

    def publish(name):
        channel = app.channel("prices", int, sender=name)
        for number in itertools.count(1):
            channel.publish_sync(number)
            sent[name] = number
            if done.is_set():
                return

    began = datetime.now(UTC)
    with Hearing(app.channel("prices", int).listen()) as hearing:
        senders = [threading.Thread(target=publish, args=(name,)) for name in ("a", "b")]
        for sender in senders:
            sender.start()
        heard = hearing.listener.counts
        for number in range(kills):
            before = len(hearing.items)
            until(lambda: len(payloads(hearing.items[before:])) > 20, why="nothing is heard any more")  # noqa: B023
            assert kill() == 1
            until(lambda: heard.reconnected == number + 1)  # noqa: B023
        done.set()
        for sender in senders:
            sender.join()
        lasts = {(name, app.channel("prices", sender=name).publish_sync(-1) and sent[name] + 1) for name in sent}
        until(lambda: {(i.sender, i.sequence) for i in hearing.items if isinstance(i, Envelope)} >= lasts)
        items = hearing.items[:]
    received = Counter(item.sender for item in items if isinstance(item, Envelope))
    lost = missed(items)
    assert {name: received[name] + lost[name] for name in sent} == {name: sent[name] + 1 for name in sent}
    assert lost.total() > 0
    reasons = [gap.reason for gap in gaps(items)]
    assert reasons.count("reconnected") == kills
    assert set(reasons) == {"reconnected", "sequence"}
    assert all(began <= gap.since <= datetime.now(UTC) for gap in gaps(items))
    for name in sent:
        numbers = [item.sequence for item in items if isinstance(item, Envelope) and item.sender == name]
        assert numbers == sorted(set(numbers))


def test_a_gap_says_when_and_after_which_message(any_server, app, kill):
    channel = app.channel("prices", int, sender="me")
    with Hearing(channel.listen()) as hearing:
        channel.publish_sync(1)
        until(lambda: payloads(hearing.items) == [1])
        one = hearing.items[0]
        kill()
        until(lambda: channel.publish_sync(2).heard == 0 or not kill())  # nobody hears it
        until(lambda: hearing.listener.counts.reconnected)
        last = channel.publish_sync(3)
        assert last.heard == 1
        until(lambda: 3 in payloads(hearing.items))
    assert gaps(hearing.items)[0].reason == "reconnected"
    hole = gaps(hearing.items)[-1]
    assert (hole.reason, hole.sender, hole.channel) == ("sequence", "me", "prices")
    assert hole.missed == hearing.items[-1].sequence - one.sequence - 1
    assert hole.since == one.time


async def test_without_gaps_they_are_logged(any_server, app, kill, caplog):
    channel = app.channel("prices", int)
    async with channel.listen(gaps=False) as heard:
        await channel.publish(1)
        assert payloads(await take(heard, 1)) == [1]
        kill()
        while (await channel.publish(2)).heard:
            kill()
        while not (await channel.publish(3)).heard:  # noqa: ASYNC110 - the server is asked
            await asyncio.sleep(0.01)
        assert payloads(await take(heard, 1)) == [3]
    assert [record.getMessage() for record in caplog.records if "missing" in record.getMessage()]
    await app.aclose()


async def test_a_lost_reply_sends_again_and_is_heard_once(any_server, server_url, app):
    """On an event loop and in a thread."""
    with Proxy(server_url) as proxy, closing(StreamQ(proxy.url)) as other:
        channel = other.channel("prices", int)
        async with app.channel("prices", int).listen() as heard:
            for number in range(4):
                strike = proxy.strike("PUBLISH", Fault.AFTER)
                if number % 2:
                    await channel.publish(number)
                else:
                    await asyncio.to_thread(channel.publish_sync, number)
                assert strike.struck
            await channel.publish(4)
            items = await take(heard, 5)
            assert payloads(items) == [0, 1, 2, 3, 4]
            assert heard.counts.repeated == 4
        await other.aclose()
        await app.aclose()


async def test_many_that_are_sent_again_together_are_heard_once_each(any_server, server_url, app):
    with Proxy(server_url) as proxy, closing(StreamQ(proxy.url)) as other:
        channel = other.channel("prices", int)
        async with app.channel("prices", int).listen() as heard:
            await channel.publish(-1)
            proxy.strike("PUBLISH", Fault.AFTER, nth=30)
            await asyncio.gather(*(channel.publish(number) for number in range(100)))
            items = await take(heard, 101)
            assert payloads(items) == [-1, *range(100)]
        await other.aclose()
        await app.aclose()


async def test_what_was_not_published_is_told_when_the_server_is_back(private_server, impatient):
    """Its sender has an error, and who listens a gap; the listener comes back by itself."""
    server = private_server()
    with closing(StreamQ(f"redis://127.0.0.1:{server.port}/0")) as app:
        channel = app.channel("prices", int)
        async with channel.listen() as heard:
            await channel.publish(1)
            assert payloads(await take(heard, 1)) == [1]
            server.kill()
            for _ in range(3):
                with pytest.raises(BrokerUnavailable):
                    await channel.publish(2)
            server.start()
            assert [gap.reason for gap in await take(heard, 1)] == ["reconnected"]
            await channel.publish(3)
            hole, message = await take(heard, 2)
            assert (hole.reason, hole.missed, message.payload) == ("sequence", 3, 3)
        await app.aclose()


async def test_who_begins_while_the_server_is_away_is_told(private_server, impatient):
    server = private_server()
    with closing(StreamQ(f"redis://127.0.0.1:{server.port}/0")) as app:
        channel = app.channel("prices", int)
        server.kill()
        with pytest.raises(BrokerUnavailable):
            await anext(channel.listen())
        server.start()
        async with asyncio.timeout(10):
            while True:
                try:
                    heard = await channel.listen().__aenter__()
                except BrokerUnavailable:
                    continue
                break
        await channel.publish(1)
        assert payloads(await take(heard, 1)) == [1]
        await heard.aclose()
        await app.aclose()


@pytest.fixture
def watchful(monkeypatch):
    """Have a connection looked after that is silent for a moment."""
    monkeypatch.setattr(hub, "_SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(hub, "_LOOK_SECONDS", 0.05)


def test_a_connection_that_gives_no_sign_of_life_is_given_up(any_server, server_url, watchful):
    with Proxy(server_url) as proxy, closing(StreamQ(proxy.url)) as app:
        channel = app.channel("prices", int)
        with Hearing(channel.listen()) as hearing:
            until(lambda: "PING" in proxy.names)
            time.sleep(0.6)  # a silence that is none: it answers
            assert hearing.listener.counts.reconnected == 0
            hole = proxy.strike("PING", Fault.HOLE)
            until(lambda: hearing.listener.counts.reconnected == 1)
            assert hole.struck
            channel.publish_sync(1)
            until(lambda: payloads(hearing.items) == [1])


def test_a_server_that_stands_still_is_waited_for(start_node, watchful):
    node = start_node()
    with closing(StreamQ(f"redis://127.0.0.1:{node.port}/0")) as app:
        channel = app.channel("prices", int)
        with Hearing(channel.listen()) as hearing:
            node.freeze()
            time.sleep(0.6)  # longer than it may be silent
            node.thaw()
            until(lambda: hearing.listener.counts.reconnected == 1)
            until(lambda: channel.publish_sync(1).heard)
            until(lambda: 1 in payloads(hearing.items))


# ---- those who are slow


def publish_in_turns(app, name, number):
    """Publish from two senders; returns how many each has sent."""
    channels = [app.channel(name, int, sender=sender) for sender in ("a", "b")]
    for one in range(number):
        channels[one % 3 == 0].publish_sync(one)
    return {"a": number - len(range(0, number, 3)), "b": len(range(0, number, 3))}


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_what_is_dropped_is_told_for_each_sender(any_server, app, policy):
    with app.channel("prices", int).listen(buffer=10, when_full=policy) as heard:
        sent = publish_in_turns(app, "prices", 100)
        until(lambda: heard.counts.received == 100)
        assert len(heard._buffer) <= 12
        kept = [next(heard) for _ in range(12)]
        app.channel("prices", int, sender="a").publish_sync(100)
        app.channel("prices", int, sender="b").publish_sync(101)
        items = [*kept, next(heard), next(heard)]
    assert heard.counts.dropped == 90
    received = Counter(item.sender for item in items if isinstance(item, Envelope))
    lost = missed(items)
    assert {one: received[one] + lost[one] - 1 for one in sent} == sent
    assert {gap.reason for gap in gaps(items)} == {"overflow"}
    kept_numbers = range(90, 100) if policy == "drop_oldest" else range(10)
    assert payloads(items) == [*kept_numbers, 100, 101]
    assert isinstance(items[0], Gap) == (policy == "drop_oldest")


def test_drops_beside_a_lost_connection_are_counted_once(any_server, app, kill):
    """The same messages are missing by both, and no gap may count them again."""
    channel = app.channel("prices", int, sender="a")
    with channel.listen(buffer=5) as heard:
        for number in range(20):
            channel.publish_sync(number)
        until(lambda: heard.counts.received == 20)
        kill()
        until(lambda: heard.counts.reconnected == 1)
        for number in range(20, 40):
            channel.publish_sync(number)
        until(lambda: heard.counts.received == 40)
        items = [next(heard) for _ in range(7)]
    assert payloads(items) == list(range(35, 40))
    assert missed(items).total() == 35
    assert sorted(gap.reason for gap in gaps(items)) == ["overflow", "reconnected"]


def test_who_asked_for_it_is_disconnected(any_server, app, connection):
    """What was buffered is given first; then comes the error, and then the end."""
    channel = app.channel("prices", int)
    with channel.listen(buffer=10, when_full="disconnect") as heard:
        for number in range(20):
            channel.publish_sync(number)
        until(lambda: heard.counts.received == 20)
        assert next(heard).payload == 0
        channel.publish_sync(20)  # there is room again, but a hole before it
        until(lambda: heard.counts.received == 21)
        assert payloads(next(heard) for _ in range(9)) == list(range(1, 10))
        with pytest.raises(SlowListener, match="10 messages behind"):
            next(heard)
        assert list(heard) == []
        assert heard.counts.dropped == 11
        until(lambda: connection.client.execute_command("PUBSUB", "NUMSUB", "sq:channel:prices")[1] == 0)


def test_who_blocks_gets_all_if_it_is_slow_for_a_moment_only(any_server, app):
    channel = app.channel("prices", int)
    with channel.listen(buffer=2, when_full="block") as heard:
        for number in range(50):
            channel.publish_sync(number)
        items = []
        while len(items) < 50:
            items.append(next(heard))
            time.sleep(0.002)  # the slowness itself
    assert payloads(items) == list(range(50))
    assert heard.counts.dropped == 0


def test_who_blocks_for_long_loses_its_connection_and_holds_up_nobody(any_server, app, connection, monkeypatch):
    monkeypatch.setattr(buffers, "_BLOCK_SECONDS", 0.2)
    channel = app.channel("prices", int, sender="me")
    with channel.listen(buffer=10, when_full="block") as stuck, Hearing(channel.listen()) as other:
        assert len(pubsub_clients(connection)) == 2
        for number in range(100):
            channel.publish_sync(number)
        until(lambda: payloads(other.items) == list(range(100)), seconds=2)
        until(lambda: len(pubsub_clients(connection)) == 1, why="it keeps its connection")
        items = [next(stuck) for _ in range(11)]
        until(lambda: stuck.counts.reconnected == 1)
        channel.publish_sync(100)
        items += [next(stuck), next(stuck)]
        assert not gaps(other.items)
    assert payloads(items) == [*range(10), 100]
    assert [(gap.reason, gap.missed) for gap in gaps(items)] == [("reconnected", None), ("sequence", 90)]


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "disconnect"])
def test_a_stuck_listener_costs_the_server_nothing(any_server, app, connection, policy):
    """50 MB go by, and nothing of them waits in the server; nor does another listener wait."""
    channel = app.channel("prices", str)
    big, number = "x" * 60_000, 800
    with channel.listen(buffer=10, when_full=policy), Hearing(channel.listen(buffer=number)) as other:
        most = 0
        for nth in range(number):
            channel.publish_sync(big)
            if nth % 20 == 0:
                most = max(most, *(int(one["omem"]) for one in pubsub_clients(connection)))
        until(lambda: len(other.items) == number)
        assert not gaps(other.items)
        assert most < 12_000_000  # of 48 MB: on a busy machine the thread that reads has to wait for its turn, too


async def test_what_a_durable_channel_has_missed_is_got_from_its_log(any_server, app, kill):
    """After a lost connection and after an overflow: each message once, and in order."""
    channel = app.channel("orders", int, durable=True)
    async with channel.listen(buffer=5) as heard:
        for begin in range(0, 200, 50):
            await asyncio.gather(*(channel.publish(number) for number in range(begin, begin + 50)))
            kill()
        await channel.publish(200)
        items = await take_until(heard, lambda item: item.payload == 200)
        assert payloads(items) == list(range(201))
        assert not gaps(items)
        assert heard.counts.dropped
    await app.aclose()


async def test_what_was_removed_from_a_log_is_told_exactly(any_server, app, kill, connection):
    channel = app.channel("orders", int, durable=True, max_length=100)
    async with channel.listen(buffer=10) as heard:
        await channel.publish(0)
        [first] = await take(heard, 1)
        for begin in range(1, 1001, 100):
            await asyncio.gather(*(channel.publish(number) for number in range(begin, begin + 100)))
        items = await take_until(heard, lambda item: isinstance(item, Envelope) and item.payload == 1000)
        [gap] = gaps(items)
        assert gap.reason == "trimmed"
        assert gap.missed + len(payloads(items)) == 1000
        assert payloads(items) == list(range(gap.missed + 1, 1001))
        assert (gap.channel, gap.after, gap.since) == ("orders", first.entry, first.time)
    await app.aclose()


async def test_a_gap_can_be_replayed(any_server, app, server_url, kill):
    """By who listened to a durable channel as if it were none: what is kept is told of in the messages."""
    durable = app.channel("orders", int, durable=True)
    with closing(StreamQ(server_url)) as other:
        async with other.channel("orders", int).listen() as heard:
            await durable.publish(0)
            await take(heard, 1)
            kill()
            while (await durable.publish(1)).heard:
                kill()
            await asyncio.to_thread(until, lambda: heard.counts.reconnected)
            await durable.publish(2)
            items = await take_until(heard, lambda item: isinstance(item, Envelope) and item.payload == 2)
            gap = next(gap for gap in gaps(items) if gap.reason == "sequence")
            found = [item async for item in durable.replay(gap)]
            assert payloads(found)[-1] == 2
            assert payloads(found)[: gap.missed] == [1] * gap.missed
        await other.aclose()
    await app.aclose()
