"""What is made of a server's answers, and what the exit code of that is."""

from __future__ import annotations

import pytest

from streamq.broker.diagnosis import Answers, _clock_ahead
from streamq.config import Settings
from streamq.doctor import Finding, Level
from streamq.doctor.checks import judge
from streamq.doctor.releases import HOLES, check_release
from streamq.errors import BrokerError, BrokerRefused

INFO = {
    "redis_version": "8.2.9",
    "redis_mode": "standalone",
    "server_time_usec": "1",
    "used_memory": "50",
    "maxmemory": "100",
    "maxmemory_policy": "noeviction",
    "total_system_memory": "1000",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "role": "master",
    "connected_slaves": "0",
    "cluster_enabled": "0",
}
LIMITS = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"
CONFIG = {"appendfsync": "everysec", "client-output-buffer-limit": LIMITS, "save": "3600 1 300 100", "timeout": "0"}
NO_CONFIG = BrokerRefused("NOPERM this user has no permissions to run the 'config|get' command")


def examined(
    info=None, config=CONFIG, forbidden=(), *, without=(), url="redis://redis", durability="async", clock_ahead=0.0
):
    """Judge a server that is fine but for what is given; returns the findings by check."""
    told = {name: value for name, value in (INFO | (info or {})).items() if name not in without}
    answers = Answers(Settings(url=url, durability=durability), told, config, forbidden, clock_ahead)
    findings = judge(answers)
    by_check = {finding.check: finding for finding in findings}
    assert len(by_check) == len(findings)
    return by_check


def test_a_server_that_is_fine():
    """Each check says that it is fine."""
    found = examined()
    assert len(found) == 14
    assert {finding.level for finding in found.values()} == {Level.OK}
    assert not any(finding.advice for finding in found.values())


WARNINGS = [
    ("memory", {"info": {"used_memory": "80"}}, "80% of maxmemory"),
    ("memory", {"info": {"used_memory": "900", "maxmemory": "0"}}, "90% of the machine's memory"),
    ("persistence", {"info": {"aof_enabled": "0"}}, "may lose all of the last 3600 s"),
    ("persistence", {"info": {"aof_enabled": "0"}, "config": CONFIG | {"save": ""}}, "a restart loses every task"),
    ("persistence", {"info": {"aof_enabled": "0"}, "config": NO_CONFIG}, "a crash loses what no snapshot has"),
    ("persistence", {"info": {"aof_enabled": "0"}, "durability": "fsync"}, "durability='fsync' cannot be had"),
    ("fsync", {"config": CONFIG | {"appendfsync": "no"}}, "may lose the last half minute"),
    ("disk", {"info": {"rdb_last_bgsave_status": "err"}}, "(rdb_last_bgsave_status)"),
    ("disk", {"info": {"aof_last_write_status": "err"}}, "(aof_last_write_status)"),
    ("replicas", {"info": {"connected_slaves": "2"}}, "2 replicas are connected, and min-replicas-to-write is 0"),
    ("replicas", {"durability": "replica"}, "no replicas are connected, and durability='replica' waits for one"),
    ("timeout", {"config": CONFIG | {"timeout": "300"}}, "after 300 s of silence"),
    ("pubsub", {"config": CONFIG | {"client-output-buffer-limit": "pubsub 1048576 0 0"}}, "pubsub 1048576 0 0"),
    ("pubsub", {"config": CONFIG | {"client-output-buffer-limit": "pubsub 0 4096 60"}}, "miss events"),
    ("pubsub", {"config": CONFIG | {"client-output-buffer-limit": "pubsub 33554432 8388608 10"}}, "miss events"),
    ("cluster", {"info": {"cluster_enabled": "1"}}, "this node alone"),
    ("clock", {"clock_ahead": 3.25}, "3.2 s ahead of this machine's"),
    ("clock", {"clock_ahead": -3.25}, "3.2 s behind this machine's"),
    ("server", {"info": {"valkey_version": "7.2.14"}}, "streamq is not tested with it"),
    ("release", {"info": {"redis_version": "8.2.1"}}, "CVE-2025-49844"),
    ("commands", {"forbidden": BrokerRefused("NOPERM no permissions to run the 'eval' command")}, "forgotten"),
]


@pytest.mark.parametrize(("check", "server", "said"), WARNINGS)
def test_a_server_on_which_something_may_be_lost(check, server, said):
    """There is one warning, which says what may happen; all else stays as it is."""
    found = examined(**server).values()
    [warning] = [finding for finding in found if finding.level is Level.WARNING]
    assert warning.check == check
    assert said in warning.text
    assert not [finding for finding in found if finding.level is Level.REFUSED]


REFUSALS = [
    ("server", {"info": {"redis_version": "6.2.14"}}, "streamq needs Redis 7.0"),
    ("server", {"info": {"redis_mode": "sentinel"}}, "a Sentinel"),
    ("eviction", {"info": {"maxmemory_policy": "allkeys-lru"}}, "deletes whole streams"),
    ("eviction", {"info": {"maxmemory_policy": "volatile-ttl"}}, "deletes results before their time"),
    ("role", {"info": {"role": "slave", "master_host": "db", "master_port": "7"}}, "a replica of db:7"),
    ("commands", {"forbidden": ["XADD sq:{default}:stream:5 * id 1"]}, "XADD sq:{default}:stream:5"),
    ("commands", {"forbidden": BrokerRefused("NOPERM can't run the 'evalsha' command")}, "may not run scripts"),
    ("commands", {"forbidden": BrokerError("unknown command 'EVALSHA', with args beginning with")}, "EVALSHA"),
]


@pytest.mark.parametrize(("check", "server", "said"), REFUSALS)
def test_a_server_that_cannot_be_used(check, server, said):
    """The one reason is told, and what to do."""
    [refusal] = [finding for finding in examined(**server).values() if finding.level is Level.REFUSED]
    assert refusal.check == check
    assert said in refusal.text
    assert refusal.advice


UNKNOWN = [
    ({"config": NO_CONFIG}, {"fsync", "timeout", "pubsub"}),
    ({"config": {}}, {"fsync", "timeout", "pubsub"}),
    ({"config": BrokerError("unknown command 'CONFIG'")}, {"fsync", "timeout", "pubsub"}),
    ({"config": CONFIG | {"client-output-buffer-limit": "as you like"}}, {"pubsub"}),
    ({"forbidden": BrokerError("this server cannot tell what is permitted")}, {"commands"}),
    (
        {"without": set(INFO) - {"redis_version"}},
        {"eviction", "memory", "persistence", "disk", "role", "cluster", "clock"},
    ),
    ({"info": {"redis_version": "255.x"}}, {"release"}),
]


@pytest.mark.parametrize(("server", "checks"), UNKNOWN)
def test_what_a_server_does_not_tell_is_unknown(server, checks):
    """It is never taken for fine, and never refused."""
    found = examined(**server)
    assert {check for check, finding in found.items() if finding.level is Level.UNKNOWN} == checks
    assert {finding.level for finding in found.values()} <= {Level.OK, Level.UNKNOWN}


def test_the_embedded_server_may_leave_fsync_to_the_kernel():
    found = examined(config=CONFIG | {"appendfsync": "no"}, url="embedded://data")
    assert found["fsync"].level is Level.OK
    assert "a power cut may lose some seconds" in found["fsync"].text


@pytest.mark.parametrize("server", [{"info": {"min_slaves_good_slaves": "1"}}, {"durability": "replica"}])
def test_replicas_that_are_waited_for(server):
    """Neither min-replicas-to-write nor an app that waits for a replica by itself gets a warning."""
    server["info"] = server.get("info", {}) | {"connected_slaves": "1"}
    assert examined(**server)["replicas"].level is Level.OK


def test_a_finding_is_one_line():
    assert str(Finding(Level.WARNING, "timeout", "cut after 9 s", "set it to 0")) == "cut after 9 s; set it to 0"
    assert str(Finding(Level.OK, "timeout", "kept")) == "kept"


RELEASES = [
    ("Redis 8.2.9", True, ""),
    ("Redis 8.2.8", True, "install Redis 8.2.9"),
    ("Redis 8.2.8", False, ""),
    ("Redis 8.2.5", False, "install Redis 8.2.6"),
    ("Redis 8.4.0", False, "install Redis 8.4.3"),
    ("Redis 8.10.0", True, "install Redis 8.10.1"),
    ("Redis 8.12.0", True, ""),
    ("Redis 9.0.0", True, ""),
    ("Redis 7.0.15", False, "move to a newer line of Redis"),
    ("Redis 8.0.6", False, "move to a newer line of Redis"),
    ("Redis 7.2.10", False, "install Redis 7.2.14"),
    ("Valkey 8.1.3", False, "install Valkey 8.1.7"),
    ("Valkey 8.1.3", True, "install Valkey 8.1.9"),
    ("Valkey 9.1.0", False, ""),
    ("Valkey 9.1.0", True, "install Valkey 9.1.1"),
]


@pytest.mark.parametrize(("server", "tls", "advice"), RELEASES)
def test_a_release_with_known_holes(server, tls, advice):
    """The advice names the first release of the same line that has none, if there is one."""
    found = check_release(server, tls=tls)
    assert found.level is (Level.WARNING if advice else Level.OK)
    assert found.advice.startswith(advice)
    assert bool(found.advice) == bool(advice)


def test_a_release_says_which_holes_it_has():
    """Those of its time, and that nobody mends its line any more."""
    assert [hole.name in check_release("Redis 7.0.15", tls=False).text for hole in HOLES] == [True, False, False, False]
    assert "gets no fixes since July 2024" in check_release("Redis 7.0.15", tls=False).text


@pytest.mark.parametrize("hole", HOLES, ids=lambda hole: hole.name)
def test_the_first_releases_without_a_hole_are_one_a_line(hole):
    for releases in hole.fixed.values():
        lines = [release[:2] for release in releases]
        assert lines == sorted(set(lines))


@pytest.mark.parametrize(("theirs", "ahead"), [(99.5, -0.5), (100, 0), (103, 0), (105, 0), (107, 2), (None, 0)])
def test_clocks_are_compared(theirs, ahead):
    """Only a difference that cannot be the time of the call counts: it was sent at 100 and answered at 105."""
    said = {} if theirs is None else {"server_time_usec": str(int(theirs * 1_000_000))}
    assert _clock_ahead(said, 100, 105) == ahead
