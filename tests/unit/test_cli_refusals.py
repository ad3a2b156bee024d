"""Commands that cannot be carried out say why in one line; none of these reaches a server."""

from __future__ import annotations

import signal
import sys

import pytest

from streamq.cli.main import main

APP = "tests.apps.basic:app"
TASK = "tests.apps.basic."
NOBODY = "redis://localhost:1/0"


@pytest.fixture
def streamq(monkeypatch, capsys):
    """Give a function that runs a command here, and returns its exit code and what it said."""
    monkeypatch.setenv("STREAMQ_URL", NOBODY)
    on_term = signal.getsignal(signal.SIGTERM)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["streamq", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert out == ""
        return ended.value.code, err

    yield run
    signal.signal(signal.SIGTERM, on_term)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((f"{TASK}ad", "[1]"), f"has no task '{TASK}ad'; near: {TASK}add"),
        (("add", "[1, 2]"), f"near: {TASK}add\n"),
        (("xyzzy",), f"it has {TASK}about, {TASK}about_thread, {TASK}add, "),
        ((f"{TASK}add", "[1, 2"), "ARGUMENTS are not JSON: Expecting ',' delimiter at column 6 of [1, 2"),
        ((f"{TASK}add", "[1,\n x]"), "Expecting value at line 2, column 2"),
        ((f"{TASK}add", "5"), "must be a JSON array or object, such as '[5]', not 5"),
        ((f"{TASK}add", "[1]"), f"{TASK}add() missing a required argument: 'y'"),
        ((f"{TASK}add", '{"x": 1, "z": 2}'), f"{TASK}add() missing a required argument: 'y'"),
        ((f"{TASK}add", "[1, 2]", "--queue", "a b"), "queue name 'a b' cannot be used"),
    ],
)
def test_a_call_that_cannot_be_made(streamq, words, said):
    """What is wrong with a call is told in one line, and nothing is sent."""
    code, line = streamq("call", APP, *words)
    assert code == 2
    assert line.startswith("streamq: ")
    assert said in line
    assert line.count("\n") == 1


def test_a_time_to_wait_needs_a_wait(streamq):
    """``--timeout`` alone would promise something that does not happen."""
    for words in (("call", APP, "x"), ("result", "x")):
        code, said = streamq(*words, "--timeout", "3")
        assert code == 2
        assert "--timeout needs --wait" in said


@pytest.mark.parametrize("command", [("events",), ("queues",), ("result", "x")])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        (NOBODY, "redis://localhost:1/0: Error 111 connecting to localhost:1."),
        ("http://localhost", "cannot use the URL 'http://localhost'"),
    ],
)
def test_a_server_that_is_away(streamq, command, url, said):
    """A server that does not answer, and a URL that cannot be used, are told in one line."""
    code, line = streamq(*command, "--url", url)
    assert code == 2
    assert line.startswith("streamq: ")
    assert said in line
    assert line.count("\n") == 1
