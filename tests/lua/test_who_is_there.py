"""presence_* and claim_*: who is there, and who has claimed what."""

from __future__ import annotations

import json

import pytest

from streamq.broker import agents
from tests.workers import until

CHANNEL = "agent:presence:events"
WHERE = f"sq:channel:{CHANNEL}"


def beat(q, member, *, ttl_ms=60_000):
    return q.run(agents.beat(q.keys, CHANNEL, member, json.dumps({"name": member}).encode(), ttl_ms))


def present(q):
    return [json.loads(one.info)["name"] for one in q.run(agents.present(q.keys, CHANNEL))]


def told(next_message):
    """Read one change."""
    message = json.loads(next_message()[1])
    return message["type"], message["payload"]["name"], message["sequence"]


def test_who_gives_a_sign_of_life_is_there_for_a_time(q):
    """The server's own time counts."""
    now = int(q.redis("TIME")[0]) * 1000
    assert now <= beat(q, "one:1") <= now + 10_000
    beat(q, "two:1", ttl_ms=1)
    until(lambda: present(q) == ["one:1"])
    [one] = q.run(agents.present(q.keys, CHANNEL))
    assert now + 60_000 <= one.until_ms <= now + 70_000


def test_changes_are_told_once_and_numbered(q):
    with q.listening(WHERE) as next_message:
        beat(q, "one:1")
        beat(q, "one:1")
        beat(q, "two:1", ttl_ms=1)
        until(lambda: present(q) == ["one:1"])
        beat(q, "one:1")
        q.run(agents.leave(q.keys, CHANNEL, "one:1"))
        q.run(agents.leave(q.keys, CHANNEL, "one:1"))
        q.run(agents.leave(q.keys, CHANNEL, "nobody:1"))
        beat(q, "three:1")
        changes = [told(next_message) for _ in range(5)]
    assert changes == [
        ("joined", "one:1", 1),
        ("joined", "two:1", 2),
        ("left", "two:1", 3),
        ("left", "one:1", 4),
        ("joined", "three:1", 5),
    ]


def test_a_beat_removes_who_is_overdue(q):
    """Itself is not: that it comes late is no news, if nobody has removed it before."""
    beat(q, "one:1")
    beat(q, "dead:1", ttl_ms=1)
    with q.listening(WHERE) as next_message:
        until(lambda: beat(q, "one:1") and not q.redis("HEXISTS", q.keys.presence[1], "dead:1"))
        beat(q, "two:1")
        assert [told(next_message)[:2] for _ in range(2)] == [("left", "dead:1"), ("joined", "two:1")]


def test_nothing_is_left_for_ever(q):
    beat(q, "one:1")
    assert all(0 < q.redis("PTTL", key) <= 3_600_000 for key in q.keys.presence)


def test_a_claim_is_of_one_owner_for_a_time(q):
    take = [q.run(agents.take_claim(q.keys, "x", token, 60_000)) for token in ("a/1", "b/1", "a/1")]
    assert take == ["a/1"] * 3
    assert q.run(agents.claim_holder(q.keys, "x")) == "a/1"
    assert q.run(agents.claim_holder(q.keys, "y")) == ""
    assert q.run(agents.take_claim(q.keys, "y", "b/1", 1)) == "b/1"
    until(lambda: q.run(agents.take_claim(q.keys, "y", "a/1", 60_000)) == "a/1")


@pytest.mark.parametrize("token", ["b/1", ""])
def test_only_its_owner_renews_or_releases_a_claim(q, token):
    q.run(agents.take_claim(q.keys, "x", "a/1", 1000))
    assert q.run(agents.renew_claim(q.keys, "x", token, 60_000)) == [token.encode()]
    assert not q.run(agents.release_claim(q.keys, "x", token))
    assert q.redis("PTTL", "sq:claim:x") <= 1000
    assert q.run(agents.renew_claim(q.keys, "x", "a/1", 60_000)) == []
    assert q.redis("PTTL", "sq:claim:x") > 1000
    assert q.run(agents.release_claim(q.keys, "x", "a/1"))
    assert not q.run(agents.release_claim(q.keys, "x", "a/1"))
    assert q.run(agents.renew_claim(q.keys, "x", "a/1", 60_000)) == [b"a/1"]
