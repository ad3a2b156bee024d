"""Type checkers know the arguments and the results of tasks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workers import ROOT

CALLS = Path(__file__).parent / "calls.py"
WRONG = {number for number, line in enumerate(CALLS.read_text().splitlines(), 1) if line.endswith("# wrong")}


def mypy() -> set[int]:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(CALLS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"calls\.py:(\d+): error: (.*)", done.stdout)
    assert found or not WRONG, done.stdout + done.stderr
    return {int(line) for line, _ in found}


def pyright() -> set[int]:
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(CALLS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout[done.stdout.index("{") :])
    assert report["summary"]["filesAnalyzed"] == 1, done.stdout + done.stderr
    errors = [one for one in report["generalDiagnostics"] if one["severity"] == "error"]
    return {one["range"]["start"]["line"] + 1 for one in errors}


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_right_calls_are_accepted_and_wrong_ones_rejected(checker):
    """Every line marked as wrong, and no other, is an error."""
    assert len(WRONG) > 10
    assert checker() == WRONG
