"""`app.schedules`, and ``streamq schedule``: operators see what is called by itself, and change it."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from streamq import BrokerReset, ConfigError, State, cron, every
from streamq.broker import calls, schedules
from streamq.cli.main import main
from streamq.schedule.plan import Definition

APP = "tests.apps.basic:app"
TASK = "tests.apps.basic."
WEEKDAYS = cron("*/5 9-17 * * mon-fri", tz="Europe/Berlin")
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def on(basic):
    """Give the schedules of the app, with a call to be scheduled."""
    on = basic.app.schedules
    on.add("weekdays", basic.add.s(2, 3), WEEKDAYS, missed="skip")
    return on


@pytest.fixture
def declare(basic, connection):
    """Give a function that declares a schedule as a worker does."""
    keys = basic.app.broker.keys

    def once(name):
        definition = Definition(TASK + "add", every(hours=1), "one", b"[1,1]")
        connection.run(calls.register_queues(keys, ["default"]))
        connection.run(schedules.define_schedule(keys.queue("default"), name, definition.encode(), 2**41, since_ms=1))

    return once


# ---- callers


def test_what_was_added_is_there(on, basic):
    found = on.get("weekdays")
    assert (found.name, found.queue, found.task) == ("weekdays", "default", TASK + "add")
    assert (found.rule, found.missed, found.last_at) == (WEEKDAYS, "skip", None)
    assert not found.paused
    assert not found.declared
    assert found.next_at.tzinfo == BERLIN
    assert found.next_at > datetime.now(UTC)
    assert (found.next_at.minute % 5, found.next_at.second) == (0, 0)
    assert on.list() == (found,)
    assert on.add("weekdays", basic.add.s(2, 3), WEEKDAYS, missed="skip") == found


def test_what_is_added_again_is_what_was_said_last(on, basic):
    on.pause("weekdays")
    assert on.add("weekdays", basic.add.s(4, 5), every(hours=1)).paused
    on.resume("weekdays")
    assert on.get("weekdays").rule == every(hours=1)
    assert on.get("weekdays").missed == "one"
    assert (
        basic.app.broker.sync.run(schedules.read_schedules(basic.app.broker.keys.queue("default"), ["weekdays"]))
        .schedules[0]
        .definition.startswith(b'{"args":"[4,5]"')
    )


def test_schedules_of_all_queues(on, basic):
    """By queue and name; more than are read in one step."""
    for number in range(260):
        on.add(f"s{number:03}", basic.add.using(queue="mail").s(1, 2), every(hours=1))
    names = [(one.queue, one.name) for one in on.list()]
    assert names == [("default", "weekdays"), *(("mail", f"s{number:03}") for number in range(260))]
    assert on.get("s007").queue == "mail"


def test_pause_and_resume(on, connection):
    """What was due meanwhile is not made up for."""
    assert on.pause("weekdays") is True
    assert on.pause("weekdays") is False
    assert on.get("weekdays").paused
    assert on.resume("weekdays") is True
    assert on.resume("weekdays") is False
    assert on.get("weekdays").next_at > datetime.now(UTC)


def test_remove(on):
    assert on.remove("weekdays") is True
    assert on.remove("weekdays") is False
    assert on.get("weekdays") is None
    assert on.list() == ()


def test_what_running_code_declares_is_not_removed(on, declare, connection):
    """It would be back within a minute; when no worker says so any more it can be."""
    declare("nightly")
    assert on.get("nightly").declared
    with pytest.raises(ConfigError, match="declared in code that is running"):
        on.remove("nightly")
    connection.client.execute_command("HSET", "sq:{default}:schedules:declared", "nightly", "1 1")
    assert on.remove("nightly") is True


def test_run_now(on, connection):
    """An ordinary task; when the schedule is due next stays."""
    before = on.get("weekdays")
    result = on.run_now("weekdays")
    assert result.status() is State.QUEUED
    [(_, fields)] = connection.client.execute_command("XRANGE", "sq:{default}:stream:5", "-", "+")
    assert fields == [b"id", result.id.encode(), b"task", TASK.encode() + b"add", b"args", b"[2,3]"]
    assert on.get("weekdays") == before


async def test_async_callers(basic):
    """They have the same, with an ``a`` before each name."""
    on = basic.app.schedules
    async with basic.app:
        added = await on.aadd("weekdays", basic.add.s(2, 3), WEEKDAYS)
        assert await on.alist() == (added,)
        assert await on.aget("weekdays") == added
        assert await on.apause("weekdays")
        assert await on.aresume("weekdays")
        assert await (await on.arun_now("weekdays")).astatus() is State.QUEUED
        assert await on.aremove("weekdays")
        assert await on.aget("weekdays") is None
        with pytest.raises(ConfigError, match="no schedule 'weekdays'"):
            await on.arun_now("weekdays")


def test_what_cannot_be_added(on, basic, declare):
    """It says why, and nothing is changed."""
    before = on.list()
    declare("nightly")
    for name, signature, when, missed, why in (
        ("a b", basic.add.s(1, 2), WEEKDAYS, "one", "schedule name 'a b'"),
        ("new", basic.add.s(1, 2), "* * * * *", "one", "made by cron"),
        ("new", basic.add.s(1, 2), WEEKDAYS, "some", "missed must be one of"),
        ("new", basic.add.using(task_id="1").s(1, 2), WEEKDAYS, "one", "no task_id, countdown, eta or debounce"),
        ("new", basic.add.using(countdown=1).s(1, 2), WEEKDAYS, "one", "no task_id, countdown, eta or debounce"),
        ("weekdays", basic.add.using(queue="mail").s(1, 2), WEEKDAYS, "one", "in the queue default: remove it"),
        ("nightly", basic.add.s(1, 2), WEEKDAYS, "one", "declared in code, and is changed there"),
    ):
        with pytest.raises(ConfigError, match=why):
            on.add(name, signature, when, missed=missed)
    assert [one for one in on.list() if one.name != "nightly"] == list(before)


@pytest.mark.parametrize("call", ["pause", "resume", "run_now"])
def test_what_is_not_there(on, call):
    with pytest.raises(ConfigError, match="there is no schedule 'x'"):
        getattr(on, call)("x")


def test_a_key_of_another_type_is_an_error(basic, connection):
    connection.client.execute_command("SET", "sq:{default}:schedule", "by hand", "PX", 60_000)
    with pytest.raises(BrokerReset):
        basic.app.schedules.add("weekdays", basic.add.s(2, 3), WEEKDAYS)
    connection.client.execute_command("DEL", "sq:{default}:schedule")
    assert basic.app.schedules.list() == ()


# ---- the command


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


def test_a_list(streamq, on, basic, connection):
    """With times as the rule's zone has them, and in words."""
    on.add("hourly", basic.add.s(1, 2), every(hours=1))
    on.add("later", basic.add.s(1, 2), every(hours=1))
    on.pause("later")
    in_an_hour = datetime.now(UTC) + timedelta(seconds=3601)
    connection.client.execute_command("ZADD", "sq:{default}:schedule", round(in_an_hour.timestamp() * 1000), "weekdays")
    connection.client.execute_command("ZADD", "sq:{default}:schedule", 1000, "hourly")
    connection.client.execute_command("HSET", "sq:{default}:schedules:fired", "hourly", 0)
    code, out, _ = streamq("schedule", "list")
    assert code == 0
    head, *rows = [re.split(r" {2,}", line) for line in out.splitlines()]
    assert head == ["name", "rule", "next", "last fired", "queue", "task"]
    task = ["default", TASK + "add"]
    assert rows == [
        ["hourly", "every(seconds=3600)", "1970-01-01 00:00:01 UTC", "overdue", "1970-01-01 00:00:00 UTC", *task],
        ["later", "every(seconds=3600)", "paused", "-", *task],
        ["weekdays", str(WEEKDAYS), f"{in_an_hour.astimezone(BERLIN):%Y-%m-%d %H:%M:%S %Z}", "in 1 h", "-", *task],
    ]


def test_a_list_for_programs(streamq, on):
    code, out, _ = streamq("schedule", "list", "--json")
    [found] = json.loads(out)
    assert code == 0
    assert datetime.fromisoformat(found.pop("next")) == on.get("weekdays").next_at
    assert found == {
        "name": "weekdays",
        "queue": "default",
        "task": TASK + "add",
        "rule": str(WEEKDAYS),
        "missed": "skip",
        "last_fired": None,
        "paused": False,
        "declared": False,
    }


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(5.4, "in 5 s"), (59.4, "in 59 s"), (239, "in 4 min"), (7300, "in 2 h"), (3 * 86400 + 99, "in 3 d")],
)
def test_times_in_words(streamq, on, connection, seconds, words):
    due = datetime.now(UTC) + timedelta(seconds=seconds)
    connection.client.execute_command("ZADD", "sq:{default}:schedule", round(due.timestamp() * 1000), "weekdays")
    assert f"  {words}  " in streamq("schedule", "list")[1]


def test_no_schedules_yet(streamq, basic):
    code, out, said = streamq("schedule", "list")
    assert (code, out) == (0, "")
    assert "no schedules yet" in said
    assert streamq("schedule", "list", "--json")[1] == "[]\n"


def test_an_operator_pauses_resumes_runs_and_removes(streamq, on):
    """The app can be named in place of the server."""
    assert streamq("schedule", "pause", "weekdays") == (0, "", "streamq: weekdays is paused\n")
    assert streamq("schedule", "pause", "weekdays", APP) == (0, "", "streamq: weekdays was paused already\n")
    assert on.get("weekdays").paused
    code, _, said = streamq("schedule", "resume", "weekdays")
    assert code == 0
    assert re.fullmatch(r"streamq: weekdays is resumed, and due next 20.* CES?T, in \d+ \w+\n", said)
    assert streamq("schedule", "resume", "weekdays")[2].startswith("streamq: weekdays is not paused, and due next")
    code, task_id, _ = streamq("schedule", "run", "weekdays")
    assert code == 0
    assert streamq("result", task_id.strip())[1].startswith("state:   queued")
    assert streamq("schedule", "remove", "weekdays") == (0, "", "streamq: weekdays is removed\n")
    assert streamq("schedule", "remove", "weekdays") == (1, "", "streamq: there is no schedule weekdays\n")


@pytest.mark.parametrize("command", ["run", "pause", "resume"])
def test_an_operator_who_is_wrong_is_told(streamq, basic, command):
    assert streamq("schedule", command, "x") == (2, "", "streamq: there is no schedule 'x'\n")


def test_what_is_stored_in_a_newer_form_is_listed(streamq, on, connection):
    connection.client.execute_command("HSET", "sq:{default}:schedules", "weekdays", '{"lunar":1}')
    code, out, _ = streamq("schedule", "list")
    assert code == 0
    assert re.search(r"^weekdays +\? +20", out, re.MULTILINE)
    assert json.loads(streamq("schedule", "list", "--json")[1])[0]["rule"] is None


@pytest.mark.parametrize("words", [(), ("-A", "proj", "-l", "info"), ("--help",), ("start", "-x")])
def test_there_is_no_beat_and_what_to_do_instead_is_said(streamq, words):
    """Whatever Celery's would take."""
    code, out, said = streamq("beat", *words)
    assert (code, out) == (2, "")
    assert "workers fire the schedules" in said
    assert "schedule=every(seconds=30)" in said
    assert "streamq schedule list" in said
