"""Another server becomes the master: callers, workers and listeners find it by themselves."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, closing

import pytest

from streamq import BrokerUnavailable, NotDurable, StreamQ
from streamq._redis import hub
from streamq._redis.connections import AsyncConnection, SyncConnection
from streamq.broker import calls, durability, reads
from tests.hearing import Hearing, gaps, payloads
from tests.nodes import free_port
from tests.workers import Worker, until

APP = "tests.apps.basic:app"


@pytest.fixture
def watched(start_node):
    """Start a server, its replica and a Sentinel; give both and the URL, in which another Sentinel is out of order."""
    master, replica = start_node(), start_node()
    replica.follow(master)
    sentinel = start_node(
        "sentinel monitor shop 127.0.0.1",
        f"{master.port} 1",
        "sentinel down-after-milliseconds shop",
        1000,
        "sentinel failover-timeout shop",
        5000,
        sentinel=True,
    )
    until(lambda: sentinel.client.sentinel_slaves("shop"), why="the Sentinel does not know the replica")
    return master, replica, f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/shop/0"


@pytest.fixture
def worker_at():
    """Start workers of another server than the test's."""
    started = []

    def start(url: str, *options: str) -> Worker:
        started.append(Worker(APP, url, *options))
        return started[-1]

    yield start
    for worker in started:
        worker.stop()


async def test_a_master_is_killed_while_tasks_flow(watched, load_app_at, worker_at, monkeypatch):
    """What a replica had confirmed has a result; enqueues, results and the worker are back with the new master."""
    monkeypatch.setattr(durability, "_CONFIRM_MS", 500)  # the new master has no replica that could confirm
    master, replica, url = watched
    basic = load_app_at("tests.apps.basic", url)
    worker = worker_at(url, "--lease", "1")  # what was done, and not yet copied, is done again after the lease
    assert await (await basic.add.adelay(1, 1)).aget(timeout=5) == 2
    confirmed = []
    for n in range(200):
        if n == 100:
            master.kill()
        try:
            confirmed.append((n, basic.square.using(durability="replica").delay(n)))
        except (BrokerUnavailable, NotDurable):
            break
    assert len(confirmed) >= 100

    def sent():
        try:
            return basic.add.delay(1, 2)
        except BrokerUnavailable:
            return None

    assert until(sent, seconds=15, why="enqueues do not come back").get(timeout=10) == 3
    assert [result.get(timeout=10) for _, result in confirmed] == [n * n for n, _ in confirmed]
    assert await (await basic.add.adelay(2, 2)).aget(timeout=5) == 4
    until(lambda: replica.run("PUBSUB", "CHANNELS", "sq:done:*"), why="results are not listened for")
    assert worker.log.count("Redis is away") == worker.log.count("Redis is back") == 1, worker.log
    await basic.app.aclose()


async def test_a_server_that_is_master_no_longer_is_left(start_node, tmp_path):
    """At its first refusal, all sockets to it are closed and the address is looked up anew; here it is a link."""
    old, new = start_node(), start_node()
    new.follow(old)
    address = tmp_path / "redis"
    address.symlink_to(old.socket)
    queue_names = [calls.register_queues(reads.Keys("sq"), [name]) for name in "ab"]
    connection, on_loop = (kind(f"unix://{address}", patient=True) for kind in (SyncConnection, AsyncConnection))
    connection.run(queue_names[0])
    await on_loop.run(queue_names[0])
    new.run("REPLICAOF", "NO", "ONE")
    old.run("REPLICAOF", "127.0.0.1", new.port)
    address.unlink()
    address.symlink_to(new.socket)
    connection.run(queue_names[1])
    assert new.client.smembers("sq:queues") == {"a", "b"}
    new.run("FLUSHALL")
    await on_loop.run(queue_names[1])
    assert new.client.smembers("sq:queues") == {"b"}
    connection.close()
    await on_loop.close()


def test_without_sentinels_an_enqueue_says_so(start_node):
    """After some seconds of trying; a Sentinel that knows no such service is named with it."""
    sentinel = start_node(sentinel=True)
    connection = SyncConnection(f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/nowhere")
    with pytest.raises(BrokerUnavailable, match="No master found for 'nowhere'"):
        connection.run(reads.now())
    connection.close()


def test_sentinels_may_have_a_password(start_node):
    """It is one of their own, apart from that of the server."""
    master = start_node("requirepass", "mine", login="mine")
    monitor = "sentinel monitor shop 127.0.0.1", f"{master.port} 1"
    sentinel = start_node(*monitor, "requirepass", "its", sentinel=True, login="its")
    app = StreamQ(f"redis+sentinel://:mine@127.0.0.1:{sentinel.port}/shop?sentinel_password=its")
    assert app.broker.find_queue("1") is None
    app.close()


class Publishing:
    """Publishes numbers on a channel from a thread, for ``with``, whatever happens.

    Attributes:
        sent: those that the server has confirmed.
    """

    def __init__(self, channel):
        self.sent = []
        self._channel = channel
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publishing", daemon=True)

    def _run(self):
        n = 0
        while not self._stop.wait(0.005):
            n += 1
            try:
                self._channel.publish_sync(n)
            except BrokerUnavailable:
                continue
            self.sent.append(n)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("end", ["kill", "freeze"])
def test_listeners_outlive_a_master(watched, monkeypatch, end):
    """They are told of the gap, and hear what is published on the new master; a durable channel misses nothing."""
    monkeypatch.setattr(hub, "_SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(hub, "_LOOK_SECONDS", 0.2)
    master, replica, url = watched
    with ExitStack() as stack:
        app, other = (stack.enter_context(closing(StreamQ(url))) for _ in range(2))
        for one in (app, other):  # a frozen server is left after a second, and not after five
            one.broker.sync.client.connection_pool.connection_kwargs["socket_timeout"] = 1.0
        plain, durable = (app.channel(name, durable=name == "orders") for name in ("prices", "orders"))
        heard, kept = (stack.enter_context(Hearing(channel.listen(buffer=10_000))) for channel in (plain, durable))
        publishing = [
            stack.enter_context(Publishing(other.channel(channel.name, durable=channel.durable)))
            for channel in (plain, durable)
        ]
        until(lambda: all(len(one.sent) > 20 for one in publishing))
        copied = len(publishing[1].sent)
        assert master.run("WAIT", 1, 1000) == 1
        began = time.time()
        getattr(master, end)()
        until(lambda: replica.client.info("replication")["role"] == "master", seconds=20, why="no failover")
        until(lambda: gaps(heard.items), seconds=20, why="no gap is told")
        joined = [len(one.sent) for one in publishing]
        until(lambda: all(len(one.sent) > n + 50 for one, n in zip(publishing, joined, strict=True)), seconds=20)
        until(lambda: payloads(heard.items)[-1:] > publishing[0].sent[joined[0] + 20 :][:1], why="nothing is heard")
        last = publishing[1].sent[-1]
        until(lambda: last in payloads(kept.items), why="nothing is got from the log")
        [reconnected] = [gap for gap in gaps(heard.items) if gap.reason == "reconnected"]
        assert began - 2 < reconnected.since.timestamp() < time.time()
        numbers = payloads(kept.items)
        assert numbers == sorted(set(numbers))
        after = publishing[1].sent[joined[1] :]
        expected = {*publishing[1].sent[:copied], *after[: after.index(last) + 1]}
        assert expected <= set(numbers)
        assert kept.listener.counts.reconnected == 1
