"""Flows of every shape, run by worker processes; how they end, and that nothing is left of them."""

from __future__ import annotations

import time

import pytest

from streamq import Flow, State, TaskCancelled, TaskFailed, chain, chord, group
from streamq._redis.connections import AsyncConnection
from streamq._redis.keys import Keys
from streamq.broker.courier import Courier
from tests.apps.flows import OTHER
from tests.workers import until

APP = "tests.apps.flows:app"
KEYS = Keys("sq")
QUEUES = ("default", OTHER)


SHAPES = {
    "chain": (lambda m: m.add.s(1, 2) | m.add.s(3) | m.add.s(4), 10),
    "chain of one": (lambda m: chain(m.add.s(1, 2)), 3),
    "group": (lambda m: group(m.add.s(n, n) for n in range(5)) | m.give.s(), [0, 2, 4, 6, 8]),
    "chord": (lambda m: chord([m.add.s(n, n) for n in range(5)], m.total.s()), 20),
    "single group": (lambda m: group(m.add.s(1, 2)) | m.give.s(), [3]),
    "empty group": (lambda m: group([]) | m.give.s(), []),
    "empty group within": (lambda m: group(m.add.s(1, 2), group([])) | m.give.s(), [3, []]),
    "chain of groups": (
        lambda m: (
            m.add.s(1, 2) | group(m.add.s(1), m.add.s(2)) | m.total.s() | group(m.add.s(0), m.add.s(1)) | m.give.s()
        ),
        [9, 10],
    ),
    "group of chains": (lambda m: group(m.add.s(n, 1) | m.add.s(10) for n in range(3)) | m.give.s(), [11, 12, 13]),
    "chord in a chord": (
        lambda m: chord([chord([m.add.s(n, k) for k in (1, 2)], m.total.s()) for n in range(3)], m.total.s()),
        15,
    ),
    "group of groups": (
        lambda m: group(group(m.add.s(n, k) for k in (0, 1)) for n in (0, 10)) | m.give.s(),
        [[0, 1], [10, 11]],
    ),
    "group | group": (
        lambda m: group(m.add.s(1, 1), m.add.s(2, 2)) | group(m.total.s(), m.give.s()) | m.give.s(),
        [6, [2, 4]],
    ),
    "task | group": (lambda m: m.add.s(1, 2) | group(m.add.s(n) for n in range(3)) | m.give.s(), [3, 4, 5]),
    "immutable": (lambda m: m.add.s(1, 2) | m.add.si(10, 20) | group(m.add.si(0, 1), m.add.s(1)) | m.give.s(), [1, 31]),
    "partial": (lambda m: m.add.s(1, 2) | m.add.s(y=5), 8),
    "generator": (lambda m: chord((m.add.s(n, 0) for n in range(500)), m.total.s()), 499 * 250),
    "two queues": (
        lambda m: (
            chord([m.add.using(queue=QUEUES[n % 2]).s(n, n) for n in range(20)], m.total.using(queue=OTHER).s())
            | m.add.s(1)
            | m.add.using(queue=OTHER).s(1)
        ),
        382,
    ),
    "threads": (lambda m: m.give_in_thread.s(1) | group(m.give_in_thread.s(), m.add.s(1)) | m.give.s(), [1, 2]),
}


def test_shapes(any_server, flows, worker_of_both, rest):
    """Each has its value, with the order of lists kept."""
    results = {shape: make(flows).delay() for shape, (make, _) in SHAPES.items()}
    values = {shape: result.get(timeout=20) for shape, result in results.items()}
    assert values == {shape: value for shape, (_, value) in SHAPES.items()}
    rest()


@pytest.fixture
def worker_of_both(start_worker):
    """Run one worker that serves both queues."""
    return start_worker(APP, "-Q", f"default,{OTHER}", "--lease", "2")


def diamond(m):
    flow = Flow()
    first = flow.add(m.add.s(1, 1))
    left = flow.add(m.add.using(queue=OTHER).s(10), after=[first])
    right = flow.add(m.add.s(20), after=[first])
    flow.add(m.add.s(), after=[left, right])
    return flow


def several_sinks(m):
    flow = Flow()
    first = flow.add(m.add.s(1, 1))
    for n in range(3):
        flow.add(m.add.using(queue=QUEUES[n % 2]).s(n), after=[first])
    flow.add(m.add.s(0, 0))
    return flow | m.give.s()


def group_as_a_part(m):
    flow = Flow()
    numbers = flow.add(group(m.add.s(n, 0) for n in range(4)))
    sums = flow.add(m.total.s() | m.add.s(1), after=[numbers])
    flow.add(m.give.s(), after=[sums])
    return flow


GRAPHS = {diamond: 34, several_sinks: [2, 3, 4, 0], group_as_a_part: 7}


def test_graphs(any_server, flows, worker_of_both, rest):
    """A part has the values of those before it, in their order; several sinks make a list."""
    results = {graph: graph(flows).delay() for graph in GRAPHS}
    assert {graph: result.get(timeout=20) for graph, result in results.items()} == GRAPHS
    rest()


# ---- options of members


def test_members_have_options(any_server, flows, worker_of_both, rest):
    """Delays, priorities, orders and shares hold for members as for other tasks; those that follow are released too."""
    begun = time.monotonic()
    many = group(
        flows.add.using(countdown=0.2).s(1),
        flows.add.using(priority=9).s(2),
        flows.add.using(ordering_key="a").s(3),
        flows.add.using(ordering_key="a").s(4),
        flows.add.using(fairness_key="b").s(5),
        flows.add.using(queue=OTHER, priority=1, countdown=0.1).s(6),
        flows.add.using(queue=OTHER, ordering_key="a").s(7),
        flows.add.using(queue=OTHER, ordering_key="a").s(8),
    )
    assert (flows.add.s(0, 0) | many | flows.give.s()).delay().get(timeout=10) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert time.monotonic() - begun > 0.2
    rest()


def test_priorities_of_members_hold(flows, start_worker, rest, tmp_path):
    """Of those that are released together the most urgent run first."""
    file = tmp_path / "order"
    many = group(flows.note.using(priority=n).si(n, file) for n in (1, 5, 9))
    result = (many | flows.give.s()).delay()
    start_worker(APP, "--concurrency", "1")
    assert result.get(timeout=10) == [1, 5, 9]
    assert sorted(file.read_text().split(), reverse=True) == ["9", "5", "1"]
    rest()


def test_two_workers_serve_a_flow_over_two_queues(any_server, flows, start_worker, rest):
    """Each serves one queue; a chain goes back and forth between them."""
    for name in QUEUES:
        start_worker(APP, "-Q", name)
    steps = [flows.add.using(queue=QUEUES[n % 2]).s(1) for n in range(11)]
    assert chain(flows.add.s(0, 0), *steps).delay().get(timeout=20) == 11
    many = chord([flows.add.using(queue=QUEUES[n % 2]).s(n, 0) for n in range(150)], flows.total.using(queue=OTHER).s())
    assert many.delay().get(timeout=20) == 149 * 75
    rest()


# ---- large ones


def test_a_body_gets_large_values(any_server, flows, worker_of_both, rest):
    """They are more than fits in its message, and than is read at once; it may be on either queue."""
    for size, queue in ((20 * 1024, "default"), (300 * 1024, "default"), (20 * 1024, OTHER)):
        members = [flows.large.using(queue=QUEUES[n % 2]).s(size) for n in range(5)]
        assert chord(members, flows.measure.using(queue=queue).s()).delay().get(timeout=10) == [5, 5 * size]
    rest()


def test_a_large_chord(any_server, flows, worker_of_both, rest):
    assert chord((flows.add.s(n, 0) for n in range(2000)), flows.total.s()).delay().get(timeout=60) == 1999 * 1000
    rest()


def test_a_task_is_followed_by_many(any_server, flows, worker_of_both, rest):
    """They are too many to begin in the step that commits what is before them."""
    many = flows.add.s(0, 1) | group(flows.add.s(n) for n in range(500)) | flows.total.s()
    assert many.delay().get(timeout=60) == 499 * 250 + 500
    rest()


def test_results_that_are_kept_shortly_are_there_for_what_follows(flows, start_worker, monkeypatch, tmp_path, rest):
    """As long as a flow goes on it needs the values of its members, whatever is said of results."""
    monkeypatch.setenv("RESULT_TTL", "0.2")
    start_worker(APP, "-Q", f"default,{OTHER}")
    started, ready = tmp_path / "started", tmp_path / "ready"
    members = [flows.add.s(1, 1), flows.add.using(queue=OTHER).s(2, 2), flows.until_file.s(3, started, ready)]
    result = (group(members) | flows.note.s(tmp_path / "told")).delay()
    until(started.exists)
    results = KEYS.queue("default").flow(result.id)[4]
    run = flows.app.broker.sync.client.execute_command
    until(lambda: run("HLEN", results) == 2 and not run("EXISTS", KEYS.queue("default").record(f"{result.id}.2")))
    ready.touch()
    until((tmp_path / "told").exists)
    until(lambda: (tmp_path / "told").read_text() == "[2, 4, 3]\n")
    rest()


# ---- what fails


def test_a_failure_fails_what_needs_it(any_server, flows, worker_of_both, rest, tmp_path):
    """At once; other tasks go on."""
    started, ready = tmp_path / "started", tmp_path / "ready"
    result = (group(flows.until_file.si(1, started, ready), flows.fail.s("no milk")) | flows.total.s()).delay()
    with pytest.raises(ValueError, match="no milk") as caught:
        result.get(timeout=10)
    until(started.exists)
    assert result.status() is State.FAILED
    assert [task.rpartition(".")[2] for task in caught.value.__cause__.path] == ["fail", "group", "total"]
    ready.touch()
    rest()


def test_a_group_may_collect_failures(any_server, flows, worker_of_both, rest):
    """They are in the list where the values would be."""
    members = [flows.add.s(1, 1), flows.fail.using(queue=OTHER).s("no milk"), flows.add.s(2, 2)]
    two, failure, four = (group(members, on_error="collect") | flows.give.s()).delay().get(timeout=10)
    assert (two, four) == (2, 4)
    assert (failure["type"], failure["message"]) == ("ValueError", "no milk")
    assert failure["task"] == flows.fail.name
    rest()


def test_a_group_may_continue_without_failures(any_server, flows, worker_of_both, rest):
    members = [flows.fail.s(), flows.add.s(1, 1), flows.fail.s() | flows.add.s(1), flows.add.s(2, 2)]
    assert (group(members, on_error="continue") | flows.give.s()).delay().get(timeout=10) == [2, 4]
    assert (group([flows.fail.s()], on_error="continue") | flows.give.s()).delay().get(timeout=10) == []
    rest()


@pytest.mark.parametrize("fails", [False, True])
def test_callbacks_run_once(any_server, flows, worker_of_both, rest, tmp_path, fails):
    """Those for what has happened, and only those; nothing waits for them."""
    file = tmp_path / "told"
    first = flows.fail.s("no milk") if fails else flows.add.s(1, 1)
    many = (first | flows.add.s(1)).on_success(flows.note.s(file)).on_error(flows.describe.s() | flows.note.s(file))
    result = (group(many.on_error(flows.note.si("another", file)), on_error="collect") | flows.give.s()).delay()
    [value] = result.get(timeout=10)
    rest()
    told = ["ValueError: no milk", "another"] if fails else ["3"]
    assert sorted(file.read_text().splitlines()) == sorted(told)
    assert fails or value == 3


def test_retries_within_a_flow(any_server, flows, worker_of_both, rest):
    """What follows waits for the last attempt."""
    members = [flows.third_time.s(1), flows.third_time.using(queue=OTHER).s(2)]
    assert (group(members) | flows.total.s() | flows.third_time.s()).delay().get(timeout=10) == 3
    rest()


def test_a_dead_letter_fails_its_flow(any_server, flows, worker_of_both, rest):
    results = []
    for queue in QUEUES:
        reject = flows.reject.using(queue=queue).s()
        results += [(reject | flows.give.s()).delay(), (group(flows.add.s(1, 1), reject) | flows.give.s()).delay()]
    for result in results:
        with pytest.raises(TaskFailed, match="no such customer"):
            result.get(timeout=10)
    rest()


def test_a_member_that_expires_fails_its_flow(any_server, flows, start_worker, rest):
    members = [flows.add.using(queue=queue, expires=0.001).s(1, 1) for queue in QUEUES]
    results = [(group(flows.add.s(0, 0), member) | flows.total.s()).delay() for member in members]
    start_worker(APP, "-Q", f"default,{OTHER}")
    for result in results:
        with pytest.raises(TaskFailed, match="TaskExpired"):
            result.get(timeout=10)
    rest()


def test_a_member_that_is_cancelled_fails_its_flow(any_server, flows, worker_of_both, rest):
    for queue in QUEUES:
        member = flows.add.using(queue=queue, countdown=600).s(1, 1)
        result = (group(flows.add.s(0, 0), member) | flows.total.s()).delay()
        assert flows.app.result(f"{result.id}.3", queue=queue).cancel()
        with pytest.raises(TaskFailed, match="cancelled"):
            result.get(timeout=10)
    rest()


async def test_all_that_is_in_an_outbox_is_seen_to_at_once(server_url, connection):
    """However much it is, as when many members were cancelled."""
    outbox = KEYS.queue("default").outbox
    connection.client.execute_command("ZADD", outbox, *(word for n in range(250) for word in (n, f"end:f.{n}")))
    connection.client.execute_command("ZADD", outbox, 0, "new:f")
    there = AsyncConnection(server_url)
    await Courier(there, KEYS, 60_000).sweep("default")
    await there.close()
    assert connection.client.execute_command("ZRANGE", outbox, 0, -1) == [b"new:f"], "what a newer version put there"
    connection.client.execute_command("DEL", outbox)


def test_members_are_moved_to_another_queue(any_server, flows, start_worker, rest):
    """Their flow is told from there."""
    result = (group(flows.add.using(queue=OTHER, countdown=n).s(n, 1) for n in (0, 1)) | flows.total.s()).delay()
    assert flows.app.queues.move(OTHER, "third").moved == 2
    start_worker(APP, "-Q", f"third,default,{OTHER}")
    assert result.get(timeout=10) == 3
    rest()


def test_a_dead_letter_that_is_redriven_changes_nothing(any_server, flows, worker_of_both, rest, tmp_path):
    """Its flow has failed already; the task runs all the same."""
    file = tmp_path / "told"
    results = [(flows.reject.using(queue=queue).s() | flows.note.s(file)).delay() for queue in QUEUES]
    for result in results:
        with pytest.raises(TaskFailed, match="no such customer"):
            result.get(timeout=10)
    rest()
    members = [flows.app.result(f"{one.id}.1", queue=queue) for one, queue in zip(results, QUEUES, strict=True)]
    ended = [member.record().ended_ms or 0 for member in members]
    flows.app.dead_letters.redrive()
    until(lambda: all((one.record().ended_ms or 0) > before for one, before in zip(members, ended, strict=True)))
    rest()
    assert [result.status() for result in results] == [State.FAILED] * 2
    assert not file.exists()


def test_a_flow_is_cancelled_with_its_tasks(any_server, flows, worker_of_both, rest, tmp_path):
    """Those that run, those that wait for their time, and those that have not begun."""
    started, ready = tmp_path / "started", tmp_path / "ready"
    members = [
        flows.until_file.s(1, started, ready),
        flows.until_file.using(queue=OTHER).s(2, started, ready),
        flows.add.using(countdown=600).s(0, 0),
        flows.add.using(countdown=600, queue=OTHER).s(0, 0),
    ]
    result = (group(members) | flows.note.s(tmp_path / "told")).delay()
    until(lambda: started.exists() and len(started.read_text().split()) == 2)
    assert result.cancel()
    with pytest.raises(TaskCancelled):
        result.get(timeout=1)
    rest()
    ready.touch()
    assert not (tmp_path / "told").exists()
    run = flows.app.broker.sync.client.execute_command
    until(lambda: run("GET", KEYS.queue("default").flow(result.id)[1]).count(b"c") == 4)


def test_callbacks_can_be_said_as_celery_does(server_url, flows, worker_of_both, rest, tmp_path):
    """``link`` and ``link_error`` change the signature itself; ``apply_async`` takes them too, one or several."""
    heard, alarm = tmp_path / "heard", tmp_path / "alarm"
    call = flows.add.s(1, 2)
    assert call.link(flows.note.s(heard)) is not call
    call.link_error(flows.note.s(alarm))
    assert call.delay().get(timeout=10) == 3
    until(heard.exists)
    result = flows.fail.apply_async(("no milk",), link=flows.note.s(heard), link_error=[flows.note.s(alarm)])
    with pytest.raises(ValueError, match="no milk"):
        result.get(timeout=10)
    until(alarm.exists)
    rest()
    assert len(heard.read_text().splitlines()) == len(alarm.read_text().splitlines()) == 1


def test_a_worker_that_ends_leaves_nothing_of_flows_undone(server_url, flows, start_worker, connection, tmp_path):
    """What the last commits lead to on other queues is done before it goes."""
    started, ready = tmp_path / "started", tmp_path / "ready"
    worker = start_worker(APP)
    result = (flows.until_file.si(1, started, ready) | flows.add.using(queue=OTHER).s(2)).delay()
    until(started.exists)
    worker.process.terminate()
    worker.until_logged("stopping")
    ready.touch()
    assert worker.process.wait(timeout=20) == 0
    assert connection.client.execute_command("XLEN", KEYS.queue(OTHER).ready) == 1
    assert result.cancel()
