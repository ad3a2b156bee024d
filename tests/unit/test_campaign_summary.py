"""What several runs of the campaign have found, as one table."""

from __future__ import annotations

from collections import Counter

from click.testing import CliRunner

from tests.chaos import summary
from tests.chaos.report import Report
from tests.chaos.rows import ROWS


def report(row: str, server: str, seed: int, **figures: object) -> Report:
    return Report(row, seed, server, faults=Counter({"killed": 3, "frozen": 2}), tasks=1000, **figures)


def test_each_row_has_its_words():
    assert {*summary.STORIES, *(f"17 {name}" for name in summary.TAKEN_OUT)} == {*ROWS}


def test_runs_are_joined(tmp_path):
    """By row, then by server; what does not hold is said, and is the exit code."""
    runs = [
        report("1", "a", 1, recovery_p50=1.0, recovery_max=2.0, fenced=1),
        report("1", "b", 2, recovery_p50=3.0, recovery_max=9.0),
        report("10", "a", 1, lost=7, more={"losses_injected": 5}),
        report("16", "a", 1, more={"lost_without_durability": 4}, versions={"valkey": "9.1.2", "python": "3"}),
        report("17 fence", "a", 1, stale=4),
        report("17 fence", "b", 2, stale=6),
    ]
    files = [tmp_path / "a", tmp_path / "b"]
    for server, file in zip("ab", files, strict=True):
        file.write_text("".join(f"{one.to_json()}\n" for one in runs if one.server == server))
    ran = CliRunner().invoke(summary.main, list(map(str, files)))
    assert ran.exit_code == 0
    lines = ran.stdout.splitlines()
    assert lines[2] == f"| 1 | {summary.STORIES['1']} | 10 | 2,000 | 0 | 0 | 1 | 2.0 s, 9.0 s |"
    assert "| 5 | 1,000 | 2, 5 destroyed | 0 |" in lines[3]
    assert "| 5 | 1,000 | 0, 4 not durable | 0 |" in lines[4]
    assert lines[5].startswith("| all | **a, seeds 1** | 10 | 2,000 | 2, 5 destroyed |")
    assert lines[6].startswith("| all | **Valkey 9.1.2, seeds 1** | 5 | 1,000 | 0, 4 not durable |")
    assert lines[-1] == "| the fence | 4 to 6 outdated results in each run | 2 | 2 |"
    runs[0].require(False, "lost 1")  # noqa: FBT003
    files[0].write_text(runs[0].to_json())
    ran = CliRunner().invoke(summary.main, [str(files[0])])
    assert ran.exit_code == 1
    assert "row 1, seed 1, a: lost 1" in ran.stderr
