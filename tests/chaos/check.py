"""Looks at a server, not through streamq but at the keys, and says what became of each task and what is left."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import redis

from tests.chaos import instrument
from tests.chaos.ledger import Line

QUEUE = "sq:{default}"
QUEUES = (QUEUE, "sq:{other}")  # only flows have tasks on the second
STREAMS = (f"{QUEUE}:stream:returned", f"{QUEUE}:stream:5")  # those that the tasks of the campaign go through
_EVERY_STREAM = [f"{queue}:stream:{name}" for queue in QUEUES for name in ("returned", *range(10))]
_OUTBOXES = [f"{queue}:outbox" for queue in QUEUES]
_FLOWS = [f"{queue}:flows" for queue in QUEUES]
GROUP = "workers"
_RECORD = f"{QUEUE}:task:"
_TIMETABLE = {f"{QUEUE}:schedule", *(f"{QUEUE}:schedules{part}" for part in ("", ":fired", ":declared"))}
_DOCUMENTED = {"sq:queues", *_EVERY_STREAM, f"{QUEUE}:dead", *_TIMETABLE, instrument.COMMITS, instrument.REFUSED}
_LOOK_SECONDS = 0.1
_CLOSING_SECONDS = 5.0  # until a server has noticed that a client is gone


class Fault(NamedTuple):
    """A fault that ended runs: what it was, when it came, and the processes it hit."""

    kind: str
    at: float
    pids: frozenset[int]


def records(client: redis.Redis, ids: Iterable[str]) -> dict[str, dict[str, str]]:
    """Read the records of tasks, those that are there."""
    every, found = list(ids), {}
    for start in range(0, len(every), 500):
        some = every[start : start + 500]
        pipeline = client.pipeline(transaction=False)
        for task_id in some:
            pipeline.hgetall(_RECORD + task_id)
        found |= {task_id: record for task_id, record in zip(some, pipeline.execute(), strict=True) if record}
    return found


def until_ended(client: redis.Redis, ids: Sequence[str], seconds: float) -> set[str]:
    """Wait until all tasks have ended; returns those that have not in that time."""
    waiting, deadline = set(ids), time.monotonic() + seconds
    while True:
        found = records(client, waiting)
        waiting -= {task_id for task_id, record in found.items() if "ended" in record}
        if not waiting or time.monotonic() > deadline:
            return waiting
        time.sleep(_LOOK_SECONDS)


def until_rest(client: redis.Redis, seconds: float) -> None:
    """Wait until nothing is in a stream and nothing is pending, but not for ever: `left` tells what is."""
    deadline = time.monotonic() + seconds
    while _busy(client) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)


def _busy(client: redis.Redis) -> list[str]:
    found = []
    for stream in _EVERY_STREAM:
        if length := client.xlen(stream):
            found.append(f"{stream} has {length} entries")
        if client.exists(stream) and (pending := client.xpending(stream, GROUP)["pending"]):
            found.append(f"{stream} has {pending} pending entries")
    return found + [f"{key} has {client.zrange(key, 0, -1)}" for key in _OUTBOXES if client.exists(key)]


def left(client: redis.Redis, lost: Collection[str], *, consumers: int, letters: int = 0) -> list[str]:
    """List what is on the server when all is over, and should not be.

    Args:
        client: of the server.
        lost: tasks that are known to be lost; what is left of them is not told again.
        consumers: so many names of dead workers may still be there; the next worker removes them after a while.
        letters: so many dead letters are expected.
    """
    found = _busy(client)
    for key in client.scan_iter("*", count=1000):
        if ":task:" in key:
            if client.pttl(key) < 0 and key.removeprefix(_RECORD) not in lost:
                found.append(f"the record {key} has no time to live: {client.hgetall(key)}")
        elif key not in _DOCUMENTED:
            found += _left_of_flows(client, key)
    if (count := client.xlen(f"{QUEUE}:dead")) != letters:
        found.append(f"{count} dead letters, and not {letters}")
    for stream in _EVERY_STREAM:
        names = [one["name"] for one in client.xinfo_consumers(stream, GROUP)] if client.exists(stream) else []
        if len(names) > consumers:
            found.append(f"{len(names)} consumers of {stream}, and at most {consumers} can be dead workers': {names}")
    return found


def _left_of_flows(client: redis.Redis, key: str) -> list[str]:
    """Say what is wrong with a key that is no task's: those of flows have a time to live."""
    if key in _FLOWS:
        return [f"{key} keeps {one} for ever" for one in client.zrangebyscore(key, "+inf", "+inf")]
    return [] if ":flow:" in key and client.pttl(key) > 0 else [f"the key {key}"]


def connections(client: redis.Redis) -> list[str]:
    """List the connections of streamq's that the server has, and still has some seconds later."""
    deadline = time.monotonic() + _CLOSING_SECONDS
    while found := [
        f"a connection, {one['age']} s old, that last sent {one['cmd']}"
        for one in client.client_list()
        if one["name"] == "streamq"
    ]:
        if time.monotonic() > deadline:
            break
        time.sleep(_LOOK_SECONDS)
    return found


def counts(client: redis.Redis, key: str) -> dict[str, int]:
    """Read what a script has counted: by task."""
    return {task_id: int(count) for task_id, count in client.hgetall(key).items()}


def stale(found: dict[str, dict[str, str]]) -> list[str]:
    """Find tasks whose result is not of the last run: each returns the fence under which it ran. Flows have none."""
    return [
        task_id
        for task_id, record in found.items()
        if record.get("state") == "succeeded" and "out" not in record and record["result"] != record.get("fence", "0")
    ]


def recoveries(lines: Sequence[Line], faults: Sequence[Fault]) -> list[float]:
    """Measure, of each run that a fault ended, the seconds from that fault to the next run of the same attempt."""
    begun: defaultdict[tuple[str, int], list[Line]] = defaultdict(list)
    for line in lines:
        if line.what == "begun":
            begun[line.id, line.attempt].append(line)
    found = []
    for runs in begun.values():
        for run, following in pairwise(sorted(runs, key=lambda line: line.at)):
            hits = [one.at for one in faults if run.at <= one.at <= following.at and run.pid in one.pids]
            if hits:
                found.append(following.at - min(hits))
    return found
