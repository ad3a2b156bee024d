"""``streamq listen``: handlers are called in a process of their own, and what they do does not end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile

import pytest

from tests.workers import ROOT, until

APP = "tests.apps.listening:app"


class Process:
    """A ``streamq listen`` whose log is read while it runs."""

    def __init__(self, url, heard, *options, app=APP):
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streamq", "listen", app, *options],
            stdout=self._log,
            stderr=self._log,
            cwd=ROOT,
            env={**os.environ, "STREAMQ_URL": url, "HEARD": str(heard)},
        )

    @property
    def log(self):
        return os.pread(self._log.fileno(), 1_000_000, 0).decode()

    def until_logged(self, text):
        until(lambda: text in self.log or self.process.poll() is not None, why=f"{text!r} is not in the log")
        assert text in self.log

    def ask(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def end(self):
        return self.process.wait(timeout=20)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for mistake in ("never retrieved", "was destroyed", "was never awaited", "Fatal"):
            assert mistake not in self.log
        self._log.close()


@pytest.fixture
def listening(load_app_at, server_url, monkeypatch, tmp_path):
    monkeypatch.setenv("HEARD", str(tmp_path / "unused"))
    return load_app_at("tests.apps.listening", server_url)


@pytest.fixture
def heard(tmp_path):
    """Give a function that returns what handlers have written down."""
    file = tmp_path / "heard"
    file.touch()

    def read():
        return file.read_text().splitlines()

    read.file = file
    return read


@pytest.fixture
def start(listening, server_url, heard):
    """Give a function that starts processes; each listens when it returns."""
    started = []

    def run(*options, **more):
        started.append(Process(server_url, heard.file, *options, **more))
        started[-1].until_logged("listen is ready")
        return started[-1]

    yield run
    for process in started:
        process.stop()


def put(listening, *ids):
    for task_id in ids:
        listening.work.using(task_id=task_id).delay()


def cancel(listening, *ids):
    for task_id in ids:
        assert listening.app.result(task_id, queue="default").cancel()


@pytest.mark.usefixtures("any_server")
def test_handlers_are_called_and_what_they_raise_ends_nothing(listening, start, heard):
    process = start("--name", "ward")
    assert "handler  tests.apps.listening.on_queued (task.queued)" in process.log
    put(listening, "good", "bad", "other")
    cancel(listening, "bad", "other")
    until(lambda: len(heard()) == 5)
    assert sorted(heard()) == ["async bad", "async good", "async other", "thread bad True", "thread other True"]
    process.until_logged("the handler tests.apps.listening.on_queued of task.queued bad failed")
    process.until_logged("the handler tests.apps.listening.on_cancelled of task.cancelled bad failed")
    assert "ValueError: a bad one\n" in process.log
    assert "ValueError: a bad one in a thread" in process.log
    assert f"ward-{process.process.pid} streamq.listen" in process.log
    process.ask()
    assert process.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_may_end(listening, start, heard, number):
    process = start()
    put(listening, "slow")
    until(heard)
    process.ask(number)
    assert process.end() == 0
    assert heard() == ["async slow", "ended slow"]


def test_what_runs_for_longer_than_the_grace_is_cancelled(listening, start, heard):
    process = start("--grace", "0.2")
    put(listening, "endless")
    until(heard)
    process.ask()
    assert process.end() == 0
    assert "the handler tests.apps.listening.on_queued of task.queued endless was cancelled" in process.log


def test_a_second_signal_ends_it_at_once(listening, start, heard):
    process = start("--grace", "600")
    put(listening, "endless")
    until(heard)
    process.ask()
    process.until_logged("waiting for 1 handlers")
    process.ask()
    assert process.end() == 0


def test_a_thread_that_does_not_end_is_given_up(listening, start, heard):
    process = start("--grace", "0.2")
    put(listening, "endless")
    cancel(listening, "endless")
    until(lambda: "sleeps" in heard())
    process.ask()
    assert process.end() == 1
    assert "handlers still run in threads: they are given up" in process.log


def test_no_more_run_at_a_time_than_was_said(listening, start, heard):
    process = start("--concurrency", "1")
    put(listening, "slow", "next")
    until(lambda: "async next" in heard())
    assert heard() == ["async slow", "ended slow", "async next"]
    put(listening, "endless", "last")
    until(lambda: "async endless" in heard())
    process.ask()
    process.until_logged("waiting for 1 handlers")
    process.ask()
    assert process.end() == 0
    assert "async last" not in heard(), "it waited for room"


def test_one_that_was_killed_can_begin_where_it_was(load_app_at, server_url, start, heard, monkeypatch, tmp_path):
    """Where events are kept, the next one is told by ``--since`` of those of the time between."""
    monkeypatch.setenv("DURABLE_EVENTS", "1")
    monkeypatch.setenv("HEARD", str(tmp_path / "unused"))
    listening = load_app_at("tests.apps.listening", server_url)
    process = start()
    put(listening, "first")
    until(heard)
    process.process.kill()
    process.end()
    put(listening, "second")
    start("--since", "1h")
    until(lambda: "async second" in heard())
    assert heard() == ["async first", "async first", "async second"]


def test_a_gap_is_logged(listening, start, heard, connection):
    process = start()
    connection.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    process.until_logged("events are missing: Gap(reason='reconnected'")
    assert "lost the connection: " in process.log
    put(listening, "good")
    until(heard)


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("tests.apps.basic:app", 'tests.apps.basic:app has no handlers of events, such as @app.on("task.failed")'),
        ("tests.apps.nowhere:app", "cannot import 'tests.apps.nowhere'"),
    ],
)
def test_an_app_that_cannot_be_listened_for(streamq, app, said):
    run = streamq("listen", app)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("streamq: ")
    assert said in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_server_that_is_away_is_one_line(heard):
    process = Process("redis://localhost:1", heard.file)
    assert process.end() == 2
    assert process.log.startswith("streamq: redis://localhost:1: ")
    assert process.log.count("\n") == 1
    process.stop()
