"""Workers die, stall, stop and lose their server: nothing is lost, and nothing is committed twice."""

from __future__ import annotations

import os
import signal
import time

import pytest

from streamq import State, TaskFailed
from tests.proxy import Fault, Proxy
from tests.workers import Worker, starts, until

APP = "tests.apps.basic:app"
LEASE = 1.0


@pytest.mark.parametrize("name", ["until_file", "until_file_in_thread"])
def test_kill_of_a_child(any_server, basic, start_worker, marked, name):
    """When a child is killed, its supervisor hands its tasks back at once: they start again long before the lease."""
    marker, ready = marked
    worker = start_worker(APP, "--lease", "30")
    results = [getattr(basic, name).delay(marker, ready) for _ in range(5)]
    until(lambda: len(starts(marker)) == 5)
    [child] = worker.children
    os.kill(child, signal.SIGKILL)
    until(lambda: len(starts(marker)) == 10, seconds=5)
    ready.touch()
    assert [result.get(timeout=10) for result in results] == [2] * 5
    assert results[0].record().deaths == 1
    worker.until_logged("signal SIGKILL")


def test_kill_of_a_worker(any_server, basic, start_worker, marked, connection):
    """When supervisor and child are killed together, another worker takes over after the lease."""
    marker, ready = marked
    doomed = start_worker(APP, "--lease", str(LEASE))
    results = [basic.until_file.delay(marker, ready) for _ in range(5)]
    until(lambda: len(starts(marker)) == 5)
    start_worker(APP, "--lease", str(LEASE))
    doomed.kill()
    died = time.monotonic()
    until(lambda: len(starts(marker)) == 10, seconds=LEASE + 2 + 2)
    assert time.monotonic() - died < LEASE + 2
    ready.touch()
    assert [result.get(timeout=10) for result in results] == [2] * 5
    assert connection.client.execute_command("XLEN", "sq:{default}:stream:returned") == 0


def test_a_stalled_worker_cannot_commit(basic, start_worker, marked, connection):
    """A worker that was stopped for longer than its lease has lost its task: its outcome is refused."""
    marker, ready = marked
    stalled = start_worker(APP, "--lease", str(LEASE), "--concurrency", "1")
    result = basic.until_file.delay(marker, ready)
    until(lambda: len(starts(marker)) == 1)
    [child] = stalled.children
    os.kill(child, signal.SIGSTOP)
    try:
        start_worker(APP, "--lease", str(LEASE))
        until(lambda: len(starts(marker)) == 2, seconds=LEASE + 5)
        ready.touch()
        assert result.get(timeout=10) == 2
        ended = result.record().ended_ms
    finally:
        os.kill(child, signal.SIGCONT)
    until(lambda: "has gone to another" in stalled.log or "is refused" in stalled.log)
    assert result.record().ended_ms == ended
    assert result.get(timeout=1) == 2


def test_a_task_whose_lease_is_lost_may_go_on(basic, start_worker, marked):
    """With ``--no-cancel-lost`` it runs to its end; its outcome is refused all the same."""
    marker, ready = marked
    stalled = start_worker(APP, "--lease", str(LEASE), "--no-cancel-lost")
    result = basic.until_file.delay(marker, ready)
    until(lambda: len(starts(marker)) == 1)
    [child] = stalled.children
    os.kill(child, signal.SIGSTOP)
    try:
        start_worker(APP, "--lease", str(LEASE))
        until(lambda: len(starts(marker)) == 2, seconds=LEASE + 5)
    finally:
        os.kill(child, signal.SIGCONT)
    stalled.until_logged("has gone to another")
    ready.touch()
    assert result.get(timeout=10) == 2
    stalled.until_logged("this outcome is refused")


def test_a_blocked_loop_keeps_its_tasks(basic, start_worker):
    """Leases are renewed from a thread, so an event loop that user code blocks does not lose its task."""
    start_worker(APP, "--lease", str(LEASE))
    start_worker(APP, "--lease", str(LEASE))
    assert basic.block.delay(LEASE * 3).get(timeout=15) == 1


def test_sigterm_lets_running_tasks_end(basic, start_worker, marked):
    """A stopping worker finishes what runs, hands back what has not started, and exits with 0."""
    marker, ready = marked
    worker = start_worker(APP, "--concurrency", "2", "--lease", "30")
    running = [basic.until_file.delay(marker, ready) for _ in range(2)]
    until(lambda: len(starts(marker)) == 2)
    waiting = [basic.until_file.delay(marker, ready) for _ in range(3)]
    worker.process.terminate()
    worker.until_logged("stopping")
    other = start_worker(APP, "--lease", "30")
    until(lambda: len(starts(marker)) == 5)
    ready.touch()
    assert worker.process.wait(timeout=10) == 0
    assert [result.get(timeout=10) for result in running] == [1, 1]
    assert all(result.get(timeout=10) in (1, 2) for result in waiting)
    assert all(result.record().deaths == 0 for result in waiting)
    assert other.process.poll() is None


def test_prefetched_tasks_are_handed_back(basic, start_worker, marked, connection):
    """Messages that wait in a worker's memory go back at its stop, without counting as a death."""
    marker, ready = marked
    worker = start_worker(APP, "--threads", "1", "--concurrency", "1", "--lease", "30")
    results = basic.app.enqueue_many(basic.until_file_in_thread.s(marker, ready) for _ in range(4))
    until(lambda: len(starts(marker)) == 1)
    until(lambda: connection.client.execute_command("XPENDING", "sq:{default}:stream:5", "workers")[0] >= 2)
    worker.process.terminate()
    worker.until_logged("handed back")
    ready.touch()
    assert worker.process.wait(timeout=10) == 0
    assert [result.status() for result in results].count(State.QUEUED) == 3
    start_worker(APP)
    assert max(result.get(timeout=10) for result in results) == 2
    assert all(result.record().deaths == 0 for result in results)


@pytest.mark.parametrize("name", ["until_file", "until_file_in_thread"])
def test_what_outlives_the_grace_time_goes_back(basic, start_worker, marked, name):
    """When the grace time is over, what still runs is cut short and handed back at once; the exit is clean."""
    marker, ready = marked
    worker = start_worker(APP, "--grace", "0.3", "--lease", "30")
    result = getattr(basic, name).delay(marker, ready)
    until(lambda: len(starts(marker)) == 1)
    assert worker.terminate() == 0
    assert result.status() is State.QUEUED
    ready.touch()
    start_worker(APP)
    assert result.get(timeout=10) == 2


def test_a_signal_for_all_processes_leaves_the_grace_time(basic, start_worker, marked):
    """Service managers signal every process: a child then gets one from them, and one from its supervisor."""
    marker, ready = marked
    worker = start_worker(APP, "--grace", "30")
    result = basic.until_file.delay(marker, ready)
    until(lambda: len(starts(marker)) == 1)
    for pid in (*worker.children, worker.process.pid):
        os.kill(pid, signal.SIGTERM)
    worker.until_logged("stopping: 1 running")
    ready.touch()
    assert result.get(timeout=10) == 1
    assert worker.process.wait(timeout=10) == 0


def test_a_second_signal_ends_at_once(basic, start_worker, marked):
    """A second SIGTERM cuts the grace time short; what ran is handed back."""
    marker, ready = marked
    worker = start_worker(APP, "--grace", "60", "--lease", "30")
    result = basic.until_file.delay(marker, ready)
    until(lambda: len(starts(marker)) == 1)
    worker.process.terminate()
    worker.until_logged("stopping")
    assert worker.terminate() == 0
    assert result.status() is State.QUEUED
    result.forget()


def test_signals_are_heeded_while_tasks_are_handed_back(server_url, basic):
    """Though Redis does not answer: the supervisor does not wait for it, nor for long at its end."""
    with Proxy(server_url) as proxy:
        worker = Worker(APP, proxy.url)
        hole = proxy.strike("retire", Fault.HOLE)
        [child] = worker.children
        os.kill(child, signal.SIGKILL)
        until(lambda: hole.struck and worker.children not in ([], [child]))
        worker.process.terminate()
        until(lambda: not worker.children, seconds=3)
        assert "died (signal SIGKILL)" not in worker.log, "it still tries to hand back"
        assert worker.process.wait(timeout=10) == 0
        assert "its lease brings back what it held" in worker.log
        worker.stop()


def test_an_orphaned_child_stops(basic, start_worker, marked):
    """A child whose supervisor is killed finishes its work and ends."""
    marker, ready = marked
    worker = start_worker(APP)
    result = basic.until_file.delay(marker, ready)
    until(lambda: len(starts(marker)) == 1)
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.until_logged_by_orphan("stopping")
    ready.touch()
    assert result.get(timeout=10) == 1


@pytest.mark.parametrize(
    "fields",
    [
        ["garbage", "in"],
        ["id", "x-1", "args", "[]"],
        ["id", b"\xff\xfe", "task", "tests.apps.basic.add", "args", "[1, 2]"],
        ["id", "x-2", "task", b"\xff", "args", "[1, 2]"],
        ["id", "x-3", "task", "tests.apps.basic.add", "args", "[1, 2]", "fence", "many"],
    ],
)
def test_garbage_ends_in_the_dead_letters(any_server, basic, start_worker, connection, fields):
    """An entry that is no message is moved away with all it holds; the worker goes on."""
    worker = start_worker(APP)
    run = connection.client.execute_command
    run("XADD", "sq:{default}:stream:5", "*", *fields)
    assert basic.add.delay(1, 1).get(timeout=10) == 2
    until(lambda: run("XLEN", "sq:{default}:dead") == 1)
    [[_, letter]] = run("XRANGE", "sq:{default}:dead", "-", "+")
    kept = [field.encode() if isinstance(field, str) else field for field in fields]
    assert letter[-len(fields) :] == kept
    assert letter[0] == b"reason"
    assert letter[1].startswith(b"malformed")
    assert run("XPENDING", "sq:{default}:stream:5", "workers")[0] == 0
    assert run("XLEN", "sq:{default}:stream:5") == 0
    worker.until_logged("moved to the dead letters")


def test_broken_arguments_fail_their_task(basic, start_worker, connection):
    """Arguments that are not JSON fail that task, once and clearly."""
    start_worker(APP)
    run = connection.client.execute_command
    result = basic.app.result("by-hand", queue="default")
    run("HSET", "sq:{default}:task:by-hand", "state", "queued", "task", "tests.apps.basic.add")
    run("XADD", "sq:{default}:stream:5", "*", "id", "by-hand", "task", "tests.apps.basic.add", "args", "[1, ")
    with pytest.raises(TaskFailed, match="ArgumentError"):
        result.get(timeout=10)


def test_what_vanishes_is_made_again(any_server, basic, start_worker, connection):
    """After FLUSHALL, DEL and XGROUP DESTROY the worker is back by itself within 5 s, and says so once a minute.

    Nothing that waits is missed: a new group begins at the stream's beginning.
    """
    worker = start_worker(APP)
    streams = ["sq:{default}:stream:5", "sq:{default}:stream:returned"]
    losses = [["FLUSHALL"], ["DEL", *streams], *(["XGROUP", "DESTROY", stream, "workers"] for stream in streams)]
    for loss in losses * 2:
        assert basic.add.delay(1, 1).get(timeout=10) == 2
        connection.client.execute_command(*loss)
        assert basic.add.delay(1, 2).get(timeout=5) == 3, loss
    worker.until_logged("has vanished")
    said = [line for line in worker.log.splitlines() if "WARNING" in line and "the server: " not in line]
    assert len(said) == worker.log.count("has vanished") == 1, worker.log
    for stream in streams:
        until(lambda: connection.client.execute_command("XINFO", "GROUPS", stream), seconds=5)  # noqa: B023 - now


def test_a_whole_loss_is_noticed_without_any_traffic(any_server, start_worker, connection):
    """A worker that waits makes its streams again by itself."""
    start_worker(APP)
    connection.client.execute_command("FLUSHALL")
    until(lambda: connection.client.execute_command("EXISTS", "sq:{default}:stream:5", "sq:queues") == 2, seconds=5)


def test_a_lost_notification_costs_a_second(basic, start_worker, marked, connection):
    """A caller whose subscription is cut off just before the task ends still gets the result."""
    marker, ready = marked
    start_worker(APP)
    result = basic.until_file.delay(marker, ready)
    until(lambda: len(starts(marker)) == 1)
    with basic.app.broker.doorbell.on_ring(result.id, lambda: None):
        until(lambda: b"sq:done:" in b"".join(connection.client.execute_command("PUBSUB", "CHANNELS")))
        connection.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        ready.touch()
        assert result.get(timeout=5) == 1


def test_callers_leave_no_subscription(basic, start_worker, connection):
    """However many results are waited for, a process has one subscription, and none after ``close``."""
    start_worker(APP)
    results = [basic.add.delay(i, i) for i in range(20)]
    [result.get(timeout=10) for result in results]
    channels = connection.client.execute_command("PUBSUB", "CHANNELS", "sq:done:*")
    assert len(channels) == 1
    basic.app.close()
    until(lambda: not connection.client.execute_command("PUBSUB", "CHANNELS", "sq:done:*"))


def test_an_unknown_task_waits_for_a_worker_that_knows_it(basic, start_worker, connection):
    """A worker puts a task it does not know back; it runs once a worker of the new version is there."""
    old = start_worker("tests.apps.bare:app")
    result = basic.add.delay(2, 2)
    until(lambda: result.status() is State.DELAYED)
    old.until_logged("unknown task 'tests.apps.basic.add'")
    old.terminate()
    start_worker(APP)
    assert result.get(timeout=10) == 4
    assert connection.client.execute_command("XLEN", "sq:{default}:dead") == 0


def test_a_lost_stream_does_not_keep_back_the_others(basic, start_worker, marked, connection):
    """When a child is killed after one group has vanished, what it held of the others is handed back."""
    marker, ready = marked
    worker = start_worker(APP, "--lease", "60")
    result = basic.until_file.delay(marker, ready)
    until(lambda: len(starts(marker)) == 1)
    [child] = worker.children
    os.kill(child, signal.SIGSTOP)  # else it would make the group again
    connection.client.execute_command("XGROUP", "DESTROY", "sq:{default}:stream:returned", "workers")
    os.kill(child, signal.SIGKILL)
    until(lambda: len(starts(marker)) == 2, seconds=10)
    ready.touch()
    assert result.get(timeout=10) == 2
