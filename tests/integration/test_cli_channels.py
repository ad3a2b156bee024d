"""The commands of channels, run as a user runs them."""

from __future__ import annotations

import json
import signal
import subprocess
from datetime import datetime

import pytest

from streamq import StreamQ
from tests.commands import Printing
from tests.workers import until


@pytest.fixture
def app(server_url):
    with StreamQ(server_url) as made:
        yield made


@pytest.fixture
def subscribe(server_url):
    """Give a function that starts subscribers; each listens when it returns."""
    started = []

    def start(*words, **more):
        started.append(Printing(server_url, "subscribe", *words, **more))
        started[-1].until_said("listening to")
        return started[-1]

    yield start
    for one in started:
        one.stop()


# ---- subscribe


@pytest.mark.usefixtures("any_server")
def test_what_is_published_is_printed_once(app, subscribe):
    """Also what two patterns match."""
    listener = subscribe("orders", "agent:*:events", "*:planner:*", "--json", "--count", "3")
    app.channel("orders", sender="shop").publish_sync({"n": 1}, type="Order", correlation_id="c", reply_to="back")
    app.channel("agent:planner:events", sender="planner").publish_sync(["é"])
    app.channel("other").publish_sync(0)
    app.channel("agent:x:events", sender="x").publish_sync(None)
    assert listener.process.wait(timeout=20) == 0
    first, second, third = map(json.loads, listener.lines)
    assert datetime.fromisoformat(first.pop("time")).tzinfo
    assert first.pop("id").endswith("-1")
    assert first == {
        "sender": "shop",
        "type": "Order",
        "channel": "orders",
        "correlation_id": "c",
        "reply_to": "back",
        "payload": {"n": 1},
    }
    assert (second["channel"], second["type"], second["payload"]) == ("agent:planner:events", "list", ["é"])
    assert (third["sender"], third["payload"]) == ("x", None)


def test_lines_for_people(app, subscribe):
    listener = subscribe("orders", "--count", "1")
    app.channel("orders", sender="a\x1b[31m\nb").publish_sync({"text": "x\ny"}, type="T")
    assert listener.process.wait(timeout=20) == 0
    [line] = listener.lines
    time, *facts = line.split("  ")
    assert datetime.fromisoformat(time).tzinfo
    assert facts == [r"a\x1b[31m\nb", "T", "orders", r'{"text": "x\ny"}']


def test_what_is_missing_or_no_message_is_told(app, connection, subscribe):
    listener = subscribe("orders")
    orders = app.channel("orders", sender="shop")
    connection.client.execute_command("PUBLISH", "sq:channel:orders", "nonsense")
    listener.until_said("skipped what is no message on channel orders: ")
    orders.publish_sync(1)
    until(lambda: len(listener.lines) == 1)
    orders._broadcast.publisher._counters.next("orders", "shop")
    orders.publish_sync(2)
    until(lambda: len(listener.lines) == 2)
    listener.until_said("1 message on orders from shop missing")
    connection.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    listener.until_said("lost the connection: ")
    listener.until_said("the server is back; messages from the time between are lost")
    orders.publish_sync(3)
    until(lambda: len(listener.lines) == 3)


@pytest.mark.usefixtures("any_server")
def test_a_durable_channel_is_heard_from_the_past_on(app, connection, subscribe):
    orders = app.channel("orders", durable=True)
    orders.publish_sync("early")
    listener = subscribe("orders", "--since", "1h", "--json")
    connection.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    orders.publish_sync("late")
    until(lambda: len(listener.lines) == 2)
    assert [json.loads(line)["payload"] for line in listener.lines] == ["early", "late"]
    assert all("entry" in json.loads(line) for line in listener.lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(subscribe, number):
    listener = subscribe("*")
    listener.process.send_signal(number)
    assert listener.process.wait(timeout=20) == 0
    assert listener.errors.count("\n") == 1


def test_a_reader_that_goes_ends_it_cleanly(app, subscribe):
    listener = subscribe("*", stdout=subprocess.PIPE)
    listener.process.stdout.close()
    app.channel("x").publish_sync(1)
    assert listener.process.wait(timeout=20) == 0
    assert listener.errors.count("\n") == 1


# ---- publish


@pytest.mark.usefixtures("any_server")
def test_a_message_is_published(app, streamq):
    with app.channel("orders", dict).listen(gaps=False) as listener:
        run = streamq("publish", "orders", '{"n": 1}', "--type", "Order")
        assert (run.stdout, run.stderr, run.returncode) == ("1 heard it\n", "", 0)
        message = next(listener)
        assert (message.payload, message.type, message.sender) == ({"n": 1}, "Order", "streamq-publish")
        run = streamq("publish", "orders", "-", stdin='{"n": 2}\n\n{"n": 3}\n')
        assert run.stdout == "1 heard it\n1 heard it\n"
        assert [next(listener).payload["n"] for _ in range(2)] == [2, 3]
    assert streamq("publish", "orders", "5").stdout == "0 heard it\n"


def test_a_durable_message_is_kept_and_takes_nothing_away(app, streamq, connection):
    orders = app.channel("orders", durable=True, max_age=7 * 86400.0)
    first = orders.publish_sync(1)
    run = streamq("publish", "orders", "2", "--durable")
    assert run.stdout.startswith("0 heard it, entry ")
    assert [message.payload for message in orders.replay()] == [1, 2]
    left = connection.client.execute_command("PTTL", "sq:channel:{orders}:log")
    assert left > 6 * 86_400_000, "it lives as long as the app says"
    assert first.entry < run.stdout.split()[-1]
    connection.client.execute_command("PEXPIRE", "sq:channel:{orders}:log", 30_000)
    streamq("publish", "orders", "3", "--durable")
    assert [message.payload for message in orders.replay()] == [1, 2, 3]
    left = connection.client.execute_command("PTTL", "sq:channel:{orders}:log")
    assert left > 30_000, "as if nothing had come for long, and something has"
    lasting = app.channel("lasting", durable=True, max_age=None)
    lasting.publish_sync(1)
    streamq("publish", "lasting", "2", "--durable")
    assert connection.client.execute_command("PTTL", "sq:channel:{lasting}:log") == -1
    connection.client.execute_command("DEL", "sq:channel:{lasting}:log", "sq:channel:{lasting}:numbers")
    streamq("publish", "new", "2", "--durable")
    assert connection.client.execute_command("PTTL", "sq:channel:{new}:log") > 0


@pytest.mark.parametrize(
    ("words", "stdin", "said", "published"),
    [
        (("orders", "{"), "", "the message is not JSON: ", 0),
        (("orders", "-"), "1\n{\n3\n", "line 2 is not JSON: ", 1),
        (("orders", "[NaN]"), "", "there is no NaN in it", 0),
        (("orders*", "1"), "", "nothing can be published to a pattern", 0),
        (("a b", "1"), "", "channel name 'a b' cannot be used", 0),
    ],
)
def test_what_cannot_be_published(streamq, words, stdin, said, published):
    run = streamq("publish", *words, stdin=stdin)
    assert run.returncode == 2
    assert run.stdout.count("\n") == published
    assert run.stderr.startswith("streamq: ")
    assert said in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_past_is_that_of_one_channel(streamq):
    for names in (("a", "b"), ("a*",)):
        run = streamq("subscribe", *names, "--since", "1h")
        assert run.returncode == 2
        assert "--since takes the name of one durable channel" in run.stderr


# ---- channels


@pytest.mark.usefixtures("any_server")
def test_channels_are_shown_with_who_listens_and_what_they_keep(app, streamq, subscribe, connection):
    run = streamq("channels")
    assert (run.stdout, run.stderr, run.returncode) == ("", "no channels under the namespace 'sq'\n", 0)
    assert streamq("channels", "--json").stdout == "[]\n"
    subscribe("plain", "orders", "pat*")
    orders = app.channel("orders", durable=True)
    for number in range(5):
        orders.publish_sync(number)
    with orders.group("mail", prefetch=2) as group:
        next(group)
        connection.client.execute_command("SADD", "sq:channels", "gone")
        found = json.loads(streamq("channels", "--json").stdout)
        assert found == [
            {
                "channel": "orders",
                "kind": "durable",
                "subscribers": 2,
                "length": 5,
                "groups": [{"name": "mail", "consumers": 1, "pending": 2, "lag": 3}],
            },
            {"channel": "plain", "kind": "plain", "subscribers": 1, "length": 0, "groups": []},
        ]
        assert streamq("channels").stdout.splitlines() == [
            "channel  kind     subscribers  length  groups",
            "orders   durable            2       5  mail: 2 pending, lag 3",
            "plain    plain              1       -",
        ]
    assert connection.client.execute_command("SMEMBERS", "sq:channels") in ({b"orders"}, [b"orders"])
