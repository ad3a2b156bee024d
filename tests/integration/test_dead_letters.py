"""`app.dead_letters`, and ``streamq dead``: operators see what died, run it again, or delete it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
import redis

from streamq import ConfigError, State, TaskFailed
from streamq.broker import calls
from streamq.cli.main import main
from streamq.dead import Redriven
from streamq.message import Message
from tests.workers import ROOT, until

APP = "tests.apps.basic:app"
TASK = "tests.apps.basic."
ERROR = b'{"type":"shop.OutOfStock","message":"no tea","args":[],"traceback":"Traceback\\n  in shop"}'


@pytest.fixture
def die(basic, connection):
    """Give a function that has messages of a queue moved to the dead letters, as a worker does."""
    keys = basic.app.broker.keys

    def to_death(*messages, reason="why"):
        name = messages[0].queue
        queue = keys.queue(name)
        connection.run(calls.register_queues(keys, [name]))
        connection.run(calls.enqueue(queue, messages))
        while found := connection.run(calls.fetch({queue.ready: name}, "w-1", 100, 0)):
            for one in found:
                call = calls.bury(queue, one, reason, ERROR, done=keys.done, worker="w-1", ttl_ms=60_000)
                assert connection.run(call)

    return to_death


def call_of(task_id, task="add", queue="default", args=b"[2,3]"):
    return Message(task_id, TASK + task, queue, args)


@pytest.fixture
def streamq(server_url, monkeypatch, capsys):
    """Give a function that runs a command in this process; returns exit code, output and errors."""
    monkeypatch.setenv("STREAMQ_URL", server_url)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["streamq", "dead", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run


# ---- from Python


def test_a_letter_says_all_that_is_known(basic, die):
    before = datetime.now(UTC) - timedelta(seconds=1)
    die(call_of("1"), reason="malformed: it is green")
    (letter,) = basic.app.dead_letters
    assert (letter.queue, letter.task_id, letter.task, letter.worker) == ("default", "1", f"{TASK}add", "w-1")
    assert letter.reason == "malformed: it is green"
    assert (letter.error.type, letter.error.message) == ("shop.OutOfStock", "no tea")
    assert letter.args == [2, 3]
    assert (letter.attempt, letter.deaths, letter.unreadable) == (1, 0, None)
    assert before < letter.enqueued_at <= letter.time < before + timedelta(seconds=10)
    assert basic.app.dead_letters.get("1") == basic.app.dead_letters.get(letter.letter_id) == letter
    assert basic.app.dead_letters.get("2") is None


def test_what_is_no_message_is_a_letter_too(basic, connection, die):
    """It can be looked at and purged; it stays when it is to be redriven."""
    connection.run(calls.create_group("sq:{default}:stream:5"))
    connection.client.execute_command("XADD", "sq:{default}:stream:5", "*", "id", "1", "x", b"\xff", "task", b"\xfe")
    die(call_of("2"))
    broken, good = basic.app.dead_letters
    assert broken.unreadable == "has no args"
    assert (broken.task_id, broken.task, broken.args) == ("1", "\\xfe", b"")
    assert broken.fields[1] == (b"x", b"\xff")
    assert good.unreadable is None
    assert basic.app.dead_letters.redrive() == Redriven(redriven=1, unreadable=1)
    assert [one.task_id for one in basic.app.dead_letters] == ["1"]
    assert basic.app.dead_letters.purge() == 1


@pytest.fixture
def five(basic, die):
    """Give the app, with five letters in two queues."""
    die(call_of("1"), call_of("2", "square"), reason="the task is not known")
    die(call_of("3"), reason="malformed: [x] has no args")
    die(call_of("4", queue="mails"), call_of("5", "fail", "mails"), reason="rejected")
    return basic.app


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        ({}, "12345"),
        ({"queue": "mails"}, "45"),
        ({"queue": ["mails", "nowhere"]}, "45"),
        ({"queue": []}, ""),
        ({"task": f"{TASK}add"}, "134"),
        ({"task": "*.s?uare"}, "2"),
        ({"task": "add"}, ""),
        ({"reason": "not known"}, "12"),
        ({"reason": "[x] has"}, "3"),
        ({"reason": "mal*args"}, "3"),
        ({"ids": "3"}, "3"),
        ({"ids": ["3", "5", "7"]}, "35"),
        ({"ids": []}, ""),
        ({"limit": 1}, "1"),
        ({"limit": 4}, "1234"),
        ({"task": "*add", "reason": "*", "queue": "default", "limit": 2}, "13"),
        ({"older_than": 0}, "12345"),
        ({"older_than": 60}, ""),
        ({"newer_than": 60}, "12345"),
        ({"newer_than": 1e300}, "12345"),
        ({"newer_than": datetime(2100, 1, 1, tzinfo=UTC)}, ""),
        ({"older_than": datetime(2100, 1, 1, tzinfo=UTC)}, "12345"),
    ],
)
def test_letters_are_chosen(five, chosen, ids):
    """What is given has to fit, all of it; an empty list fits nothing."""
    assert [letter.task_id for letter in five.dead_letters.where(**chosen)] == list(ids)


def test_times_are_those_of_death(five):
    """Both ends belong to what is chosen; choices add up."""
    every = list(five.dead_letters)
    third = every[2].time
    older = five.dead_letters.where(older_than=third)
    assert [one.task_id for one in older] == [one.task_id for one in every if one.time <= third]
    assert [one.time for one in older.where(newer_than=third)] == [one.time for one in every if one.time == third]


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"queue": "a b"}, "queue name 'a b'"),
        ({"task": ""}, "task must be some text"),
        ({"reason": ""}, "reason must be some text"),
        ({"ids": ["a b"]}, "task id 'a b'"),
        ({"ids": ""}, "task id ''"),
        ({"older_than": -1}, "older_than must be 0 or more seconds"),
        ({"older_than": "2h"}, "older_than must be 0 or more seconds"),
        ({"newer_than": datetime(2026, 1, 1)}, "with its time zone"),  # noqa: DTZ001 - that is what is wrong
        ({"limit": 0}, "limit must be a whole number"),
    ],
)
def test_a_choice_that_cannot_be_meant_is_refused(basic, chosen, said):
    """Nobody deletes all letters because a variable was empty."""
    with pytest.raises(ConfigError, match=said):
        basic.app.dead_letters.where(**chosen)


async def test_async_callers(five, connection):
    """They have the same, with an ``a`` before each name, and ``async for``."""
    async with five:
        assert [one.task_id async for one in five.dead_letters.where(queue="mails")] == ["4", "5"]
        assert (await five.dead_letters.aget("5")).task == f"{TASK}fail"
        assert await five.dead_letters.aget("6") is None
        told = []
        assert await five.dead_letters.where(ids="4").aredrive(on_progress=told.append) == Redriven(redriven=1)
        assert await five.result("4").astatus() is State.QUEUED
        assert await five.dead_letters.apurge() == 4
        assert told[-1] == 1


def test_a_task_that_died_is_redriven_and_its_result_comes(basic, connection, server_url, start_worker, load_app_at):
    """No worker knew it for more than a day; now one does, and those who ask for its result get it."""
    run = connection.client.execute_command
    entry = run("XADD", "sq:{default}:stream:5", "*", "id", "1", "task", f"{TASK}add", "args", "[2,3]", "at", "1000")
    run("HSET", "sq:{default}:task:1", "state", "queued", "task", f"{TASK}add", "entry", entry)
    old = start_worker("tests.apps.bare:app")
    result = basic.app.result("1", queue="default")
    with pytest.raises(TaskFailed):
        result.get(timeout=10)
    assert result.status() is State.DEAD
    assert old.terminate() == 0
    start_worker(APP)
    assert basic.app.dead_letters.redrive() == Redriven(redriven=1)
    assert result.get(timeout=10) == 5
    assert list(basic.app.dead_letters) == []


def test_new_ids_solve_a_conflict(basic, die, start_worker):
    """The letter's task runs beside the one that has its old id."""
    die(call_of("1"))
    basic.app.result("1").forget()
    basic.add.using(task_id="1", countdown=600).delay(1, 1)
    assert basic.app.dead_letters.redrive() == Redriven(conflicts=1)
    assert basic.app.dead_letters.redrive(new_ids=True) == Redriven(redriven=1)
    assert basic.app.result("1").status() is State.DELAYED


def test_a_thousand_letters_are_redriven_in_steps(basic, connection, die):
    """In pages of at most a hundred, so that no step holds up other clients; quickly all the same."""
    die(*(call_of(str(number)) for number in range(1000)))
    connection.client.execute_command("CONFIG", "RESETSTAT")
    told: list[int] = []
    began = time.monotonic()
    assert basic.app.dead_letters.redrive(on_progress=told.append) == Redriven(redriven=1000)
    assert time.monotonic() - began < 3
    assert told == list(range(100, 1001, 100))
    assert connection.client.execute_command("XLEN", "sq:{default}:stream:5") == 1000
    assert connection.client.execute_command("XLEN", "sq:{default}:dead") == 0
    stats = connection.client.execute_command("INFO", "commandstats").decode()
    assert "cmdstat_evalsha:calls=21" in stats, "ten pages, ten steps, and a look that found no more"


def test_a_lost_reply_makes_no_second_task(basic, connection, die, monkeypatch):
    """The step is sent again, and finds its letters gone; with new ids too there is one task of each."""
    die(call_of("1"), call_of("2"))
    sync = basic.app.broker.sync
    send, lost = sync._send, []

    def losing_the_reply_of_a_redrive(*words):
        reply = send(*words)
        if "reset" in words and not lost:
            lost.append(words)
            raise redis.ConnectionError("the connection was cut")
        return reply

    monkeypatch.setattr(sync, "_send", losing_the_reply_of_a_redrive)
    assert basic.app.dead_letters.redrive(reset=True, new_ids=True) == Redriven(gone=2)
    assert lost
    assert connection.client.execute_command("XLEN", "sq:{default}:stream:5") == 2


def test_what_dies_meanwhile_is_left_alone(basic, die, connection):
    """A message that dies again at once is not redriven for ever."""
    die(*(call_of(str(number)) for number in range(150)))

    def die_again(_count):
        die(call_of("new"))

    assert basic.app.dead_letters.redrive(on_progress=die_again) == Redriven(redriven=150)
    assert len(list(basic.app.dead_letters)) > 100


# ---- from the command line


def test_a_list(streamq, five, connection):
    """One aligned line a letter, without arguments; as JSON one object a line."""
    code, out, _ = streamq("list")
    head, *rows = out.splitlines()
    assert code == 0
    assert head.split() == ["died", "queue", "task", "id", "reason"]
    assert [row.split()[2:5] for row in rows][:2] == [["default", f"{TASK}add", "1"], ["default", f"{TASK}square", "2"]]
    assert [row[head.index("reason") :] for row in rows][2:4] == ["malformed: [x] has no args", "rejected"]
    code, out, _ = streamq("list", "--json", "--queue", "mails", "--task", "*.fail")
    found = json.loads(out)
    assert datetime.fromisoformat(found.pop("died")) >= datetime.fromisoformat(found.pop("enqueued"))
    assert found.pop("letter_id").startswith("mails:1")
    assert found == {
        "queue": "mails",
        "task_id": "5",
        "task": f"{TASK}fail",
        "reason": "rejected",
        "error": {"type": "shop.OutOfStock", "message": "no tea"},
        "worker": "w-1",
        "attempt": 1,
        "deaths": 0,
        "unreadable": None,
    }
    assert len(streamq("list", "--json")[1].splitlines()) == 5
    assert streamq("list", "--older-than", "1h") == (0, "", "streamq: no dead letters that fit\n")
    assert len(streamq("list", "--newer-than", "1d12h", "--reason", "not known")[1].splitlines()) == 3


def test_a_long_list_is_aligned_page_by_page(streamq, die):
    die(*(call_of(f"{number:03}") for number in range(150)))
    head, *rows = streamq("list")[1].splitlines()
    assert len(rows) == 150
    assert {row.index("why") for row in rows} == {head.index("reason")}


def test_one_letter_with_all_it_holds(streamq, five, connection):
    """By the id of its task or its own; arguments, error and traceback."""
    code, out, _ = streamq("show", "4")
    assert code == 0
    facts = dict(line.split(":", 1) for line in out.split("\n\n")[0].splitlines())
    shown = {name: value.strip() for name, value in facts.items()}
    assert (shown["task"], shown["id"], shown["queue"]) == (f"{TASK}add", "4", "mails")
    assert (shown["reason"], shown["worker"], shown["attempt"]) == ("rejected", "w-1", "1")
    assert (shown["arguments"], shown["error"]) == ("[2, 3]", "shop.OutOfStock: no tea")
    assert out.endswith("\n\nTraceback\n  in shop\n")
    assert streamq("show", shown["letter"])[1] == out
    found = json.loads(streamq("show", "4", "--json")[1])
    assert found["args"] == [2, 3]
    assert found["error"]["traceback"] == "Traceback\n  in shop"
    assert streamq("show", "nobody") == (1, "", "streamq: there is no dead letter nobody\n")


def test_all_letters_of_a_task_are_shown(streamq, basic, die):
    """It died, expired, was enqueued and died again."""
    die(call_of("1"))
    basic.app.result("1").forget()
    die(call_of("1"), reason="again")
    out = streamq("show", "1")[1]
    assert out.count(f"task:      {TASK}add\n") == 2
    assert len(streamq("show", "1", "--json")[1].splitlines()) == 2


def test_nothing_that_is_foreign_commands_a_terminal(streamq, connection, die):
    """Whatever stands in a message."""
    evil = b"\x1b[31m\n\xff\xc2\x9b"
    connection.run(calls.create_group("sq:{default}:stream:5"))
    connection.client.execute_command("XADD", "sq:{default}:stream:5", "*", "id", "1", "task", evil, evil, evil)
    die(
        call_of("2", args=json.dumps(["\x9b", evil.decode("latin-1") * 20], ensure_ascii=False).encode()),
        reason="\x1b\nx",
    )
    for words in (("list",), ("list", "--json"), ("show", "1"), ("show", "1", "--json"), ("show", "2", "--json")):
        code, out, _ = streamq(*words)
        assert code == 0
        assert not [char for char in out if not char.isprintable() and char != "\n"]
    assert "\\x1b[31m\\n\\xff" in streamq("show", "1")[1]
    assert len(streamq("list")[1].splitlines()) == 3
    assert "fields, for it has no args:\n" in streamq("show", "1")[1]
    shown = streamq("show", "2")[1]
    assert not [char for char in shown if not char.isprintable() and char != "\n"]


def test_redriving(streamq, five):
    """Chosen letters go back; the last line says how many."""
    assert streamq("redrive", "1", "4") == (0, "2 redriven\n", "")
    assert five.result("1").status() is State.QUEUED
    assert streamq("redrive", "1") == (1, "0 redriven\n", "")
    assert streamq("redrive", "--reason", "nothing like it") == (0, "0 redriven\n", "")
    assert streamq("redrive", "--all", "--limit", "1", "--reset") == (0, "1 redriven\n", "")
    assert streamq("redrive", "--queue", "mails", "--new-ids") == (0, "1 redriven\n", "")
    assert [one.task_id for one in five.dead_letters] == ["3"]


def test_letters_in_conflict_are_told(streamq, five, die):
    five.result("1").forget()
    five.broker.enqueue(call_of("1"))
    code, out, _ = streamq("redrive", "--queue", "default")
    assert code == 1
    assert out == "2 redriven, 1 in conflict with tasks of the same id (--new-ids makes new tasks of them)\n"


def test_purging(streamq, five, die):
    """It is for good, so it has to be confirmed; there is no terminal here."""
    refused = "streamq: purge deletes for good: add --yes, for there is no terminal to ask at\n"
    assert streamq("purge", "--all") == (2, "", refused)
    assert len(list(five.dead_letters)) == 5
    assert streamq("purge", "--queue", "mails", "--yes") == (0, "2 purged\n", "")
    assert streamq("purge", "4", "--yes") == (1, "0 purged\n", "")
    assert streamq("purge", "--all", "--yes") == (0, "3 purged\n", "")
    assert five.result("1").status() is State.DEAD


@pytest.mark.parametrize("command", ["redrive", "purge"])
def test_all_letters_have_to_be_named(streamq, five, command):
    """No filter, or only a limit, is more likely a slip."""
    for words in ((), ("--limit", "3")):
        code, out, err = streamq(command, *words)
        assert (code, out) == (2, "")
        assert err.startswith("streamq: say which letters: by ID, --queue")
        assert err.count("\n") == 1
    assert len(list(five.dead_letters)) == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--queue", "nowhere"), "streamq: there is no queue nowhere; there are: default, mails\n"),
        (("--task", ""), "streamq: task must be some text, with * and ? for any, not ''\n"),
        (("a b",), "streamq: task id 'a b' cannot be used"),
        (("--older-than", "soon"), "'soon' is no time span such as 90s, 30m, 2h or 1d12h"),
        (("--newer-than", "2h!"), "'2h!' is no time span"),
    ],
)
def test_a_filter_that_cannot_be_meant(streamq, five, words, said):
    code, out, err = streamq("redrive", *words)
    assert (code, out) == (2, "")
    assert said in err


def test_on_a_terminal_it_asks_and_shows_a_bar(server_url, five):
    """What was counted is what is deleted."""

    def at_a_terminal(*words, answer=b""):
        ours, theirs = os.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "streamq", "dead", *words],
            cwd=ROOT,
            env={**os.environ, "STREAMQ_URL": server_url, "TERM": "xterm"},
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
        os.close(theirs)
        shown = b""
        try:
            if answer:
                until(lambda: b"[y/N]" in (collected := os.read(ours, 4096)) or not collected)
                os.write(ours, answer)
            out, _ = process.communicate(timeout=20)
            shown = os.read(ours, 65536)
        finally:
            os.close(ours)
        return process.returncode, out, shown

    code, out, _ = at_a_terminal("purge", "--all", answer=b"n\n")
    assert (code, out) == (1, b"")
    assert len(list(five.dead_letters)) == 5
    code, out, shown = at_a_terminal("redrive", "--queue", "mails")
    assert (code, out) == (0, b"2 redriven\n")
    assert b"redriving" in shown
    assert b"100%" in shown
    code, out, shown = at_a_terminal("purge", "--all", answer=b"y\n")
    assert (code, out) == (0, b"3 purged\n")
    assert b"100%" in shown
