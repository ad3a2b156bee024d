"""Children that have done enough, or that hang, are replaced, and nothing waits for a lease."""

from __future__ import annotations

import signal

import pytest

from streamq import State, TaskFailed
from tests.workers import is_alive, until

APP = "tests.apps.heavy:app"
LONG = ("--lease", "60")  # so that what waits for one fails


@pytest.fixture
def heavy(load_app_at, server_url):
    """Give the module of tasks that are hard on their process."""
    return load_app_at("tests.apps.heavy", server_url)


@pytest.fixture
def there(tmp_path):
    """Give a file that a task makes when it starts, and one for which it waits."""
    return tmp_path / "started", tmp_path / "there"


def test_a_child_that_has_ended_enough_tasks_is_replaced(heavy, start_worker, connection):
    """The next one is ready before the old one stops; each task runs once, and no consumer is left."""
    worker = start_worker(APP, *LONG, "--max-tasks-per-child", "20")
    [first] = worker.children
    results = heavy.app.enqueue_many(heavy.quick.s(n) for n in range(20))
    assert [result.get(timeout=10)[0] for result in results] == list(range(20))
    until(lambda: worker.children not in ([], [first]) and not is_alive(first))
    results = heavy.app.enqueue_many(heavy.quick.s(n) for n in range(10))
    answers = [result.get(timeout=10) for result in results]
    assert [n for n, _ in answers] == list(range(10))
    assert first not in {pid for _, pid in answers}
    assert worker.log.count("takes the place of") == 1
    assert "it has ended 20 tasks" in worker.log
    assert "died" not in worker.log
    assert len(connection.client.execute_command("XINFO", "CONSUMERS", "sq:{default}:stream:5", "workers")) == 1


def test_a_child_that_was_too_large_is_replaced(heavy, start_worker):
    """What counts is what it has had in memory at a time, as it is not given back to the system in general."""
    worker = start_worker(APP, *LONG, "--max-memory-per-child", "200")
    [first] = worker.children
    assert heavy.quick.delay(1).get(timeout=10) == (1, first)
    assert heavy.eat.delay(250).get(timeout=10) == 250 * 1024 * 1024
    worker.until_logged("takes the place of")
    until(lambda: not is_alive(first))
    assert heavy.quick.delay(1).get(timeout=10)[1] != first
    assert "MiB (--max-memory-per-child 200)" in worker.log


def test_a_child_that_is_replaced_ends_what_it_runs(heavy, start_worker, there):
    """It reads nothing more; the task that runs is neither cut short nor given to another."""
    worker = start_worker(APP, *LONG, "--max-tasks-per-child", "5")
    slow = heavy.until_there.delay(*there)
    until(there[0].exists)
    [first] = worker.children
    [heavy.quick.delay(n).get(timeout=10) for n in range(5)]
    worker.until_logged("takes the place of")
    worker.until_logged("stopping: 1 running")
    assert heavy.quick.delay(1).get(timeout=10)[1] != first
    assert is_alive(first)
    there[1].touch()
    assert slow.get(timeout=10) == 1
    until(lambda: not is_alive(first))


def test_threads_that_cannot_be_ended_cost_their_child(heavy, start_worker, there):
    """At a hard limit a task has failed, at a soft one when its child is replaced; what else the child runs may end."""
    worker = start_worker(APP, *LONG, "--stuck-after", "0.5")
    [first] = worker.children
    slow = heavy.until_there.delay(*there)
    until(there[0].exists)
    soft, hard = heavy.deaf.delay(), heavy.deaf_at_the_hard_limit.delay()
    with pytest.raises(TaskFailed, match=r"TaskTimeout: ran longer than its hard_timeout of 0\.3 s"):
        hard.get(timeout=5)
    worker.until_logged("go on in spite of their time limit")
    assert soft.status() is State.RUNNING
    worker.until_logged("takes the place of")
    with pytest.raises(TaskFailed, match=r"TaskTimeout: ran longer than its timeout of 0\.3 s"):
        soft.get(timeout=10)
    assert heavy.quick.delay(1).get(timeout=10)[1] != first
    there[1].touch()
    assert slow.get(timeout=10) == 1
    until(lambda: not is_alive(first))
    assert soft.record().deaths == hard.record().deaths == 0


def test_a_stop_while_a_replaced_child_ends(heavy, start_worker, there):
    """One SIGTERM leaves the replaced child its grace time, as all others; the exit is clean."""
    worker = start_worker(APP, *LONG, "--max-tasks-per-child", "5")
    slow = heavy.until_there.delay(*there)
    until(there[0].exists)
    [heavy.quick.delay(n).get(timeout=10) for n in range(5)]
    worker.until_logged("stopping: 1 running")
    worker.process.terminate()
    worker.until_logged("stopping: 0 running")
    there[1].touch()
    assert worker.process.wait(timeout=10) == 0
    assert slow.get(timeout=1) == 1


def test_a_replacement_that_cannot_begin(heavy, start_worker, tmp_path, monkeypatch):
    """The old child works on until one can: a bad deployment does not leave the worker without children."""
    broken = tmp_path / "broken"
    monkeypatch.setenv("STREAMQ_TEST_BROKEN", str(broken))
    worker = start_worker(APP, *LONG, "--max-tasks-per-child", "5")
    [first] = worker.children
    broken.touch()
    [heavy.quick.delay(n).get(timeout=10) for n in range(5)]
    until(lambda: worker.log.count("in the middle of a deployment") >= 2)
    assert heavy.quick.delay(1).get(timeout=10) == (1, first)
    broken.unlink()
    worker.until_logged("takes the place of")
    until(lambda: not is_alive(first))
    assert heavy.quick.delay(1).get(timeout=10)[1] != first


def test_a_loop_that_stays_blocked_costs_its_process(heavy, start_worker):
    """The log has the task and the line that blocks; the process ends, and its tasks are handed back."""
    worker = start_worker(APP, *LONG, "--stuck-after", "1.5")
    result = heavy.block_at_first.delay()
    assert result.get(timeout=15) == 2
    assert "the event loop is blocked by" in worker.log
    assert "in _block_for_ever\n    time.sleep(0.01)" in worker.log
    assert f"task tests.apps.heavy.block_at_first {result.id}:" in worker.log
    worker.until_logged("exit code 70")
    assert "handed back the 1 tasks" in worker.log


def test_a_loop_that_was_blocked_for_a_while(heavy, start_worker):
    """It is said when it is noticed, with the task, and once more when it is over, with how long it took."""
    worker = start_worker(APP)
    result = heavy.block.delay(1.6)
    assert result.get(timeout=10) is None
    worker.until_logged("the event loop was blocked for 1.")
    assert f"the event loop is blocked by task tests.apps.heavy.block {result.id}, which now is at" in worker.log
    assert worker.log.count("the event loop") == 2


def test_c_code_that_keeps_the_interpreter_costs_its_process(heavy, start_worker):
    """Nothing in the process can run, so the supervisor ends it, and has it print where it is before."""
    worker = start_worker(APP, *LONG, "--stuck-after", "0.2")
    assert heavy.keep_interpreter_at_first.delay().get(timeout=20) == 2
    assert "has said nothing for" in worker.log
    assert "in keep_interpreter_at_first" in worker.log
    worker.until_logged("signal SIGKILL")


def test_sigquit_prints_every_stack_and_ends_at_once(heavy, start_worker, there):
    """Of threads and of asyncio tasks, with the ids of tasks; what runs is handed back, no attempt counted."""
    worker = start_worker(APP, *LONG, "--grace", "60")
    result = heavy.until_there.delay(*there)
    until(there[0].exists)
    worker.process.send_signal(signal.SIGQUIT)
    assert worker.process.wait(timeout=10) == 0
    assert "Current thread 0x" in worker.log
    assert 'streamq/worker/lease.py"' in worker.log
    stack = worker.log.split(f"task tests.apps.heavy.until_there {result.id}:")[1]
    assert 'tests/apps/heavy.py"' in stack
    assert result.status() is State.QUEUED
    assert result.record().deaths == 0
    result.forget()


def test_a_rolling_restart_of_a_busy_fleet(heavy, start_worker):
    """Each of three workers is stopped in turn, and another started: every task ends, and none waits for a lease."""
    options = (*LONG, "--concurrency", "4", "--threads", "4", "--grace", "10")
    fleet = [start_worker(APP, *options) for _ in range(3)]
    results = []
    for old in fleet:
        kinds = (heavy.short, heavy.short_in_thread)
        results += heavy.app.enqueue_many(kinds[n % 2].s(n) for n in range(600))
        results[-600].get(timeout=10)
        old.process.terminate()
        start_worker(APP, *options)
        assert old.process.wait(timeout=12) == 0
        assert "stopped" in old.log
    assert [result.get(timeout=20) for result in results] == [*range(600)] * 3
    assert all(result.record().deaths == 0 for result in results)
