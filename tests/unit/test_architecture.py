"""The rules of the architecture, and sizes that keep a file readable."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import streamq

ROOT = Path(streamq.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
MODULE_LINES = 320
FUNCTION_LINES = 60
SCRIPT_LINES = 80


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_imports_point_down():
    """The contracts in pyproject.toml are kept; what they forbid, and where, is in the output."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_a_module_can_be_read_in_one_sitting(path):
    """Modules and functions, their docstrings counted, have a size that one can keep in mind."""
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= FUNCTION_LINES, f"{node.name}() has {lines} lines"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.lua")), ids=short)
def test_a_script_can_be_read_at_a_glance(path):
    assert len(path.read_text("utf-8").splitlines()) <= SCRIPT_LINES
