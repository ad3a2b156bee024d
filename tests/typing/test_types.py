"""Type checkers know the arguments and the results of tasks, and what travels on channels."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workers import ROOT

USES = [path for path in sorted(Path(__file__).parent.glob("*.py")) if not path.name.startswith(("test_", "_"))]
Lines = set[tuple[str, int]]

WRONG: Lines = {
    (path.name, number)
    for path in USES
    for number, line in enumerate(path.read_text().splitlines(), 1)
    if line.endswith("# wrong")
}


def mypy() -> Lines:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *USES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"(\w+\.py):(\d+): error: ", done.stdout)
    assert found or not WRONG, done.stdout + done.stderr
    return {(name, int(line)) for name, line in found}


def pyright() -> Lines:
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, *USES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout[done.stdout.index("{") :])
    assert report["summary"]["filesAnalyzed"] == len(USES), done.stdout + done.stderr
    errors = [one for one in report["generalDiagnostics"] if one["severity"] == "error"]
    return {(Path(one["file"]).name, one["range"]["start"]["line"] + 1) for one in errors}


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_right_uses_are_accepted_and_wrong_ones_rejected(checker):
    """Every line marked as wrong, and no other, is an error."""
    assert {name for name, _ in WRONG} == {path.name for path in USES}
    assert len(WRONG) > 10
    assert checker() == WRONG
