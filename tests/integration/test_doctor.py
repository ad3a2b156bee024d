"""The doctor at real servers: as a command, and when a worker starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import redis

from streamq.config import Settings
from streamq.doctor import Level, aexamine, examine
from tests.workers import ROOT, Worker, until

APP = "tests.apps.basic:app"
# What serving needs, and no more.
RIGHTS = (
    *("on", ">secret", "~sq:*", "&sq:*", "-@all", "+info", "+ping", "+select", "+client", "+eval", "+evalsha"),
    *("+xreadgroup", "+xautoclaim", "+xgroup", "+xack", "+xadd", "+xclaim", "+xdel", "+xinfo", "+xpending", "+xrange"),
    *("+sadd", "+hdel", "+hexists", "+hget", "+hgetall", "+hmget", "+hset", "+del", "+exists", "+type", "+pexpire"),
    *("+get", "+set", "+hkeys", "+hlen", "+hvals", "+xlen"),
    *("+persist", "+pttl", "+hincrby", "+hstrlen", "+getrange", "+setrange", "+zremrangebyscore"),
    *("+lindex", "+llen", "+lpop", "+lrange", "+lrem", "+lset", "+rpush"),
    *("+zadd", "+zrangebyscore", "+zrem", "+zscore", "+zcard", "+zrange", "+publish", "+pubsub", "+subscribe", "+time"),
)


def run(*words, url=None, cwd=ROOT):
    """Run a command as a user does."""
    env = {**os.environ, "STREAMQ_URL": url} if url else None
    program = [sys.executable, "-m", "streamq", *words]
    return subprocess.run(program, cwd=cwd, env=env, capture_output=True, text=True, timeout=30, check=False)


def log_of_worker(url, *options):
    """Start a worker, stop it, and return what it said."""
    worker = Worker(APP, url, *options)
    assert worker.terminate() == 0
    log = worker.log
    worker.stop()
    return log


def by_check(findings):
    return {finding.check: finding for finding in findings}


@pytest.fixture
def own_server(private_server):
    """Give a client and the URL of a server that the test may change."""
    server = private_server()
    with redis.Redis(port=server.port, decode_responses=True) as client:
        yield client, f"redis://127.0.0.1:{server.port}/0"


def test_a_server_as_it_comes(any_server):
    """Of no server anything is unknown or refused; those without an append-only file get a warning."""
    found = by_check(examine(Settings(url=any_server)))
    assert not [one for one in found.values() if one.level in {Level.UNKNOWN, Level.REFUSED}]
    embedded = any_server.startswith("embedded://")
    assert found["persistence"].level is (Level.OK if embedded else Level.WARNING)
    assert embedded or "save 3600 1 300 100 60 10000" in found["persistence"].text
    settled = set(found) - {"persistence", "release"}
    assert {found[check].level for check in settled} == {Level.OK}
    assert {"commands", "eviction", "memory", "disk", "role", "replicas", "cluster", "timeout", "pubsub"} <= settled


def test_the_command_prints_a_line_for_each_finding(any_server):
    """A mark, what was looked at, what was found; the exit code is that of the worst."""
    done = run("doctor", any_server)
    head, *lines, summary = done.stdout.splitlines()
    assert head == any_server
    marks = [line.split()[0] for line in lines]
    assert set(marks) <= {"ok", "warning"}
    assert done.returncode == int("warning" in marks)
    assert "eviction     maxmemory-policy is noeviction" in done.stdout
    assert f"{marks.count('ok')} ok" in summary
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_the_command_for_programs(server_url):
    """The URL can come from where the other commands have it; what is printed is one JSON object."""
    done = run("doctor", "--json", url=server_url)
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["url"] == server_url
    assert found["worst"] == "ok"
    assert {"level": "ok", "check": "role", "text": "it is a primary", "advice": ""} in found["findings"]


def test_a_server_that_is_away():
    """It cannot be used; that is a finding like others, also for programs."""
    done = run("doctor", "redis://:secret@localhost:1")
    assert done.returncode == 2
    assert "refused  server" in done.stdout
    assert "secret" not in done.stdout + done.stderr
    assert json.loads(run("doctor", "redis://localhost:1", "--json").stdout)["worst"] == "refused"


def test_a_url_that_cannot_be_used():
    done = run("doctor", "http://localhost")
    assert done.returncode == 2
    assert done.stderr.startswith("streamq: cannot use the URL")


def test_a_server_that_evicts(own_server):
    """The command says that it cannot be used; a worker says so in one line and does not start."""
    client, url = own_server
    client.config_set("maxmemory-policy", "allkeys-lru")
    assert run("doctor", url).returncode == 2
    done = run("worker", APP, url=url)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("streamq: cannot use redis://127.0.0.1")
    assert "maxmemory-policy is allkeys-lru" in line
    assert client.keys() == []


async def test_a_server_in_a_bad_state(own_server):
    """Each is found out at a real server, by what it says of itself."""
    client, url = own_server
    client.config_set("appendfsync", "no")
    client.config_set("timeout", 300)
    client.config_set("client-output-buffer-limit", "pubsub 1mb 1mb 10")
    client.config_set("maxmemory", "1mb")
    found = by_check(await aexamine(Settings(url=url)))
    warned = {check for check, finding in found.items() if finding.level is Level.WARNING}
    assert warned == {"fsync", "timeout", "pubsub", "memory"}
    client.config_set("appendonly", "no")
    found = by_check(await aexamine(Settings(url=url)))
    assert found["persistence"].text == "nothing is written to disk: a restart loses every task"


def test_a_primary_and_its_replica(own_server, private_server):
    """Of the primary, it is said how to be safe from a failover; the replica cannot be used."""
    client, url = own_server
    replica = private_server("--replicaof", f"127.0.0.1 {client.info('server')['tcp_port']}")
    until(lambda: client.info("replication")["connected_slaves"])
    found = by_check(examine(Settings(url=url)))
    assert found["replicas"].level is Level.WARNING
    assert "durability='replica'" in found["replicas"].advice
    client.config_set("min-replicas-to-write", 1)
    assert by_check(examine(Settings(url=url)))["replicas"].level is Level.OK
    of_replica = f"redis://127.0.0.1:{replica.port}/0"
    assert by_check(examine(Settings(url=of_replica)))["role"].level is Level.REFUSED
    assert run("doctor", of_replica).returncode == 2
    worker = Worker(APP, of_replica, ready=False)
    try:  # there may be a failover under way
        worker.until_logged("Redis is away, waiting for it: it is a replica of 127.0.0.1")
        with redis.Redis(port=replica.port) as promoted:
            promoted.replicaof("NO", "ONE")
        worker.until_logged("is ready")
    finally:
        worker.stop()


@pytest.fixture
def user_with(connection):
    """Give a function that makes a user with these rights, and returns the URL for it."""

    def make(*rights):
        connection.client.execute_command("ACL", "SETUSER", "shop", "reset", *rights)
        where = connection.client.connection_pool.connection_kwargs
        path = where.get("path")
        return f"unix://shop:secret@{path}" if path else f"redis://shop:secret@{where['host']}:{where['port']}/0"

    yield make
    connection.client.execute_command("ACL", "DELUSER", "shop")


def test_a_user_who_may_not_see_the_settings(any_server, user_with):
    """What is not told is unknown and not fine; the exit code does not count it, and a worker starts."""
    url = user_with(*RIGHTS)
    found = by_check(examine(Settings(url=url)))
    unknown = {check for check, finding in found.items() if finding.level is Level.UNKNOWN}
    assert unknown - {"fsync"} == {"timeout", "pubsub"}
    assert "config|get" in found["timeout"].text
    assert found["commands"].level is Level.OK
    log = log_of_worker(url, "--log-level", "DEBUG")
    assert "DEBUG" in next(line for line in log.splitlines() if "timeout is not known" in line)


def test_the_rights_that_are_looked_at_are_enough(server_url, user_with, load_app_at):
    """With them and no others, tasks are enqueued and run, also later, and their results come back."""
    url = user_with(*RIGHTS)
    worker = Worker(APP, url)
    try:
        add = load_app_at("tests.apps.basic", url).add
        results = [add.delay(1, 2), add.using(countdown=0.1).delay(1, 2)]
        assert [result.get(timeout=10) for result in results] == [3, 3]
    finally:
        worker.stop()


def test_what_is_unknown_alone_is_no_failure(server_url, user_with):
    done = run("doctor", user_with(*RIGHTS))
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("all that it tells is fine: 3 unknown")
    assert "secret" not in done.stdout


@pytest.mark.parametrize(
    ("rights", "said"),
    [
        (["-xreadgroup"], "XREADGROUP GROUP workers"),
        (["-publish"], "PUBLISH sq:events:default:task:event"),
        (["resetchannels", "&sq:done:*"], "PUBLISH sq:events:default:task:event"),
        (["resetkeys", "~sq:{mail}:*"], "XREADGROUP GROUP workers"),
        (["-evalsha"], "may not run scripts"),
    ],
)
def test_a_user_who_may_not_do_enough(any_server, user_with, rights, said):
    """A right that is missing is told by example, before a worker fails in the middle of its work."""
    finding = by_check(examine(Settings(url=user_with(*RIGHTS, *rights))))["commands"]
    assert finding.level is Level.REFUSED
    assert said in f"{finding.text} {finding.advice}"


def test_a_worker_needs_rights_for_its_own_queues_only(server_url, user_with):
    """It starts with rights for the queue that it serves; for another it says in one line what it may not."""
    url = user_with(*RIGHTS, "resetkeys", "~sq:{mail}:*", "~sq:queues")
    assert by_check(examine(Settings(url=url), ["mail"]))["commands"].level is Level.OK
    assert "WARNING" not in log_of_worker(url, "--queues", "mail")
    done = run("worker", APP, url=url)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "this user may not do all that streamq does" in line


def test_who_keeps_events_needs_rights_for_the_log_of_workers(server_url, user_with):
    url = user_with(*RIGHTS, "resetkeys", "~sq:{mail}:*", "~sq:queues")
    finding = by_check(examine(Settings(url=url, durable_events=True), ["mail"]))["commands"]
    assert finding.level is Level.REFUSED
    assert "XADD sq:worker-events" in finding.text


def test_a_worker_logs_the_warnings(own_server):
    """Each is one line; the worker starts all the same."""
    client, url = own_server
    client.config_set("timeout", 300)
    [line] = [line for line in log_of_worker(url).splitlines() if "WARNING" in line]
    assert "the server: connections are cut after 300 s of silence" in line
