"""``streamq agents``: who is there, as a user sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from streamq import StreamQ
from tests.agents import processes
from tests.workers import ROOT, until


def start(url: str, out: Path, *options: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "streamq", "agents", *options]
    with out.open("wb") as file:
        return subprocess.Popen(words, cwd=ROOT, env={**os.environ, "STREAMQ_URL": url}, stdout=file, stderr=file)


def lines(out: Path) -> list[str]:
    return out.read_text().splitlines()


def test_agents_are_listed_and_watched(server_url: str, tmp_path: Path):
    out, table = tmp_path / "watched", tmp_path / "table"
    with StreamQ(server_url) as app, processes(app) as start_agent:
        start_agent("planner")
        watching = start(server_url, out, "--watch", "--json")
        listed: Callable[[], object] = lambda: lines(out)  # noqa: E731
        until(listed)
        assert json.loads(lines(out)[0])["capabilities"] == ["read"]
        reader = start_agent("reader")
        until(lambda: len(lines(out)) >= 2)
        assert start(server_url, table).wait(timeout=10) == 0
        head, planner, other = lines(table)
        assert head.split()[:3] == ["NAME", "INSTANCE", "CAPABILITIES"]
        assert planner.split()[0] == "planner"
        assert other.split()[0] == "reader"
        assert str(reader.pid) in other
        reader.stop()
        until(lambda: len(lines(out)) >= 3)
        watching.send_signal(signal.SIGTERM)
        assert watching.wait(timeout=10) == 0
    _, joined, left = map(json.loads, lines(out))
    assert (joined["change"], joined["name"]) == ("joined", "reader")
    assert (left["change"], left["name"]) == ("left", "reader")
