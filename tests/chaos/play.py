"""Plays one row in a process of its own: ``python -m tests.chaos.play CASE``, the case as JSON; prints a report."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback

from tests.chaos import instrument
from tests.chaos.report import Report
from tests.chaos.rows import ROWS
from tests.chaos.stage import Case


def play(case: Case) -> Report:
    """Play a row; one that cannot be played to its end has failed."""
    variant = case.row.partition(" ")[2]
    if variant in instrument.MUTANTS:
        os.environ[instrument.MUTANT] = variant
    try:
        return importlib.import_module(f"tests.chaos.rows.{ROWS[case.row]}").run(case)
    except Exception as error:  # noqa: BLE001 - the other rows go on
        traceback.print_exc()
        report = Report(case.row, case.seed, case.server)
        report.require(False, f"{type(error).__name__}: {error}"[:500])  # noqa: FBT003
        return report


if __name__ == "__main__":
    print(play(Case(**json.loads(sys.argv[1]))).to_json())  # noqa: T201
