"""The commands, run as a user runs them: what they print, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from streamq import StreamQ
from streamq.broker import calls
from streamq.message import Message
from tests.commands import Printing
from tests.workers import until

APP = "tests.apps.basic:app"
TASK = "tests.apps.basic."


class Listener(Printing):
    """A ``streamq events``."""

    @property
    def events(self):
        return [json.loads(line) for line in self.lines]

    def until_heard(self, kind, **fields):
        """Wait for an event, and return it."""

        def find():
            return [one for one in self.events if one["type"] == kind and fields.items() <= one.items()]

        return until(find, why=f"{kind} was not heard")[0]


@pytest.fixture
def listen(server_url):
    """Give a function that starts listeners; each listens when it returns."""
    started = []

    def start(*options, **more):
        started.append(Listener(server_url, "events", *options, **more))
        started[-1].until_said("listening to")
        return started[-1]

    yield start
    for listener in started:
        listener.stop()


def enqueue_broken(app, task_id, queue="default"):
    """Put a message on a queue whose arguments have been lost, so that a worker moves it to the dead letters."""
    keys = app.broker.keys.queue(queue)
    command = app.broker.sync.client.execute_command
    seconds, micros = map(int, command("TIME"))
    entry = f"{seconds * 1000 + micros // 1000}-99"
    command("HSET", keys.record(task_id), "state", "queued", "task", "gone", "entry", entry)
    command("XADD", keys.ready, entry, "id", task_id, "task", "gone")
    command("SADD", app.broker.keys.queues, queue)


def one_line(run):
    """Return what a command that could not do its work said: a single line, and no traceback."""
    assert run.stdout == ""
    assert run.stderr.startswith("streamq: ")
    assert run.stderr.count("\n") == 1, run.stderr
    return run.stderr


@pytest.mark.parametrize(
    "command",
    [
        *("", "call", "cancel", "channels", "dead", "dead list", "dead purge", "events", "listen", "publish", "queues"),
        *("queues move", "result", "subscribe", "worker"),
    ],
)
def test_help_answers_without_heavy_imports(command):
    """Help is there at once, for nothing is imported that it does not need."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "streamq", *command.split(), "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert run.stdout.startswith("Usage: ")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in run.stderr.splitlines()}
    assert "click" in imported
    assert not imported & {"asyncio", "pydantic", "pydantic_core", "redis", "rich", "tenacity"}


def test_a_call_and_its_result(streamq, start_worker):
    """A task is called by its name with arguments in JSON; its result is printed, and can be had again by its id."""
    start_worker(APP)
    called = streamq("call", APP, f"{TASK}add", "[2, 3]", "--wait", "--id", "sum")
    assert (called.stdout, called.stderr, called.returncode) == ("5\n", "sum\n", 0)
    text = streamq("result", "sum")
    assert text.returncode == 0
    assert [line.split()[:2] for line in text.stdout.splitlines()] == [
        ["state:", "succeeded"],
        ["task:", f"{TASK}add"],
        ["queue:", "default"],
        ["ended:", text.stdout.split("ended:")[1].split()[0]],
        ["result:", "5"],
    ]
    found = json.loads(streamq("result", "sum", "--json").stdout)
    assert datetime.fromisoformat(found.pop("ended")).tzinfo
    assert found == {
        "id": "sum",
        "state": "succeeded",
        "task": f"{TASK}add",
        "queue": "default",
        "attempt": 1,
        "deaths": 0,
        "worker": None,
        "result": 5,
    }


def test_arguments_by_name_are_what_the_annotations_say(streamq, start_worker):
    """A JSON object holds keywords; models, times and bytes are written as JSON writes them."""
    start_worker(APP)
    order = {
        "id": "0198f2a1-0000-7000-8000-000000000000",
        "at": "2026-11-22T12:30:00Z",
        "items": [{"name": "tea \N{SNOWMAN}", "price": "3.10"}],
        "colour": "red",
        "path": "/srv/orders",
        "raw": "AP8=",
    }
    called = streamq("call", APP, f"{TASK}ship", json.dumps({"order": order, "gift": True}), "--wait")
    assert json.loads(called.stdout) == order
    assert "\N{SNOWMAN}" in called.stdout
    shown = streamq("result", called.stderr.strip())
    assert json.loads(shown.stdout.partition("result:\n")[2]) == order


def test_a_failed_task(streamq, start_worker):
    """The error comes with its traceback, on standard error, also if it is one that callers see as itself."""
    start_worker(APP)
    called = streamq("call", APP, f"{TASK}fail", '["no such shelf"]', "--wait", "--id", "shelf")
    assert (called.stdout, called.returncode) == ("", 1)
    assert called.stderr.startswith("shelf\nstreamq: ValueError: no such shelf (task shelf)\n\nTraceback (most recent")
    assert "raise ValueError(message)" in called.stderr
    shown = streamq("result", "shelf", "--wait")
    assert shown.returncode == 1
    assert "error:   ValueError: no such shelf\n\nTraceback (most recent" in shown.stdout
    as_json = streamq("result", "shelf", "--json")
    assert as_json.returncode == 1
    error = json.loads(as_json.stdout)["error"]
    assert (error["type"], error["message"]) == ("ValueError", "no such shelf")
    listed = streamq("call", APP, f"{TASK}sell", '["tea", 3]', "--wait")
    assert listed.returncode == 1
    assert "streamq: tests.apps.basic.OutOfStock: ('tea', 3) (task" in listed.stderr


def test_a_task_that_waits_for_a_worker(streamq):
    """Without a worker a wait ends in time, with an exit code of its own; the state is shown meanwhile."""
    late = streamq("call", APP, f"{TASK}add", "[1, 1]", "--wait", "--timeout", "0.1", "--queue", "slow", "--id", "a")
    assert (late.stdout, late.returncode) == ("", 3)
    assert late.stderr == "a\nstreamq: the task has not ended after 0.1 s; it is queued\n"
    shown = streamq("result", "a", "--wait", "--timeout", "0.1")
    assert shown.returncode == 3
    assert shown.stdout == f"state:   queued\ntask:    {TASK}add\nqueue:   slow\n"
    assert shown.stderr == "streamq: the task has not ended after 0.1 s; it is queued\n"
    delayed = streamq("call", APP, f"{TASK}add", "[1, 1]", "--countdown", "600")
    assert len(delayed.stdout.split()) == 1
    state = streamq("result", delayed.stdout.strip(), "--json")
    assert (json.loads(state.stdout)["state"], state.returncode) == ("delayed", 0)


def test_the_worker_of_a_running_task(streamq, basic, start_worker, tmp_path):
    """While a task runs, it is shown where; ``--wait`` shows the end of it."""
    start_worker(APP, "--name", "ward")
    task = basic.until_file.delay(tmp_path / "marker", tmp_path / "ready")
    until((tmp_path / "marker").exists)
    shown = streamq("result", task.id)
    assert shown.returncode == 0
    assert "state:   running\n" in shown.stdout
    assert "worker:  ward-0-" in shown.stdout
    (tmp_path / "ready").touch()
    assert "state:   succeeded\n" in streamq("result", task.id, "--wait", "--timeout", "20").stdout


def test_the_progress_of_a_task(streamq, listen, basic):
    """It is shown with the task, and told to those who listen."""
    result = basic.add.delay(1, 1)
    assert "progress" not in streamq("result", result.id).stdout
    listener = listen("--json", "--type", "progress")
    assert result.progress(0.42, "half\x1b way")
    told = listener.until_heard("task.progress", id=result.id)
    assert (told["fraction"], told["text"], told["task"]) == (0.42, "half\x1b way", f"{TASK}add")
    assert "progress: 42% half\\x1b way" in streamq("result", result.id).stdout.splitlines()
    found = json.loads(streamq("result", result.id, "--json").stdout)
    assert found["progress"] == {"fraction": 0.42, "text": "half\x1b way"}
    result.cancel()


def test_an_unknown_id(streamq):
    """An id that was never enqueued is told in one line."""
    run = streamq("result", "nobody", "--wait")
    assert run.returncode == 1
    assert one_line(run) == "streamq: there is no task nobody: never enqueued, expired, or forgotten\n"


@pytest.mark.usefixtures("any_server")
def test_queues(streamq, basic, connection, start_worker, tmp_path):
    """All known queues are shown with what waits, runs, is delayed or dead, whatever of them exists in Redis."""
    start_worker(APP, "--queues", "busy")
    basic.until_file.using(queue="busy").delay(tmp_path / "marker", tmp_path / "ready")
    enqueue_broken(basic.app, "lost", "busy")
    until((tmp_path / "marker").exists)
    until(lambda: basic.app.result("lost").status() == "dead")
    for _ in range(3):
        basic.add.delay(1, 1)
    basic.add.using(countdown=600).delay(1, 1)
    connection.client.execute_command("SADD", "sq:queues", "absent", "foreign")
    connection.client.execute_command("XADD", "sq:{foreign}:stream:5", "1-1", "no", "message")

    found = {one.pop("queue"): one for one in json.loads(streamq("queues", "--json").stdout)}
    ages = {name: one.pop("oldest_age") for name, one in found.items()}
    levels = {name: one.pop("levels") for name, one in found.items()}
    more = {"held", "returned", "moving", "paused", "enqueued_rate", "ended_rate"}
    assert all({name: one.pop(name) for name in more} for one in found.values())
    assert list(found) == ["absent", "busy", "default", "foreign"]
    assert found["absent"] == {"length": 0, "pending": 0, "delayed": 0, "dead": 0}
    assert found["busy"] == {"length": 0, "pending": 1, "delayed": 0, "dead": 1}
    assert found["default"] == {"length": 3, "pending": 0, "delayed": 1, "dead": 0}
    assert found["foreign"] == {"length": 1, "pending": 0, "delayed": 0, "dead": 0}
    assert levels == {"absent": {}, "busy": {}, "default": {"5": 3}, "foreign": {"5": 1}}
    assert ages["absent"] is None
    assert 0 <= ages["busy"] < 30
    assert ages["foreign"] > 1e9

    head, *rows = streamq("queues").stdout.splitlines()
    assert head.split() == ["queue", "length", "pending", "delayed", "dead", "oldest"]
    assert rows[0].split() == ["absent", "0", "0", "0", "0", "-"]
    assert rows[2].split()[:5] == ["default", "3", "0", "1", "0"]
    assert len({len(row) for row in (head, *rows)}) == 1, "the columns are aligned"
    (tmp_path / "ready").touch()


def test_queues_of_which_there_is_more_to_tell(streamq, basic):
    """Levels, a pause and rates have columns where some queue has them."""
    basic.add.delay(1, 1)
    basic.add.using(queue="mail", priority=9).delay(1, 1)
    basic.add.using(queue="mail", priority=0).delay(1, 1)
    assert streamq("queues", "pause", "mail", "mail").stdout == "mail: paused\nmail: was paused already\n"
    head, default, mail = streamq("queues", "--rates", "0.01").stdout.splitlines()
    assert head.split() == [
        *("queue", "length", "pending", "delayed", "dead", "oldest", "enqueued/s", "ended/s", "levels", "notes")
    ]
    assert default.split()[-2:] == ["0.0", "0.0"]
    assert mail.split()[-5:] == ["0.0", "0.0", "9:1", "0:1", "paused"]
    [_, shown] = json.loads(streamq("queues", "--json").stdout)
    assert (shown["levels"], shown["paused"]) == ({"9": 1, "0": 1}, True)
    assert streamq("queues", "resume", "mail", "mail").stdout == "mail: resumed\nmail: was not paused\n"


def test_queues_are_moved(streamq, basic):
    """What cannot be used is said in one line."""
    basic.add.using(queue="mail", task_id="1").delay(1, 1)
    assert streamq("queues", "move", "mail", "files").stdout == "1 moved\n"
    basic.add.using(queue="default", task_id="1").delay(1, 1)
    run = streamq("queues", "move", "default", "files")
    assert (run.stdout, run.returncode) == ("0 moved, 1 in conflict with tasks of the same id\n", 1)
    assert "cannot be moved to the same queue" in one_line(streamq("queues", "move", "a", "a"))
    assert "options of 'pause' stand after it" in streamq("queues", "--namespace", "x", "pause", "a").stderr


def test_a_dead_task_says_why(streamq, basic, start_worker):
    """A task in the dead letters counts as failed, with the reason."""
    enqueue_broken(basic.app, "lost")
    start_worker(APP)
    run = streamq("result", "lost", "--wait", "--timeout", "20")
    assert run.returncode == 1
    assert "state:   dead\n" in run.stdout
    assert "has no args" in run.stdout.partition("error:")[2]


def test_no_queues_yet(streamq):
    """A new server has no queues; that is no error."""
    run = streamq("queues")
    assert (run.stdout, run.returncode) == ("", 0)
    assert run.stderr == "no queues yet under the namespace 'sq'\n"
    assert streamq("queues", "--json", "--namespace", "other").stdout == "[]\n"


@pytest.mark.usefixtures("any_server")
def test_the_life_of_tasks_and_of_a_worker(basic, listen, start_worker, tmp_path):
    """Every step is told live: of tasks that succeed, fail, wait, or lose their worker, and of workers."""
    listener = listen("--json")
    worker = start_worker(APP, "--name", "ward")
    online = listener.until_heard("worker.online")
    assert online["worker"].startswith("ward-0-")
    assert (online["queues"], online["running"], online["pid"]) == (["default"], 0, worker.children[0])

    good = basic.add.using(countdown=0.05).delay(1, 1)
    bad = basic.fail.delay("no")
    lasting = basic.until_file.delay(tmp_path / "marker", tmp_path / "ready")
    enqueue_broken(basic.app, "lost")
    for state, task in (("succeeded", good.id), ("failed", bad.id), ("dead", "lost"), ("started", lasting.id)):
        listener.until_heard(f"task.{state}", id=task)
    until((tmp_path / "marker").exists)
    os.kill(online["pid"], signal.SIGKILL)
    (tmp_path / "ready").touch()
    lost = listener.until_heard("task.reclaimed", id=lasting.id)
    assert (lost["worker"], lost["deaths"]) == (online["worker"], 1)
    listener.until_heard("task.succeeded", id=lasting.id)
    assert worker.terminate() == 0
    listener.until_heard("worker.offline")

    def life(task_id):
        return [event["type"].removeprefix("task.") for event in listener.events if event.get("id") == task_id]

    assert life(good.id) == ["delayed", "queued", "started", "succeeded"]
    assert life(bad.id) == ["queued", "started", "failed"]
    assert life("lost") == ["dead"]
    assert life(lasting.id) == ["queued", "started", "reclaimed", "started", "succeeded"]
    said = listener.until_heard("task.failed")
    assert (said["task"], said["queue"], said["worker"]) == (f"{TASK}fail", "default", online["worker"])
    assert datetime.fromisoformat(said["time"]).tzinfo
    assert "due" in listener.until_heard("task.delayed")


def test_events_can_be_chosen(server_url, basic, start_worker):
    """By type, task and queue, in any combination; ``--count`` ends the command after so many."""
    choices = {
        ("--type", "failed"): ["task.failed slow"],
        ("--type", "worker.online"): ["worker.online None"],
        ("--queue", "slow", "--type", "task"): ["task.queued slow", "task.started slow", "task.failed slow"],
        ("--task", f"{TASK}add", "--type", "queued", "--type", "succeeded"): [
            "task.queued default",
            "task.succeeded default",
        ],
    }
    listeners = [
        Listener(server_url, "events", "--json", "--count", str(len(heard)), *options)
        for options, heard in choices.items()
    ]
    try:
        for listener in listeners:
            listener.until_said("listening to")
        start_worker(APP, "--queues", "default,slow")
        basic.add.delay(1, 1).get(timeout=10)
        basic.fail.using(queue="slow").delay("no")
        for listener, heard in zip(listeners, choices.values(), strict=True):
            assert listener.process.wait(timeout=20) == 0
            assert [f"{event['type']} {event.get('queue')}" for event in listener.events] == heard
    finally:
        for listener in listeners:
            listener.stop()


def test_lines_for_people(basic, listen):
    """Without ``--json`` each event is one aligned line, and what is foreign cannot break it."""
    listener = listen("--count", "3", "--task", "*")
    basic.add.using(task_id="first").delay(1, 1)
    basic.app.broker.enqueue(Message("second", "a\x1b[31m\nb", "default", b"[]"))
    basic.add.using(task_id="third", countdown=600).delay(1, 1)
    assert listener.process.wait(timeout=20) == 0
    first, second, third = (line.split() for line in listener.lines)
    assert datetime.fromisoformat(first[0]).tzinfo
    assert first[1:] == ["task.queued", f"{TASK}add", "first", "default"]
    assert second[1:4] == ["task.queued", r"a\x1b[31m\nb", "second"]
    assert third[-1].startswith("due=")
    assert len({line.index(name) for line, name in zip(listener.lines, ("first", "second", "third"), strict=True)}) == 1


def test_foreign_messages_are_skipped_and_told(basic, connection, listen):
    """What somebody else publishes on a channel of events ends nothing."""
    listener = listen("--json")
    connection.client.execute_command("PUBLISH", "sq:events:default:x:failed", b"\xffnonsense")
    basic.add.using(task_id="good").delay(1, 1)
    listener.until_heard("task.queued", id="good")
    assert "skipped what is no event on channel sq:events:default:x:failed: not JSON" in listener.errors


def test_events_of_the_past_are_printed_where_they_are_kept(server_url, listen):
    with StreamQ(server_url, durable_events=True) as app:
        app.broker.enqueue(Message("early", "a", "default", b"[]"))
        listener = listen("--json", "--since", "1h")
        listener.until_heard("task.queued", id="early")
        connection_killed = app.broker.sync.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        assert connection_killed == 1
        listener.until_said("lost the connection")
        app.broker.enqueue(Message("late", "a", "default", b"[]"))
        listener.until_heard("task.queued", id="late")
        assert [event["id"] for event in listener.events] == ["early", "late"]
        assert "are lost" not in listener.errors


def test_a_lost_connection_is_told_and_made_again(basic, connection, listen):
    """After an interruption events come again; that some may be missing is said."""
    listener = listen("--json")
    connection.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    listener.until_said("events from the time between are lost")
    assert listener.errors.count("lost the connection") == 1
    basic.add.using(task_id="good").delay(1, 1)
    listener.until_heard("task.queued", id="good")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(listen, number):
    """Ctrl-C and SIGTERM are how it is meant to end."""
    listener = listen()
    listener.process.send_signal(number)
    assert listener.process.wait(timeout=20) == 0
    assert listener.errors.count("\n") == 1


def test_a_reader_that_goes_ends_it_cleanly(basic, listen):
    """``streamq events | head -1`` complains of nothing."""
    listener = listen(stdout=subprocess.PIPE)
    listener.process.stdout.close()
    basic.add.delay(1, 1)
    assert listener.process.wait(timeout=20) == 0
    assert listener.errors.count("\n") == 1


def test_a_terminal_gets_colours(basic, server_url):
    """Where people look on, types have colours and times no dates."""
    ours, theirs = os.openpty()
    listener = Listener(server_url, "events", "--count", "1", "--type", "started", stdout=theirs)
    os.close(theirs)
    try:
        listener.until_said("listening to")
        basic.app.broker.sync.run(
            calls.announce(
                None, [("sq:events:q:t:started", b'{"event": "task.started", "time": 1, "task": "t", "id": "1"}')]
            )
        )
        assert listener.process.wait(timeout=20) == 0
        shown = os.read(ours, 4096).decode()
    finally:
        listener.stop()
        os.close(ours)
    assert "\x1b[36mtask.started" in shown
    assert Path(shown.split()[0]).name.count(":") == 2
    assert "T" not in shown.split()[0]
