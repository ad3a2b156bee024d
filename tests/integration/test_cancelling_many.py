"""`app.cancel_all`, ``streamq cancel`` and ``streamq queues purge``: what is not wanted any more does not run."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from streamq import ConfigError, State
from streamq.cli.main import main
from tests.workers import ROOT

APP = "tests.apps.basic:app"


@pytest.fixture
def streamq(server_url, monkeypatch, capsys):
    """Give a function that runs a command in this process; returns exit code, output and errors."""
    monkeypatch.setenv("STREAMQ_URL", server_url)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["streamq", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def waiting(basic):
    """Give the results of tasks that wait: in two queues, of two tasks, queued and delayed."""
    return {
        "queued": basic.add.using(task_id="queued").delay(1, 2),
        "delayed": basic.add.using(task_id="delayed", countdown=60).delay(1, 2),
        "other task": basic.fail.using(task_id="other-task").delay("no"),
        "other queue": basic.add.using(task_id="other-queue", queue="mails").delay(1, 2),
    }


def cancelled(waiting):
    return {name for name, result in waiting.items() if result.status() is State.CANCELLED}


@pytest.mark.parametrize(
    ("which", "names"),
    [
        ({"task": "tests.apps.basic.add"}, {"queued", "delayed", "other queue"}),
        ({"task": "*.fail"}, {"other task"}),
        ({"task": "add"}, set()),
        ({"queue": "mails"}, {"other queue"}),
        ({"queue": ["mails", "default"], "task": "*.add"}, {"queued", "delayed", "other queue"}),
        ({"older_than": 60}, set()),
        ({"older_than": 0}, {"queued", "delayed", "other task", "other queue"}),
        ({"everything": True}, {"queued", "delayed", "other task", "other queue"}),
    ],
)
def test_what_fits_is_cancelled(basic, waiting, which, names):
    """Wherever it waits; the number says how many were."""
    assert basic.app.cancel_all(**which) == len(names)
    assert cancelled(waiting) == names
    assert basic.app.cancel_all(**which) == 0


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ({}, "say which tasks"),
        ({"running": True}, "say which tasks"),
        ({"queue": "a b"}, "queue name"),
        ({"task": ""}, "task must be some text"),
        ({"older_than": -1}, "older_than must be"),
    ],
)
def test_nothing_is_cancelled_by_a_slip(basic, waiting, which, said):
    with pytest.raises(ConfigError, match=said):
        basic.app.cancel_all(**which)
    assert not cancelled(waiting)


@pytest.mark.parametrize("running", [False, True])
def test_what_workers_have_is_cancelled_only_if_that_is_said(basic, waiting, connection, running):
    connection.client.execute_command(
        *("XREADGROUP", "GROUP", "workers", "w-1", "COUNT", 1, "STREAMS", "sq:{default}:stream:5", ">")
    )
    assert basic.app.cancel_all(queue="default", running=running) == 2 + running
    assert waiting["queued"].status() is (State.CANCELLED if running else State.RUNNING)


async def test_many_are_cancelled_in_steps(basic, connection):
    """Queued and delayed ones; what comes meanwhile is left alone. An event loop may do so too."""
    add = basic.add
    basic.app.enqueue_many([add.s(n, n) for n in range(350)])
    basic.app.enqueue_many([add.using(countdown=60).s(n, n) for n in range(350)])
    steps = []

    def on_progress(count):
        if len(steps) == 5:
            basic.add.using(task_id="late").delay(1, 2)
        steps.append(count)

    assert await basic.app.acancel_all(task="*.add", on_progress=on_progress) == 700
    assert steps == sorted(steps)
    assert steps[-1] == 700
    assert max(after - before for before, after in zip([0, *steps], steps, strict=False)) <= 100
    assert basic.app.result("late").status() is State.QUEUED
    await basic.app.aclose()


def test_what_waits_for_its_turn_is_cancelled_too(basic, connection):
    """It is found by way of the room where it waits; who has left that, or was cancelled before, does not count."""
    redis, queue = connection.client.execute_command, basic.app.broker.keys.queue("default")
    room = queue.room("a:b")[-1]
    redis("ZADD", queue.rooms, 1, "a:b")
    results = [basic.add.using(task_id=task_id, countdown=60).delay(1, 2) for task_id in "123"]
    for result in results:
        redis("ZREM", queue.delayed, result.id)
        redis("ZADD", room, 1, result.id)
        redis("HSET", queue.record(result.id), "state", "held")
    results[2].cancel()
    assert basic.app.cancel_all(task="*.add") == 2
    assert all(result.status() is State.CANCELLED for result in results)
    redis("DEL", queue.rooms, room)


@pytest.mark.parametrize("priority", [0, 9])
def test_a_message_of_any_level_is_found(basic, connection, priority):
    """By its id alone, and among many."""
    for cancel in (basic.app.cancel_all, None):
        result = basic.add.using(priority=priority).delay(1, 2)
        assert cancel(queue="default") == 1 if cancel else result.cancel()
        assert result.status() is State.CANCELLED
    stream = basic.app.broker.keys.queue("default").levels[priority]
    assert connection.client.execute_command("XLEN", stream) == 0


# ---- the command line


def test_tasks_are_cancelled_by_their_ids(streamq, waiting):
    """Where one of them cannot be, the others are, and the exit code says so."""
    assert streamq("cancel", "queued", "delayed") == (0, "2 cancelled\n", "")
    said = "streamq: nowhere is not cancelled: it has ended, or there is no such task\n"
    assert streamq("cancel", "nowhere", "other-queue") == (1, "1 cancelled\n", said)
    assert cancelled(waiting) == {"queued", "delayed", "other queue"}
    code, out, _ = streamq("result", "queued")
    assert code == 1
    assert "state:   cancelled\n" in out


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (("--task", "*.fail"), 1),
        (("-Q", "mails"), 1),
        (("--older-than", "0s"), 4),
        (("--all",), 4),
        (("--task", "x"), 0),
    ],
)
def test_tasks_are_cancelled_by_what_fits(streamq, waiting, words, count):
    """Whoever has no terminal to be asked at says so beforehand."""
    code, out, err = streamq("cancel", *words)
    assert (code, out) == (2, "")
    assert err == "streamq: this cancels for good: add --yes, for there is no terminal to ask at\n"
    assert streamq("cancel", *words, "--yes") == (0, f"{count} cancelled\n", "")
    assert len(cancelled(waiting)) == count


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "streamq: say which tasks: by ID"),
        (("--running",), "streamq: say which tasks: by ID"),
        (("1", "--all"), "Error: give IDs or options"),
        (("-Q", "nowhere", "--yes"), "streamq: there is no queue nowhere; there are: default, mails"),
        (("a b",), "streamq: task id 'a b' cannot be used"),
        (("--older-than", "soon"), "'soon' is no time span"),
    ],
)
def test_a_slip_on_the_command_line_cancels_nothing(streamq, waiting, words, said):
    code, out, err = streamq("cancel", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert not cancelled(waiting)


def test_a_queue_is_purged(streamq, waiting):
    """All that waits there, also what is delayed; other queues are left alone."""
    assert streamq("queues", "purge", "default", "--yes") == (0, "3 cancelled\n", "")
    assert cancelled(waiting) == {"queued", "delayed", "other task"}


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
def test_on_a_terminal_it_asks(basic, waiting, server_url, answer, code):
    """And shows how far it has come."""
    controller, terminal = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-m", "streamq", "cancel", "--all"],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
        cwd=ROOT,
        env={**os.environ, "STREAMQ_URL": server_url},
        text=True,
    )
    os.close(terminal)
    shown = ""
    while "[y/N]" not in shown:
        shown += os.read(controller, 1000).decode()
    assert "Cancel 4 tasks for good?" in shown
    os.write(controller, f"{answer}\n".encode())
    out, _ = run.communicate(timeout=20)
    os.close(controller)
    assert run.returncode == code
    assert out == ("4 cancelled\n" if answer == "y" else "")
    assert len(cancelled(waiting)) == (4 if answer == "y" else 0)
