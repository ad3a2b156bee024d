"""``streamq flow``, run as a user runs it, with workers that run the tasks."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from streamq import chain, chord, group
from tests.flow_bench import ERROR, FlowBench
from tests.workers import until

APP = "tests.apps.flowing:app"
TASK = "tests.apps.flowing."
TIMES = "\N{MULTIPLICATION SIGN}"


@pytest.fixture
def tasks(load_app_at, server_url):
    """Give the module of tasks for flows."""
    return load_app_at("tests.apps.flowing", server_url)


@pytest.fixture
def bench(tasks):
    return FlowBench(tasks.app)


@pytest.fixture
def work(start_worker):
    """Give a function that starts a worker of all queues."""
    return lambda: start_worker(APP, "-Q", "default,slow")


@pytest.fixture
def bad(tmp_path):
    """Give a folder, and have the numbers 3 and 5 fail in it."""
    for number in (3, 5):
        (tmp_path / str(number)).touch()
    return tmp_path


def wait(streamq, flow_id, state):
    """Wait until a flow is in a state, with all that is to end ended."""

    def is_there():
        found = json.loads(streamq("flow", "show", flow_id, "--json").stdout)
        return found["state"] == state and found["done"] == found["size"]

    until(is_there, seconds=20, why=f"{flow_id} is not {state}")


def test_a_flow_is_listed_and_shown(streamq, tasks, work, bad):
    chord([tasks.check.s(n, str(bad)) for n in range(20)], tasks.total.s()).set(task_id="sum").delay()
    work()
    wait(streamq, "sum", "failed")
    listed = streamq("flow", "list").stdout.splitlines()
    assert listed[0].split() == ["id", "flow", "state", "done", "age", "took", "queue"]
    assert listed[1].startswith("sum  chord: check -> total  failed  22/22  ")
    shown = streamq("flow", "show", "sum")
    lines = shown.stdout.splitlines()
    assert shown.returncode == 1
    assert "flow sum  chord: check -> total  failed, 22 of 22 done" in lines[0]
    assert "group of 20  failed" in lines[1]
    assert lines[2].endswith(f"check {TIMES} 20: 18 succeeded, 2 failed")
    assert lines[3].endswith("  ValueError: number 3 cannot be had: no such shelf")
    assert len(lines) == 6
    assert len(streamq("flow", "show", "sum", "--all").stdout.splitlines()) == 23
    assert "\x1b" not in shown.stdout


def test_what_has_failed_runs_again(streamq, tasks, work, bad):
    flow = chord([tasks.check.s(n, str(bad)) for n in range(6)], tasks.total.s() | tasks.report.s()).delay()
    work()
    wait(streamq, flow.id, "failed")
    for number in (3, 5):
        (bad / str(number)).unlink()
    again = streamq("flow", "retry", flow.id, "--failed")
    assert (again.stdout, again.stderr, again.returncode) == (f"{flow.id}: 2 tasks run again\n", "", 0)
    assert flow.get(timeout=20) == "it is 15"
    wait(streamq, flow.id, "succeeded")
    assert streamq("flow", "show", flow.id).returncode == 0
    nothing = streamq("flow", "retry", flow.id, "--failed", "--queue", "default")
    assert (nothing.stdout, nothing.returncode) == (f"{flow.id}: 0 tasks run again\n", 1)


@pytest.mark.parametrize(
    "options", [{"ordering_key": "k"}, {"fairness_key": "k"}, {"countdown": 0.05}, {"priority": 9}, {"queue": "slow"}]
)
def test_a_task_on_special_terms_runs_again_on_these(streamq, tasks, work, bad, options):
    flow = chain(tasks.check.s(3, str(bad)).set(**options), tasks.report.s()).delay()
    work()
    wait(streamq, flow.id, "failed")
    (bad / "3").unlink()
    assert streamq("flow", "retry", flow.id, "--failed").stdout == f"{flow.id}: 1 task runs again\n"
    assert flow.get(timeout=20) == "it is 3"
    wait(streamq, flow.id, "succeeded")


def test_a_flow_is_cancelled_while_it_runs_and_goes_on_later(streamq, tasks, work, tmp_path):
    flow = chord([tasks.until_file.s(n, str(tmp_path / "ready")) for n in range(3)], tasks.total.s()).delay()
    work()
    until(lambda: streamq("flow", "show", flow.id).stdout.count("running") == 4, why="the members do not run")
    cancelled = streamq("flow", "cancel", flow.id, "nothing")
    assert (cancelled.stdout, cancelled.returncode) == ("1 cancelled\n", 1)
    assert cancelled.stderr == (
        "streamq: nothing is not cancelled: there is no such flow: it never began, has expired, or was forgotten\n"
    )
    shown = streamq("flow", "show", flow.id)
    assert shown.returncode == 1
    assert shown.stdout.count("  cancelled") == 4
    assert streamq("flow", "list", "--state", "cancelled").stdout.count(flow.id) == 1
    (tmp_path / "ready").touch()
    assert streamq("flow", "retry", flow.id, "--failed").stdout == f"{flow.id}: 3 tasks run again\n"
    assert flow.get(timeout=20) == 3
    wait(streamq, flow.id, "succeeded")
    late = streamq("flow", "cancel", flow.id)
    assert (late.stdout, late.returncode) == ("0 cancelled\n", 1)
    assert late.stderr == f"streamq: {flow.id} is not cancelled: it has ended\n"


def test_a_flow_of_which_a_task_has_become_a_flow(streamq, bench, tasks):
    """It stands under that task, and is listed with its own id."""
    chain(tasks.add.s(1, 2), tasks.report.s()).set(task_id="outer").delay()
    bench.becomes["outer.1"] = group(tasks.add.s(1, 2), tasks.report.s(7))
    bench.work("default", "slow", fails=lambda task_id: task_id == "outer.1.2")
    outer, inner = (_steps(streamq("flow", "show", flow_id).stdout) for flow_id in ("outer", "outer.1"))
    assert outer[1].startswith("✗ add .1  failed")
    assert outer[2:-1] == inner
    listed = streamq("flow", "list", "--json")
    assert {(one["id"], one["state"]) for one in json.loads(listed.stdout)} == {
        ("outer", "failed"),
        ("outer.1", "failed"),
    }
    found = json.loads(streamq("flow", "show", "outer", "--json").stdout)
    (inner,) = [node["flow"] for node in found["nodes"] if "flow" in node]
    assert [node["state"] for node in inner["nodes"]] == ["skipped", "succeeded", "failed"]
    refused = streamq("flow", "retry", "outer.1", "--failed")
    assert "outer.1 is a part of the flow outer: retry that" in refused.stderr
    assert refused.returncode == 1
    assert streamq("flow", "retry", "outer", "--failed").stdout == "outer: 1 task runs again\n"
    bench.work("default", "slow")
    assert bench.states("outer") == "ss"


def _steps(text):
    return [line.strip(" ├└─│") for line in text.splitlines()]


def test_a_program_can_read_a_flow(streamq, bench, tasks):
    chain(tasks.add.s(1, 2), tasks.report.s()).on_error(tasks.sorry.s()).set(task_id="f").delay()
    bench.work("default", "slow", fails=lambda task_id: task_id == "f.2")
    found = json.loads(streamq("flow", "show", "f", "--json").stdout)
    nodes = found.pop("nodes")
    assert found.pop("ended") >= found.pop("made") > 0
    assert found == {
        "id": "f",
        "label": "add | report",
        "queue": "default",
        "state": "failed",
        "size": 3,
        "done": 3,
        "error": "ValueError: no tea",
        "out": 0,
        "start": [2],
    }
    assert [(node["id"], node["state"], node["needs"], node["to"], node["on_error"]) for node in nodes] == [
        ("f.0", "skipped", [2], [], [1]),
        ("f.1", "succeeded", [0], [], []),
        ("f.2", "failed", [], [0], []),
    ]
    assert nodes[2]["error"] == json.loads(ERROR)["type"] + ": no tea"
    assert nodes[2]["ended"] >= nodes[2]["enqueued"] > 0


@pytest.mark.parametrize(("option", "first"), [("--mermaid", "flowchart TD"), ("--dot", "digraph flow {")])
def test_charts(streamq, tasks, bench, option, first):
    group(tasks.add.s(1, 2), tasks.report.s(2)).set(task_id="f").delay()
    bench.work("default", "slow")
    assert first in streamq("flow", "show", "f", option).stdout.splitlines()


def test_which_flows_are_listed(streamq, tasks, bench):
    for number in range(3):
        chain(tasks.add.s(1, 2), tasks.add.s(3)).set(task_id=f"f{number}").delay()
    chain(tasks.report.s(1), tasks.add.s(3)).set(task_id="slow").delay()
    bench.work(fails=lambda task_id: task_id == "f1.1")

    def listed(*options):
        return [one["id"] for one in json.loads(streamq("flow", "list", "--json", *options).stdout)]

    assert listed() == ["slow", "f2", "f1", "f0"]
    assert listed("--queue", "slow") == ["slow"]
    assert listed("--state", "failed") == ["f1"]
    assert listed("--state", "running") == ["slow"]
    few = streamq("flow", "list", "--limit", "2")
    assert len(few.stdout.splitlines()) == 3
    assert few.stderr == "streamq: 2 more: --limit 4 shows all\n"
    bench.work("slow", "default")


def test_what_is_not_there(streamq, tasks, bench):
    """Each is one line, and an exit code."""
    assert streamq("flow", "list").stderr == "streamq: no flows yet under the namespace 'sq'\n"
    for words in (("show", "x"), ("cancel", "x"), ("retry", "x", "--failed")):
        said = streamq("flow", *words)
        assert said.returncode == 1
        assert "there is no such flow: it never began, has expired, or was forgotten" in said.stderr
        assert said.stderr.count("\n") == 1
    tasks.add.using(task_id="task").delay(1, 2)
    assert streamq("flow", "show", "task").stderr == (
        "streamq: task: it is a task and no flow; streamq result task shows it\n"
    )
    assert streamq("flow", "retry", "x").returncode == 2
    assert streamq("flow", "show", "x", "--dot", "--json").returncode == 2


@pytest.mark.parametrize("words", ["", "list", "show", "cancel", "retry"])
def test_help_is_there_at_once(words):
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "streamq", "flow", *words.split(), "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in run.stderr.splitlines()}
    assert not imported & {"asyncio", "pydantic", "pydantic_core", "redis", "rich", "tenacity"}
