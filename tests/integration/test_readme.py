"""Every code block of the README does what the README says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.workers import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
INSTALL, *TOUR = BLOCKS


def test_the_first_block_is_what_ci_runs():
    """The two commands at the top need a fresh environment: the CI runs them there, on two Pythons."""
    kind, text = INSTALL
    assert kind == "console"
    assert "streamq demo" in text
    assert "pytest" in text
    ci = (ROOT / ".ci" / "run").read_text()
    assert "readme_command 'streamq demo'" in ci
    assert "readme_command 'pytest'" in ci


def matches(said: str, expected: str) -> bool:
    """Compare output with what the README shows, in which ``...`` stands for anything."""
    pattern = ".*".join(map(re.escape, expected.strip().split("...")))
    return re.fullmatch(pattern, said.strip(), re.DOTALL) is not None


def test_the_tour(tmp_path):
    """Files are saved, commands are typed in one shell, and what they print is what the README shows."""
    script, expected = [f'cd "{tmp_path}"', "set -m"], []
    for kind, text in TOUR:
        if kind == "python":
            name = re.match(r"# (\w+\.py)\n", text)
            assert name, f"a block without a file name:\n{text}"
            (tmp_path / name[1]).write_text(text)
            continue
        assert kind == "console", f"what is a block of {kind}?"
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            script += [command, f"echo '--- {len(expected)}'"]
            if "streamq worker" in command and command.endswith("&"):
                script[-2] = f"{command[:-1]} 2>worker.log &"
                script.insert(-1, "until grep -q 'is ready' worker.log; do sleep 0.05; done")
            expected.append((command, shown))
    python = Path(sys.executable).parent
    shell = subprocess.Popen(
        ["bash", "-c", "\n".join(["trap 'kill $(jobs -p)' EXIT", *script])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": f"{python}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
    )
    try:
        printed, complained = shell.communicate(timeout=150)
    finally:
        shell.terminate()
    said = re.split(r"^--- \d+\n", printed, flags=re.MULTILINE)
    assert len(said) == len(expected) + 1, printed + complained
    for (command, shown), output in zip(expected, said, strict=False):
        assert matches(output, shown), f"$ {command}\n{output}\n{complained}"
