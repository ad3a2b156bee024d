"""The rules of the architecture, and sizes that keep a file readable."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import streamq

ROOT = Path(streamq.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
MODULE_LINES = 320
FUNCTION_LINES = 60
SCRIPT_LINES = 80


def test_imports_point_down():
    """The contracts in pyproject.toml are kept; what they forbid, and where, is in the output."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def lines_of(paths: Iterable[Path]) -> dict[str, int]:
    return {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in paths}


def test_a_module_can_be_read_in_one_sitting():
    assert not {name: lines for name, lines in lines_of(MODULES).items() if lines > MODULE_LINES}


def test_a_function_fits_on_a_screen():
    """Its docstring is counted."""
    functions = {
        f"{path.relative_to(ROOT)}: {node.name}()": node.end_lineno - node.lineno + 1
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert not {name: lines for name, lines in functions.items() if lines > FUNCTION_LINES}


def test_a_script_can_be_read_at_a_glance():
    scripts = lines_of(ROOT.rglob("*.lua"))
    assert scripts
    assert not {name: lines for name, lines in scripts.items() if lines > SCRIPT_LINES}
