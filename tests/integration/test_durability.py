"""What ``durability`` promises is confirmed by the server, or the enqueue is an error."""

from __future__ import annotations

import time

import pytest

from streamq import BrokerRefused, ConfigError, NotDurable, State, StreamQ, by
from streamq._redis.connections import AsyncConnection, SyncConnection
from streamq.broker import durability as durabilities
from tests.proxy import Fault, Proxy


@pytest.fixture
def soon(monkeypatch):
    """Have servers wait for a tenth of a second only, so that what is never confirmed is known soon."""
    monkeypatch.setattr(durabilities, "_CONFIRM_MS", 100)


@pytest.fixture
def app_at():
    """Give a function that makes an app with one task; its connections are closed at the end."""
    opened = []

    def make(url: str, **settings) -> StreamQ:
        app = StreamQ(url, **settings)
        opened.append(app)
        return app

    yield make
    for app in opened:
        app.close()


def add(x: int) -> int:
    return x


@pytest.fixture
def pair(start_node):
    """Start a server and its replica."""
    master, replica = start_node("appendonly", "yes"), start_node()
    replica.follow(master)
    return master, replica


def test_a_replica_that_answers_makes_an_enqueue_durable(pair, app_at):
    """With the app's durability or the call's, one message or many: when the call returns, the replica has them all."""
    master, replica = pair
    app = app_at(master.url, durability="replica")
    task = app.task(add)
    results = [task.delay(1), task.using(countdown=60).delay(2), *app.enqueue_many(task.s(n) for n in range(600))]
    other = app_at(master.url)
    shipped = other.task(name="other")(add).apply_async((1,), durability="replica")
    on_replica = {key.rpartition(":")[2] for key in replica.client.scan_iter("sq:{default}:task:*", count=1000)}
    assert {result.id for result in (*results, shipped)} == on_replica


async def test_a_queue_is_known_though_the_reply_got_lost_that_it_is_new(pair, app_at):
    """Sent again, its message is known already, and so is its queue afterwards."""
    master, _ = pair
    with Proxy(master.url) as proxy:
        app = app_at(proxy.url, durability="replica")
        task = app.task(add)
        lost = proxy.strike("enqueue", Fault.AFTER)
        task.delay(1)
        assert lost.struck
        lost = proxy.strike("enqueue", Fault.AFTER)
        await task.using(queue="mails").adelay(1)
        assert lost.struck
        await app.aclose()
    assert sorted(master.run("SMEMBERS", "sq:queues")) == ["default", "mails"]


async def test_a_replica_that_stands_still_is_said(pair, app_at, soon):
    """The error comes in bounded time and names the id; the message is there, once, however often it is sent again."""
    master, replica = pair
    app = app_at(master.url, durability="replica")
    task = app.task(add)
    task.delay(0)
    replica.freeze()
    began = time.monotonic()
    with pytest.raises(NotDurable, match="no replica has it") as caught:
        task.using(task_id="1").delay(1)
    assert time.monotonic() - began < 2
    assert "Task 1 is in Redis" in caught.value.__notes__[0]
    with pytest.raises(NotDurable):
        await task.using(task_id="2").adelay(2)
    with pytest.raises(NotDurable):
        app.enqueue_many([task.using(task_id="3").s(3)])
    with pytest.raises(NotDurable):
        await app.aenqueue_many([task.using(task_id="4").s(4)])
    with pytest.raises(NotDurable):
        await task.using(task_id="1").adelay(1)
    assert [app.result(one, queue="default").status() for one in "1234"] == [State.QUEUED] * 4
    assert master.run("XLEN", "sq:{default}:stream:5") == 5
    task.using(task_id="5", durability="async").delay(5)
    replica.thaw()
    task.using(task_id="1").delay(1)
    assert master.run("XLEN", "sq:{default}:stream:5") == 6
    await app.aclose()


async def test_a_duplicate_is_as_durable_as_was_asked_for(pair, app_at, soon):
    """What it is a duplicate of may have been enqueued a moment ago: that is waited for too."""
    master, replica = pair
    app, other = app_at(master.url), app_at(master.url, durability="replica")
    ours, task = app.task(unique=by())(add), other.task(unique=by())(add)
    assert task.delay(1).id == task.delay(1).id
    replica.freeze()
    held = ours.delay(2)
    for _ in range(2):
        with pytest.raises(NotDurable) as caught:
            task.delay(2)
        assert "or the one that it is a duplicate of, is in Redis" in caught.value.__notes__[0]
        with pytest.raises(NotDurable):
            await other.aenqueue_many([task.s(2)])
    replica.thaw()
    assert (task.delay(2).id, (await task.adelay(2)).id) == (held.id, held.id)
    await other.aclose()


def test_after_a_lost_reply_the_first_write_is_what_counts(pair, app_at, soon, monkeypatch):
    """Sent again on a new socket, a message that is known proves nothing: its replica must have the first write."""
    master, replica = pair
    app = app_at(master.url, durability="replica")
    task = app.task(add)
    task.delay(0)
    replica.freeze()
    connection, lost = app.broker.sync, []

    def lose(commands):
        pipeline = connection.client.pipeline(transaction=False)
        for words in commands:
            pipeline.execute_command(*words)
        pipeline.execute(raise_on_error=False)
        monkeypatch.setattr(connection, "_pipe", pipe)
        connection.client.connection_pool.disconnect()
        lost.append(1)
        raise ConnectionResetError

    pipe = connection._pipe
    monkeypatch.setattr(connection, "_pipe", lose)
    with pytest.raises(NotDurable):
        task.using(task_id="1").delay(1)
    assert lost
    assert master.run("XLEN", "sq:{default}:stream:5") == 2


def test_without_a_replica_nothing_is_durable(start_node, app_at, soon):
    app = app_at(start_node().url, durability="replica")
    with pytest.raises(NotDurable, match="no replica has it"):
        app.task(add).using(task_id="1").delay(1)
    assert app.result("1").status() is State.QUEUED
    assert app.broker.find_queue("1") == "default"


async def test_an_fsync_is_waited_for(start_node, app_at):
    """When the call returns, the disk has what was written; a script that the server forgot is no obstacle."""
    master = start_node("appendonly", "yes", "appendfsync", "everysec")
    app = app_at(master.url)
    task = app.task(add)
    task.using(durability="fsync").delay(1)
    master.run("SCRIPT", "FLUSH")
    app.enqueue_many((task.s(n) for n in range(10)), durability="fsync")
    master.run("SCRIPT", "FLUSH")
    await task.using(durability="fsync").adelay(3)
    await app.aclose()
    assert master.run("XLEN", "sq:{default}:stream:5") == 12


async def test_a_server_that_cannot_fsync_is_refused(start_node, app_at):
    """Before anything is sent; once the server can, the same call works."""
    master = start_node("appendonly", "no")
    app = app_at(master.url, durability="fsync")
    task = app.task(add)
    for _ in range(2):
        with pytest.raises(BrokerRefused, match=r"durability='fsync' needs .* appendonly on.*; nothing was enqueued"):
            task.delay(1)
    with pytest.raises(BrokerRefused):
        await task.adelay(1)
    with pytest.raises(BrokerRefused):
        app.enqueue_many([task.s(1)])
    assert master.run("DBSIZE") == 0
    master.run("CONFIG", "SET", "appendonly", "yes")
    task.delay(1)
    await app.aclose()


def test_a_server_that_loses_its_ability_is_noticed(start_node, app_at):
    """The message is there, and the next is refused: it may be another server by now."""
    master = start_node("appendonly", "yes")
    app = app_at(master.url, durability="fsync")
    task = app.task(add)
    task.delay(1)
    master.run("CONFIG", "SET", "appendonly", "no")
    with pytest.raises(NotDurable, match="appendonly is disabled"):
        task.delay(2)
    with pytest.raises(BrokerRefused):
        task.delay(3)
    assert master.run("XLEN", "sq:{default}:stream:5") == 2


@pytest.fixture
def syncing(any_server, connection):
    """Have each server sync its file every second; afterwards it does what it did before."""
    run = connection.client.execute_command
    before = {name: run("CONFIG", "GET", name)[1] for name in ("appendonly", "appendfsync")}
    run("CONFIG", "SET", "appendonly", "yes", "appendfsync", "everysec")
    yield run
    run("CONFIG", "SET", *(word for pair in before.items() for word in pair))


def test_each_server_confirms_or_refuses(syncing, server_url, app_at):
    """An fsync can be waited for from Redis 7.2 on."""
    task = app_at(server_url).task(add).using(durability="fsync")
    if b"redis_version:7.0" in syncing("INFO", "server"):
        with pytest.raises(BrokerRefused, match=r"Redis since 7\.2"):
            task.delay(1)
        assert syncing("DBSIZE") == 0
    else:
        task.delay(1)
        assert syncing("XLEN", "sq:{default}:stream:5") == 1


def test_a_server_that_never_syncs_is_refused(server_url, app_at, connection):
    """As the embedded one: its file survives a kill of the server, but perhaps not a power cut."""
    with pytest.raises(BrokerRefused, match="appendfsync is 'no'"):
        app_at(server_url).task(add).using(durability="fsync").delay(1)
    assert connection.client.execute_command("DBSIZE") == 0


def test_a_choice_that_there_is_not(app_at):
    """Nor can a signature have one, which would be lost on the way."""
    app = app_at("redis://nowhere")
    task = app.task(add)
    with pytest.raises(ConfigError, match="durability must be one of"):
        task.using(durability="sync")
    with pytest.raises(ConfigError, match="durability must be one of"):
        app.enqueue_many([task.s(1)], durability="sync")
    with pytest.raises(ConfigError, match=r"enqueue_many\(\.\.\., durability"):
        task.using(durability="fsync").s(1)


def test_the_wait_ends_before_the_socket_gives_up(app_at):
    """Else an answer that comes late would be taken for a lost one."""
    for kind in (SyncConnection, AsyncConnection):
        options = kind("redis://nowhere").client.connection_pool.connection_kwargs
        assert options["socket_timeout"] >= durabilities.CONFIRM_SECONDS + 1
