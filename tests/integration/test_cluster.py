"""Channels on a Redis Cluster: heard from every node, or by the slot, and again after slots and masters have moved."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import closing

import pytest

from streamq import Agent, BrokerUnavailable, StreamQ, agents
from streamq._redis import hub
from streamq._redis.cluster import AsyncCluster, SyncCluster
from streamq._redis.scripts import Call
from tests.agents import running
from tests.apps.agents import Answer, Question, make
from tests.clusters import Cluster, raw
from tests.hearing import gaps, payloads, take, take_until
from tests.nodes import Node
from tests.workers import until

NAMES = [f"channel:{n}" for n in range(12)]  # on all nodes


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    nodes = []

    def start(*options):
        nodes.append(Node(tmp_path_factory.mktemp("node") / "data", *options))
        return nodes[-1]

    try:
        yield Cluster(start)
    finally:
        for node in nodes:
            node.close()


@pytest.fixture
def cluster(started):
    started.flush()
    return started


@pytest.fixture
def app_of(server_url):
    """Make apps whose channels are elsewhere."""
    made = []

    def make(events_url, **more):
        made.append(StreamQ(server_url, events_url=events_url, **more))
        return made[-1]

    yield make
    for app in made:
        app.close()
        app.broadcast.close()


@pytest.fixture
def app(app_of, cluster):
    return app_of(cluster.url)


def subscribed(node, name, *, sharded):
    return raw(node, "PUBSUB", "SHARDNUMSUB" if sharded else "NUMSUB", name)[1]


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("durable", [False, True])
async def test_messages_are_heard_whatever_node_has_the_slot(app_of, cluster, sharded, durable):
    """In order, by another process's app, sent from an event loop and from a thread."""
    here, there = app_of(cluster.url), app_of(cluster.url)
    options = {"sharded": sharded, "durable": durable}
    senders = [here.channel(name, **options) for name in NAMES]
    listeners = [there.channel(name, **options).listen() for name in NAMES]
    for listener in listeners:
        await listener.__aenter__()
    for _ in range(2):
        await asyncio.gather(*(sender.publish(n) for n in range(20) for sender in senders))
    for listener in listeners:
        assert payloads(await take(listener, 40)) == [*range(20), *range(20)]
    for sender in senders:
        await asyncio.to_thread(sender.publish_sync, "last")
    for listener, name in zip(listeners, NAMES, strict=True):
        [message] = await take(listener, 1)
        assert (message.payload, message.channel) == ("last", name)
        await listener.aclose()
    await here.aclose()
    await there.aclose()


async def test_a_pattern_is_heard_from_every_node(app):
    async with app.channel("channel:*").listen() as heard:
        for name in NAMES:
            await app.channel(name).publish(name)
        assert sorted(payloads(await take(heard, len(NAMES)))) == sorted(NAMES)
    await app.broadcast.aclose()


async def test_one_connection_for_what_goes_to_all_and_one_to_each_master(app, cluster):
    """However much is subscribed; when it is not any more, they are closed."""
    listeners = [app.channel(name, sharded=sharded).listen() for name in NAMES for sharded in (False, True)]
    for listener in listeners:
        await listener.__aenter__()

    def connections():
        each = [node.client.client_list(_type="pubsub") for node in cluster.nodes]
        return [sum(client["name"] == "streamq" for client in clients) for clients in each]

    assert sum(connections()) == 1 + 3
    assert all(connections())
    for name in NAMES:
        owner = cluster.owner(f"sq:channel:{{{name}}}")
        assert subscribed(owner, f"sq:channel:{{{name}}}", sharded=True) == 1
    for listener in listeners:
        listener.close()
    await asyncio.to_thread(until, lambda: sum(connections()) == 0)
    shards = app.broadcast.reach.hub
    await asyncio.to_thread(until, lambda: shards._thread is None and not shards._hubs)
    await app.broadcast.aclose()


@pytest.mark.parametrize("sharded", [False, True])
async def test_groups_and_logs(app, sharded):
    """A durable channel is consumed, replayed, and heard from the past on."""
    channel = app.channel("orders", durable=True, sharded=sharded)
    entries = [(await channel.publish(n)).entry for n in range(10)]
    assert [message.payload async for message in channel.replay()] == [*range(10)]
    async with channel.group("one") as one, channel.group("one") as other, channel.listen(after=entries[4]) as late:
        await channel.publish(10)
        assert payloads(await take(late, 6)) == [*range(5, 11)]
        found = payloads(await take(one, 10))
        await channel.publish(11)
        found += payloads(await take(other, 1))
        assert sorted(found) == [*range(11)]
    await app.broadcast.aclose()


async def test_what_was_dropped_is_got_from_the_log(app):
    channel = app.channel("orders", durable=True, sharded=True)
    async with channel.listen(buffer=5) as heard:
        for n in range(50):
            await channel.publish(n)
        assert payloads(await take(heard, 50)) == [*range(50)]
        assert heard.counts.dropped
    await app.broadcast.aclose()


@pytest.mark.parametrize("sharded", [False, True])
async def test_a_listener_that_blocks_has_connections_of_its_own(app, sharded):
    """It is cut off, and is back when there is room; others hear everything meanwhile."""
    channel = app.channel("slow", sharded=sharded)
    async with channel.listen(buffer=2, when_full="block") as slow, channel.listen() as heard:
        for n in range(10):
            await channel.publish(n)
        assert payloads(await take(heard, 10)) == [*range(10)]
        await asyncio.to_thread(until, lambda: slow.counts.dropped)
        assert payloads(await take(slow, 2)) == [0, 1]
        await asyncio.to_thread(until, lambda: slow.counts.reconnected)
        await channel.publish(10)
        found = await take_until(slow, lambda item: getattr(item, "payload", 0) == 10)
        assert "reconnected" in [gap.reason for gap in gaps(found)]
        assert payloads(await take(heard, 1)) == [10]
        assert heard.counts.reconnected == 0
    await app.broadcast.aclose()


@pytest.mark.parametrize("durable", [False, True])
async def test_a_sharded_channel_is_followed_when_its_slot_moves(app, cluster, durable):
    """Who listens is told of a gap, and hears what is published at the new node; other channels hear no gap."""
    moved, other = (app.channel(name, durable=durable, sharded=True) for name in ("moving", "staying"))
    key = "sq:channel:{moving}"
    source = cluster.owner(key)
    target = next(node for node in cluster.masters if node is not source)
    async with moved.listen() as heard, other.listen() as quiet:
        await other.publish(0)
        if not durable:
            await moved.publish(0)
            assert payloads(await take(heard, 1)) == [0]
        await asyncio.to_thread(cluster.move, key, target)
        await asyncio.to_thread(until, lambda: subscribed(target, key, sharded=True) == 1)
        assert subscribed(source, key, sharded=True) == 0
        await moved.publish(1)
        await asyncio.to_thread(moved.publish_sync, 2)
        found = await take(heard, 2 if durable else 3)
        assert payloads(found) == [1, 2]
        assert [gap.reason for gap in gaps(found)] == ([] if durable else ["reconnected"])
        assert heard.counts.reconnected == 1
        await other.publish(1)
        assert payloads(await take(quiet, 2)) == [0, 1]
        assert quiet.counts.reconnected == 0
    await app.broadcast.aclose()


async def test_a_channel_is_found_whose_slot_has_moved_before(app, cluster):
    """Also by who knows only where it was."""
    key = "sq:channel:{found}"
    async with app.channel("other", sharded=True).listen():
        await app.channel("other", sharded=True).publish(0)
        source = cluster.owner(key)
        target = next(node for node in cluster.masters if node is not source)
        await asyncio.to_thread(cluster.move, key, target)
        channel = app.channel("found", sharded=True)
        async with channel.listen() as heard:
            await channel.publish(1)
            await asyncio.to_thread(channel.publish_sync, 2)
            assert payloads(await take(heard, 2)) == [1, 2]
            assert heard.counts.reconnected == 0
    await app.broadcast.aclose()


async def test_a_call_is_sent_where_a_slot_is_about_to_be(cluster):
    """A node that says ASK is believed once, and the next call goes to it again."""
    key = "{asked}"
    source = cluster.owner(key)
    target = next(node for node in cluster.masters if node is not source)
    slot = raw(source, "CLUSTER", "KEYSLOT", key)
    with closing(SyncCluster(cluster.url)) as sync:
        on_loop = AsyncCluster(cluster.url)
        await on_loop.run(Call(("SET", "{asked}here", 1), bool))
        target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.id_of(source))
        source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.id_of(target))
        try:
            calls = [Call(("GET", "{asked}here"), int), *(Call(("INCR", key), int) for _ in range(3))]
            assert await on_loop.run_each(calls) == [1, 1, 2, 3]
            assert sync.run(Call(("INCR", key), int)) == 4
        finally:
            target.run("ASKING")
            for node in (target, source):
                node.run("CLUSTER", "SETSLOT", slot, "STABLE")
            await on_loop.close()


@pytest.mark.parametrize("end", ["kill", "freeze"])
async def test_listeners_and_publishers_outlive_a_master(app_of, start_node, monkeypatch, end):
    """Its replica takes over: there is a gap, the durable channel is filled, and nothing else is missing."""
    monkeypatch.setattr(hub, "_SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(hub, "_LOOK_SECONDS", 0.2)
    for kind in (SyncCluster, AsyncCluster):  # a frozen node is left after a second, and not after five
        monkeypatch.setitem(kind.__init__.__kwdefaults__, "read_timeout", 1.0)
    cluster = Cluster(start_node, replicas=True)
    here, there = app_of(cluster.url), app_of(cluster.url)
    victim = cluster.owner("sq:channel:{sharded}")
    replica = cluster.replicas[cluster.masters.index(victim)]
    durable = next(
        name for name in (f"durable:{n}" for n in range(99)) if cluster.owner(f"sq:channel:{{{name}}}") is victim
    )
    made = {"classic": {}, "sharded": {"sharded": True}, durable: {"durable": True, "sharded": True}}
    listeners = {name: there.channel(name, **options).listen() for name, options in made.items()}
    pattern = there.channel("class*").listen()
    for listener in (*listeners.values(), pattern):
        await listener.__aenter__()
    sent = {name: [] for name in made}
    stop = asyncio.Event()

    async def publish(name, options):
        channel, n = here.channel(name, **options), 0
        while not stop.is_set():
            n += 1
            try:
                await channel.publish(n)
                sent[name].append(n)
            except BrokerUnavailable:
                pass
            await asyncio.sleep(0.01)

    publishing = [asyncio.create_task(publish(name, options)) for name, options in made.items()]
    await asyncio.to_thread(until, lambda: all(len(numbers) > 20 for numbers in sent.values()))
    await asyncio.to_thread(lambda: victim.run("WAIT", 1, 1000))
    getattr(victim, end)()
    replica.run("CLUSTER", "FAILOVER", "TAKEOVER")
    counts = {name: listener.counts for name, listener in listeners.items()}
    await asyncio.to_thread(
        until, lambda: all(counts[name].reconnected for name in ("sharded", durable)), seconds=20, why="no gap"
    )
    before = {name: count.received for name, count in counts.items()}
    await asyncio.to_thread(
        until, lambda: all(count.received > before[name] + 20 for name, count in counts.items()), seconds=20
    )
    stop.set()
    await asyncio.gather(*publishing)
    for name, listener in listeners.items():
        found = await take_until(listener, lambda item, name=name: getattr(item, "payload", 0) == sent[name][-1])
        if name == "sharded":
            assert "reconnected" in [gap.reason for gap in gaps(found)]
        if name == durable:
            heard = payloads(found)
            assert heard == sorted(set(heard))
            assert set(sent[name]) <= set(heard)  # WAIT had seen that the replica has what was confirmed before
        await listener.aclose()
    await pattern.aclose()
    await here.broadcast.aclose()
    await there.broadcast.aclose()


def test_the_commands_for_channels_and_agents_know_clusters(cluster):
    """What one publishes another hears; queues are not there, and it is said."""

    def run(*words):
        command = [sys.executable, "-m", "streamq", *words, "--url", cluster.url]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    hearing = run("subscribe", "news:*", "--count", "1")
    assert "listening" in hearing.stderr.readline()
    assert "heard it" in run("publish", "news:today", '"rain"').communicate(timeout=20)[0]
    assert "rain" in hearing.communicate(timeout=20)[0]
    agents = run("agents", "--json")
    assert agents.communicate(timeout=20) == ("", "")
    queues = run("queues")
    assert "single server, or Sentinel" in queues.communicate(timeout=20)[1]
    assert (hearing.returncode, agents.returncode, queues.returncode) == (0, 0, 2)


async def test_agents_are_on_a_cluster(app):
    """They find, ask and outbid each other there."""
    asking = Agent("asking", app)
    async with running(asking, make("answering", app)):
        assert (await asking.request("answering", Question("why"), reply=Answer)).text == "WHY"
        assert sorted(info.name for info in await agents(app)) == ["answering", "asking"]
        claim = await asking.claim("name", seconds=5)
        assert claim
        assert await asking.claim("name", seconds=5) is None
        await claim.release()
    await app.broadcast.aclose()
