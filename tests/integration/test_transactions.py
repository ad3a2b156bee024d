"""`app.transaction()`: the calls of a block are enqueued together at its end, or not at all."""

from __future__ import annotations

import socket
import subprocess
from contextlib import ExitStack

import pytest
import redis

from streamq import (
    BrokerOutOfMemory,
    BrokerRefused,
    BrokerUnavailable,
    PayloadError,
    PayloadTooLarge,
    State,
    StreamQ,
    UnknownTaskId,
)
from streamq.broker import calls
from tests.servers import server_binary
from tests.workers import until

APP = "tests.apps.basic:app"


def together(app, *signatures):
    """Enqueue calls in one transaction."""
    with app.transaction() as batch:
        return [batch.enqueue(signature) for signature in signatures]


def test_all_land_and_run(basic, start_worker):
    """Calls of different tasks and queues; nothing is sent before the end of the block."""
    with basic.app.transaction() as batch:
        first = batch.enqueue(basic.add.s(2, 3))
        second = batch.enqueue(basic.square.using(queue="slow").s(7))
        later = batch.enqueue(basic.add.using(countdown=600).s(1, 1))
        with pytest.raises(UnknownTaskId):
            first.get(timeout=5)
        assert second.status() is State.UNKNOWN
    assert (first.status(), later.status()) == (State.QUEUED, State.DELAYED)
    start_worker(APP, "--queues", "default,slow")
    assert (first.get(timeout=10), second.get(timeout=10)) == (5, 49)


def test_a_new_queue_is_known_afterwards(basic, server_url):
    together(basic.app, basic.square.using(queue="slow").s(7), basic.square.using(queue="mails").s(7))
    assert basic.app.broker.sync.run(calls.queue_names(basic.app.broker.keys)) == ["mails", "slow"]


async def test_with_async_callers(basic, server_url):
    """``async with`` is the same; so is what happens to an error."""
    async with basic.app:
        async with basic.app.transaction() as batch:
            landed = batch.enqueue(basic.add.s(1, 1))
        assert await landed.astatus() is State.QUEUED

        async def fail():
            async with basic.app.transaction() as batch:
                results.append(batch.enqueue(basic.add.s(1, 1)))
                raise LookupError

        results = []
        with pytest.raises(LookupError):
            await fail()
        assert await results[0].astatus() is State.UNKNOWN


def test_an_error_in_the_block_sends_nothing(basic, connection):
    """It comes out of the block as it is."""

    def fail():
        with basic.app.transaction() as batch:
            batch.enqueue(basic.add.s(1, 1))
            raise LookupError("no such order")

    with pytest.raises(LookupError, match="no such order"):
        fail()
    assert connection.client.execute_command("KEYS", "*") == []


def test_an_empty_block_asks_nothing():
    """Not even whether there is a server."""
    with StreamQ("redis://nowhere.invalid:1") as app, app.transaction():
        pass


def test_a_full_server_takes_none(basic, connection):
    run = connection.client.execute_command
    run("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(BrokerOutOfMemory):
            together(basic.app, basic.add.s(1, 1), basic.add.using(queue="slow").s(1, 1))
        assert run("KEYS", "*") == []
    finally:
        run("CONFIG", "SET", "maxmemory", 0)


def test_a_lost_reply_is_made_up_for(basic, connection, monkeypatch):
    """The transaction is sent again, and each of its tasks is there once."""
    sync = basic.app.broker.sync
    send, sent = sync._send, []

    def losing_the_first_reply(*words):
        reply = send(*words)
        sent.append(words)
        if len(sent) == 1:
            raise redis.ConnectionError("the connection was cut")
        return reply

    monkeypatch.setattr(sync, "_send", losing_the_first_reply)
    queues = ["q", "default"] * 5
    together(basic.app, *(basic.add.using(queue=name).s(1, 1) for name in queues))
    assert len(sent) > 1
    lengths = [connection.client.execute_command("XLEN", f"sq:{{{name}}}:stream:5") for name in ("q", "default")]
    assert lengths == [5, 5]


def test_when_it_is_not_known_the_error_says_what_is_safe(basic, monkeypatch):
    """All or none, and which ids are meant."""

    def gone(*_words):
        raise redis.ConnectionError("the connection was cut")

    broker = basic.app.broker
    monkeypatch.setattr(broker.sync, "_send", gone)
    monkeypatch.setattr(broker.sync, "_patient", False)
    with pytest.raises(BrokerUnavailable, match="was cut") as caught:
        together(basic.app, basic.add.using(task_id="order-17").s(1, 1), basic.add.s(1, 1))
    (note,) = caught.value.__notes__
    assert "all of its 2 calls, or none" in note
    assert "order-17" in note


def test_there_is_a_limit_of_calls(basic, connection):
    """Redis does nothing else meanwhile; the error names the call that was one too many."""
    call = basic.add.s(1, 1)
    with pytest.raises(PayloadTooLarge, match=r"basic\.add\(\): .* at most 1000 calls"):
        together(basic.app, *[call] * 1001)
    assert connection.client.execute_command("KEYS", "*") == []
    together(basic.app, *[call] * 1000)
    assert connection.client.execute_command("XLEN", "sq:{default}:stream:5") == 1000


def test_there_is_a_limit_of_bytes(basic, connection):
    megabyte = basic.fail.s("x" * (1024 * 1024 - 4))
    with pytest.raises(PayloadTooLarge, match=r"basic\.fail\(\): .* 9437184 bytes"):
        together(basic.app, *[megabyte] * 9)
    assert connection.client.execute_command("KEYS", "*") == []
    together(basic.app, *[megabyte] * 8)
    assert connection.client.execute_command("XLEN", "sq:{default}:stream:5") == 8


def test_outside_its_block_it_takes_nothing(basic, server_url):
    """A call that would never be sent is refused."""
    batch = basic.app.transaction()
    with pytest.raises(PayloadError, match="inside its block"):
        batch.enqueue(basic.add.s(1, 1))
    with batch:
        batch.enqueue(basic.add.s(1, 1))
        with pytest.raises(PayloadError, match="has begun already"), batch:
            pass
    with pytest.raises(PayloadError, match="inside its block"):
        batch.enqueue(basic.add.s(1, 1))


@pytest.fixture
def cluster(tmp_path):
    """Give the URL of a Redis Cluster of one node, which has all slots."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, bus = one.getsockname()[1], other.getsockname()[1]
    words = [server_binary(), "--port", str(port), "--cluster-port", str(bus), "--cluster-enabled", "yes", "--save", ""]
    with ExitStack() as stack:
        server = subprocess.Popen([*words, "--dir", str(tmp_path)], stdout=subprocess.DEVNULL)
        stack.callback(server.wait)
        stack.callback(server.terminate)
        client = stack.enter_context(redis.Redis(port=port))
        client.response_callbacks.clear()

        def answers():
            try:
                return client.execute_command("PING")
            except redis.ConnectionError:
                return False

        until(answers)
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"))
        yield f"redis://127.0.0.1:{port}"


def test_a_cluster_refuses_what_lies_in_several_slots(cluster, load_app_at):
    """In one line that says which queues; within one queue a transaction works there as well."""
    basic = load_app_at("tests.apps.basic", cluster)
    one, other = basic.add.using(task_id="1").s(1, 1), basic.add.using(queue="slow").s(1, 1)
    with pytest.raises(BrokerRefused, match="the queues default, slow, which lie in different slots") as caught:
        together(basic.app, one, other)
    assert "nothing was enqueued" in str(caught.value)
    assert basic.app.result("1", queue="default").status() is State.UNKNOWN
    results = together(basic.app, *(basic.add.s(1, number) for number in range(3)))
    assert {result.status() for result in results} == {State.QUEUED}
