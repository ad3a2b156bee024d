"""Each call to Redis in the life of a flow fails, before or after it was carried out; workers are killed in its course.

Whatever happens: the flow has its value, each task has run and was committed once, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter

import pytest

from streamq import State, chain, chord, group, results
from streamq._redis.keys import GROUP, Keys
from streamq.broker import flows as broker
from streamq.worker import child, promoter
from tests import proxy as proxies
from tests.apps.flows import OTHER
from tests.chaos import instrument
from tests.proxy import Fault, Proxy
from tests.serving import job, serving, until
from tests.workers import ROOT, Worker
from tests.workers import until as until_in_time

APP = "tests.apps.flows:app"
KEYS = Keys("sq")
BOTH = ("default", OTHER)
SERVES_BOTH = ("-Q", ",".join(BOTH))
OUTBOXES = [KEYS.queue(name).outbox for name in BOTH]
# What workers call all the time, whether there are flows or not; how that may fail is tested elsewhere.
ALWAYS = {"XREADGROUP", "PUBSUB NUMSUB", "due", "XAUTOCLAIM", "renew", "INFO", "CONFIG GET", "SUBSCRIBE", "PING"}
ALWAYS |= {"CLIENT ID", "CLIENT SETNAME", "CLIENT SETINFO", "CLIENT UNBLOCK", "create_group", "forbidden", "retire"}
ALWAYS |= {"read_schedules", "due_schedules", "XINFO CONSUMERS", "watch", "look", "register_queues"}


def far(task):
    return task.using(queue=OTHER)


def over_two_queues(m):
    """A chain that goes back and forth; a home, and an end, on either side."""
    return chain(m.add.s(1, 2), far(m.add).s(3), m.add.s(4), far(m.add).s(5)), 15, 5


def with_a_body(m):
    """A chord whose members are on both queues, and so large that its body has to get the values."""
    members = [m.large.s(7_000), far(m.large).s(7_001), m.large.s(7_002)]
    return chord(members, far(m.measure).s()) | m.give.s(), [3, 21_003], 6


def nested(m):
    """A chain of groups of chains; one member is a dead letter, one is retried."""
    inner = chord([m.add.s(1, 1), far(m.third_time).s(2)], m.total.s())
    members = [inner, far(m.add).s(1, 1) | m.add.s(1), far(m.reject).s(), m.add.s(0, 5)]
    return group(members, on_error="continue") | far(m.total).s() | group(m.add.s(1), m.add.s(2)) | m.total.s(), 27, 11


def of_many(m):
    """A chord of so many that its graph is written in parts, and that it takes several steps to begin and to end."""
    first = m.add.s(0, 1) | group(m.add.si(n, 0) for n in range(40)) | m.total.s()
    return first | chord([far(m.add).si(n, 0) for n in range(210)], m.total.s()), 105 * 209, 254


def replaced(m):
    """Tasks that have a flow run in their place, one on each queue; the second one adds to its group."""
    members = [m.swap.s(1), far(m.grow).s(2)]
    return group(members) | m.total.s(), 6 + 2 + 20 + 21, 8


LIVES = (over_two_queues, with_a_body, nested, of_many, replaced)
MOST = {of_many: 1, nested: 3, replaced: 3}  # of the calls of one name that are struck; by default all
# What each calls, whatever comes first.
NAMES = {
    over_two_queues: {"flow_start", "finish_flow", "flow_step", "enqueue", "flow_ended", "flow_told", "flow_let"},
    with_a_body: {"flow_start", "finish_flow", "flow_step", "enqueue", "HMGET", "flow_values", "flow_told", "flow_let"},
    nested: {"flow_start", "finish_flow", "flow_ended", "flow_told", "flow_let", "park", "promote", "bury"},
    replaced: {"flow_start", "become", "finish_flow", "flow_ended", "flow_told", "flow_let", "HMGET", "flow_values"},
    of_many: {"flow_add", "flow_start", "finish_flow", "flow_step", "enqueue", "flow_ended", "flow_told", "flow_let"},
}


@pytest.fixture
def quick(monkeypatch):
    """Have those look more often who wait for what may have got lost; and count ends where they are written."""
    monkeypatch.setattr(child, "_BLOCK_SECONDS", 0.2)
    monkeypatch.setattr(promoter, "_LONGEST_SECONDS", 0.05)
    monkeypatch.setattr(broker, "_OLD_MS", 60)
    monkeypatch.setattr(results, "_LOOK_AGAIN_SECONDS", 0.1)
    for module, variables in instrument.OF_FLOWS.items():
        for variable in variables:
            script = instrument.counting(getattr(module, variable))
            monkeypatch.setattr(module, variable, script)
            monkeypatch.setitem(proxies.SCRIPTS, script.digest.encode(), script.name)


class Stage:
    """Flows, one after the other, of which a caller and a worker, both behind a proxy, see to."""

    def __init__(self, module, proxy, connection):
        self.module = module
        self.proxy = proxy
        self.run = connection.client.execute_command

    async def play(self, life):
        """Play the life of one flow to its end, and check what came of it."""
        canvas, value, ends = life(self.module)
        self.module.runs.clear()
        self.run("DEL", instrument.COMMITS)
        async with asyncio.timeout(10):
            result = await canvas.adelay()
            assert await result.aget() == value
            record = KEYS.queue(result.queue).record(result.id)
            await until(lambda: self.run("HGET", record, "left") == b"0" and self.run("PTTL", record) > 0)
            await until(lambda: not self.run("EXISTS", *OUTBOXES))
            await until(lambda: not self.waiting())
        assert set(self.module.runs.values()) <= {1, 3}, "none ran twice, but for the one that is to run three times"
        words = self.run("HGETALL", instrument.COMMITS)
        assert len(words) == 2 * ends
        assert set(words[1::2]) == {b"1"}, "each task, and the flow, has ended once"
        assert result.id.encode() in words

    def waiting(self):
        streams = [stream for name in BOTH for stream in KEYS.queue(name).all_streams if self.run("EXISTS", stream)]
        return sum(self.run("XLEN", one) + self.run("XPENDING", one, GROUP)[0] for one in streams)


@pytest.fixture
def proxy(quick, server_url, connection):
    """Give a proxy of the server, which has all scripts: else the first call of each would be two."""
    with Proxy(server_url) as proxy:
        yield proxy


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
@pytest.mark.parametrize("life", LIVES)
async def test_each_call_fails(proxy, load_app_at, connection, life, fault):
    """The connection is reset before the call has arrived, or its reply is lost; all of them in turn."""
    module = load_app_at("tests.apps.flows", proxy.url)
    stage = Stage(module, proxy, connection)
    worker = job(proxy.url, module, queues=BOTH, concurrency=4, lease=5.0)
    struck = Counter()
    async with asyncio.timeout(110), serving(worker):
        await stage.play(life)
        before = len(proxy.passed)
        await stage.play(life)
        made = Counter(name for name in proxy.names[before:] if name not in ALWAYS)
        assert set(made) >= NAMES[life]
        for name, count in sorted(made.items()):
            for nth in range(1, min(count, MOST.get(life, count)) + 1):
                strike = proxy.strike(name, fault, nth=nth)
                try:
                    await stage.play(life)
                except Exception as error:
                    raise AssertionError(f"{name}#{nth} {fault}: {error!r}") from error
                strike.nth = 0  # if there were fewer calls this time
                struck[name] += strike.struck
        await module.app.aclose()
    assert all(struck[name] for name in NAMES[life]), f"{struck} of {made}"
    stage.run("DEL", instrument.COMMITS)


def test_each_script_of_flows_is_struck():
    """A script of those that workers need, and that no life calls, is not tested."""
    of_flows = {name for name in proxies.SCRIPTS.values() if name.startswith(("flow_", "finish_flow", "become"))}
    of_callers = {"flow_watch", "flow_tasks", "flow_again", "flow_retry"}
    assert of_flows - of_callers <= set().union(*NAMES.values())


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
async def test_each_call_of_a_cancellation_fails(proxy, load_app_at, connection, fault):
    """All tasks of the flow are cancelled all the same, wherever they are, and nothing follows."""
    module = load_app_at("tests.apps.flows", proxy.url)
    run = connection.client.execute_command
    worker = job(proxy.url, module, queues=BOTH, lease=5.0)
    made = {"": 1}
    async with asyncio.timeout(60), serving(worker):
        while made:
            name, nth = made.popitem()
            strike = proxy.strike(name, fault, nth=nth)
            members = [module.add.using(queue=queue, countdown=600).s(1, 1) for queue in BOTH * 2]
            result = await (group(members) | module.total.s()).adelay()
            states = KEYS.queue(result.queue).flow(result.id)[1]
            before = len(proxy.passed)
            await result.acancel()
            await until(lambda key=states: run("GET", key).count(b"c") == 4 and run("PTTL", key) > 0)
            await until(lambda: not run("EXISTS", *OUTBOXES))
            assert await result.astatus() is State.CANCELLED, f"{name}#{nth}"
            strike.nth = 0
            if not name:
                made = dict(Counter(one for one in proxy.names[before:] if one not in ALWAYS))
                assert made.keys() >= {"cancel", "flow_step", "flow_told", "flow_ended", "flow_let"}
            elif nth > 1:
                made[name] = min(nth - 1, 3)
        await module.app.aclose()
    assert not module.runs
    run("DEL", instrument.COMMITS)


# ---- workers that are killed


@pytest.fixture
def way(server_url):
    """Give a proxy for a worker that is to be killed."""
    with Proxy(server_url) as proxy:
        yield proxy


def carried_on(start_worker, way, result, call, lease):
    """Have a worker be killed while a call of its is under way; returns the value, and how long another needs."""
    strike = way.strike(call, Fault.HOLE)
    doomed = Worker(APP, way.url, *SERVES_BOTH, "--lease", str(lease))
    until_in_time(lambda: strike.struck)
    doomed.kill()
    doomed.stop()
    start_worker(APP, *SERVES_BOTH, "--lease", str(lease))
    ready = time.monotonic()
    return result.get(timeout=20), time.monotonic() - ready


def test_a_worker_is_killed_before_its_commit(flows, start_worker, way, tmp_path, rest):
    """Its task runs again after the lease, and the flow goes on as if nothing had happened."""
    result = (flows.note.s(1, tmp_path / "ran") | flows.note.s(tmp_path / "told") | flows.add.s(1)).delay()
    value, seconds = carried_on(start_worker, way, result, "finish_flow", 1.0)
    assert value == 2
    assert seconds < 1.0 + 2
    assert (tmp_path / "ran").read_text() == "1\n1\n", "it had run, and was not committed"
    assert (tmp_path / "told").read_text() == "1\n"
    rest()


@pytest.mark.parametrize(
    ("call", "there"),
    [
        ("flow_step", "flow:"),  # what is to be sent is noted, and no more
        ("enqueue", "flow:"),
        ("flow_ended", "end:"),  # the end of a task on another queue is noted
        ("flow_told", "end:"),
        ("flow_let", "end:"),
    ],
)
def test_a_worker_is_killed_after_its_commit(flows, start_worker, way, connection, rest, call, there):
    """What its commit has left to do is in the outbox; another worker sees to it soon, whatever the lease."""
    result = (flows.add.s(1, 1) | far(flows.add).s(1) | flows.add.s(1)).delay()
    value, seconds = carried_on(start_worker, way, result, call, 30)
    assert value == 4
    assert seconds < 3
    rest()


def test_a_caller_is_killed_while_its_flow_begins(flows, start_worker, connection, server_url, way, rest):
    """What has not begun goes by itself; what has is carried on by workers."""
    code = (
        "from tests.apps.flows import *\n"
        "from streamq import chord\n"
        "chord([add.using(queue=OTHER).s(n, 0) for n in range(300)], total.s()).set(task_id='f').delay()"
    )
    for call, begins in (("flow_start", False), ("flow_step", True), ("enqueue", True)):
        strike = way.strike(call, Fault.HOLE)
        caller = subprocess.Popen(
            [sys.executable, "-c", code], env={**os.environ, "STREAMQ_URL": way.url, "PYTHONPATH": str(ROOT)}
        )
        until_in_time(lambda strike=strike: strike.struck)
        caller.kill()
        caller.wait()
        run = connection.client.execute_command
        keys = KEYS.queue(OTHER).flow("f")
        assert bool(run("EXISTS", keys[0])) is begins
        assert all(run("PTTL", key) > 0 for key in keys if run("EXISTS", key)) is not begins
        if begins:
            worker = start_worker(APP, *SERVES_BOTH)
            assert flows.app.result("f", queue=OTHER).get(timeout=10) == 299 * 150
            rest()
            worker.terminate()
            run("FLUSHALL")
