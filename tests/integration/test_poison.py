"""Tasks that kill what runs them, and workers that end while processes of theirs run something."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter

import pytest

from streamq import State, TaskFailed
from tests.workers import children_of, is_alive, starts, until

APP = "tests.apps.stubborn:app"
LONG = ("--lease", "60")


def assert_died(result, letter, how):
    """See to it that a task ended as one under which too many workers have died; return how many."""
    times = int(letter[result.id][b"deaths"])
    with pytest.raises(TaskFailed, match=f"WorkerDied: the worker died under it .*{how}"):
        result.get(timeout=20)
    assert result.status() is State.DEAD
    assert result.record().deaths == times
    assert letter[result.id][b"reason"].decode() == f"its worker died {times} times: {how}"
    assert json.loads(letter[result.id][b"error"])["type"] == "streamq.errors.WorkerDied"
    return times


@pytest.mark.parametrize(
    ("max_deaths", "poisons"),
    [
        (3, {"poison": ("segv", "signal SIGSEGV"), "poison_in_thread": ("exit", "exit code 7")}),
        (2, {"poison_in_thread": ("kill", "signal SIGKILL")}),
    ],
)
def test_poison_is_told_from_those_around_it(stubborn, start_worker, marked, dead, monkeypatch, max_deaths, poisons):
    """The last time each suspect runs in a process of its own: only the poison dies there, and is buried."""
    monkeypatch.setenv("MAX_DEATHS", str(max_deaths))
    worker = start_worker(APP, *LONG)
    innocents = [getattr(stubborn, f"innocent{how}").delay(*marked) for how in ("", "_in_thread") for _ in range(3)]
    until(lambda: len(starts(marked[0])) == 6)
    killers = {how: getattr(stubborn, name).delay(kind) for name, (kind, how) in poisons.items()}
    until(lambda: len(dead()) == len(killers), seconds=25)
    marked[1].touch()
    assert min(result.get(timeout=20) for result in innocents) >= 1
    assert [result.status() for result in innocents] == [State.SUCCEEDED] * 6
    for how, result in killers.items():
        assert assert_died(result, dead(), how) >= max_deaths
    assert "is a dead letter now" in worker.log
    assert worker.log.count("handed back the") < 2 * max_deaths


def test_poison_among_many_costs_few_deaths(stubborn, start_worker, marked, dead):
    """All that ran beside it has one death; then they begin a few at a time, so that few are there at the next one."""
    worker = start_worker(APP, *LONG, "--concurrency", "200")
    innocents = [stubborn.innocent.delay(*marked) for _ in range(100)]
    until(lambda: len(starts(marked[0])) == 100)
    poison = stubborn.poison.delay("segv")
    until(lambda: worker.log.count("handed back the") == 2, seconds=25)
    marked[1].touch()
    deaths = Counter(result.get(timeout=20) for result in innocents)
    until(dead, seconds=25)
    assert assert_died(poison, dead(), "signal SIGSEGV") == 3
    assert worker.log.count("handed back the") == 2
    assert deaths.keys() <= {1, 2}
    assert deaths[2] <= 200 // 16


def test_one_death_can_be_too_many(stubborn, start_worker, dead, monkeypatch):
    """Then nothing is run again, and nobody can tell who it was."""
    monkeypatch.setenv("MAX_DEATHS", "1")
    worker = start_worker(APP, *LONG)
    result = stubborn.poison.delay("kill")
    in_process = stubborn.kill_itself.delay()
    until(lambda: len(dead()) == 2)
    assert assert_died(result, dead(), "signal SIGKILL") == 1
    assert in_process.status() is State.DEAD
    assert stubborn.succeed_at.delay(1).get(timeout=10) == 1
    assert worker.process.poll() is None


def test_a_task_that_kills_its_process_harms_nobody_else(stubborn, start_worker, marked, dead):
    """The worker goes on; with its last death the task is a dead letter."""
    worker = start_worker(APP, *LONG)
    [child] = worker.children
    innocents = [stubborn.innocent.delay(*marked), stubborn.until_file.delay(*marked)]
    until(lambda: len(starts(marked[0])) == 2)
    result = stubborn.kill_itself.delay()
    until(dead)
    assert assert_died(result, dead(), "signal SIGKILL") == 3
    marked[1].touch()
    assert innocents[0].get(timeout=10) == 0
    assert innocents[1].get(timeout=10) == [1, 1, 0]
    assert worker.children == [child]
    assert worker.log.count("died: signal SIGKILL") == 3
    worker.until_logged(f"task {result.id} (tests.apps.stubborn.kill_itself) has seen too many deaths")


def test_what_a_kill_of_a_process_costs(stubborn, start_worker, marked, dead):
    """By another: the task is run again, at once, and the death is counted; others do not notice. At its hard limit:
    the task has failed, which is no death, and no reason to run it again.
    """
    worker = start_worker(APP, *LONG)
    results = [stubborn.until_file.delay(*marked) for _ in range(2)]
    until(lambda: len(starts(marked[0])) == 2)
    os.kill(starts(marked[0])[0], signal.SIGKILL)
    until(lambda: len(starts(marked[0])) == 3)
    marked[1].touch()
    assert sorted(result.get(timeout=10) for result in results) == [[1, 1, 0], [1, 2, 1]]
    marked[0].write_text("")
    result = stubborn.ignore_everything_limited.delay(marked[0])
    with pytest.raises(TaskFailed, match=r"TaskTimeout: ran longer than its hard_timeout of 0\.3 s"):
        result.get(timeout=10)
    assert result.record().deaths == 0
    [process] = starts(marked[0])
    until(lambda: not is_alive(process))
    assert f"[tests.apps.stubborn.ignore_everything_limited {result.id} attempt 1]" in worker.log
    assert not dead()


def test_a_stop_hands_back_what_a_process_runs(stubborn, start_worker, marked):
    """After the grace time, and whatever the process does. That is no attempt, and no death."""
    worker = start_worker(APP, "--grace", "0.3", *LONG)
    results = [stubborn.until_file.delay(*marked), stubborn.ignore_everything.delay(marked[0])]
    until(lambda: len(starts(marked[0])) == 2)
    assert worker.terminate(seconds=4) == 0
    until(lambda: not any(map(is_alive, starts(marked[0]))))
    assert [result.status() for result in results] == [State.QUEUED] * 2
    assert results[1].forget()
    assert "Traceback" not in worker.log
    assert "Task was destroyed" not in worker.log
    marked[1].touch()
    other = start_worker(APP, "--grace", "0", *LONG)
    assert results[0].get(timeout=10) == [1, 2, 0]
    assert other.terminate() == 0


def test_a_stop_waits_for_what_a_process_runs(stubborn, start_worker, marked):
    """For the grace time; then the lifespan is left in the processes too."""
    worker = start_worker(APP, *LONG)
    result = stubborn.until_file.delay(*marked)
    until(lambda: len(starts(marked[0])) == 1)
    worker.process.terminate()
    worker.until_logged("stopping")
    marked[1].touch()
    assert worker.process.wait(timeout=10) == 0
    assert result.get(timeout=1) == [1, 1, 0]
    assert "pool tests: lifespan left" in worker.log


@pytest.mark.parametrize("whole", [True, False])
def test_processes_end_with_a_worker_that_is_killed(stubborn, start_worker, marked, whole):
    """They see it on their line, also when only the supervisor is killed and its child has to end in order."""
    worker = start_worker(APP, "--lease", "1", "--grace", "0.2")
    result = stubborn.until_file.delay(*marked)
    until(lambda: len(starts(marked[0])) == 1)
    if whole:
        worker.kill()
    else:
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
    until(lambda: not is_alive(starts(marked[0])[0]))
    marked[1].touch()
    start_worker(APP, "--lease", "1")
    assert result.get(timeout=10) == [1, 2, int(whole)]


def test_all_is_flushed_under_a_running_process(stubborn, start_worker, marked, connection):
    """Its outcome has no place any more, but the worker and its process go on."""
    worker = start_worker(APP)
    result = stubborn.until_file.delay(*marked)
    until(lambda: len(starts(marked[0])) == 1)
    connection.client.execute_command("FLUSHALL")
    marked[1].touch()
    worker.until_logged("has vanished")
    assert stubborn.pid.delay().get(timeout=10) == starts(marked[0])[0]
    assert result.status() is State.UNKNOWN
    assert "Traceback" not in worker.log


def test_a_child_with_a_forked_process_can_die(stubborn, start_worker, marked, tmp_path):
    """The fork has copies of all its files; the supervisor sees the end of the child all the same."""
    worker = start_worker(APP, "--lease", "1")
    result = stubborn.fork_in_thread.delay(*marked)
    until(lambda: len(starts(marked[0])) == 1)
    [child] = worker.children
    [fork] = children_of(child)
    os.kill(child, signal.SIGKILL)
    try:
        worker.until_logged("died (signal SIGKILL)")
    finally:
        os.kill(fork, signal.SIGKILL)
    marked[1].touch()
    assert result.get(timeout=10) > 1
