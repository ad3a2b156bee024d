"""The processes of a worker's pool: one task each at a time, and a death that costs no more than that."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from streamq.lifecycle import Abandoned, Died, Failed, Succeeded, Unroutable
from streamq.message import Delivery, Message
from streamq.worker import processes
from streamq.worker.holdings import Run
from streamq.worker.processes import PoolSettings, ProcessPool
from streamq.worker.wire import pack
from tests.apps import stubborn
from tests.workers import ROOT, children_of, is_alive, until

SPEC = {
    "app": "tests.apps.stubborn:app",
    "consumer": "w-1-pool",
    "log_level": "INFO",
    "log_format": "text",
    "ahead_ms": 0,
}


@pytest.fixture(autouse=True)
def _no_child_is_left():
    yield
    until(lambda: not [pid for pid in children_of(os.getpid()) if is_runner(pid)], why="a process is left")


def is_runner(pid: int) -> bool:
    shown = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return "streamq.cli.runner" in shown.stdout


class Pool(ProcessPool):
    """A pool, whose tasks are called by name."""

    def run_of(self, name: str, *args: object) -> Run:
        name = f"{stubborn.__name__}.{name}"
        message = Message("17", name, "q", json.dumps(args, default=str).encode())
        return Run(Delivery(message, "s", b"1-1", 2, 1_700_000_000_000), stubborn.app.tasks.get(name))

    async def call(self, name: str, *args: object) -> object:
        async with asyncio.timeout(15):
            return await self.run(self.run_of(name, *args))

    async def value(self, name: str, *args: object) -> object:
        outcome = await self.call(name, *args)
        assert isinstance(outcome, Succeeded), outcome
        return json.loads(outcome.result)

    async def error(self, name: str, *args: object) -> str:
        outcome = await self.call(name, *args)
        assert isinstance(outcome, Failed), outcome
        return json.loads(outcome.error)["type"]


@asynccontextmanager
async def open_pool(spec: dict[str, str] = SPEC, **settings: float) -> AsyncIterator[Pool]:
    """Open a pool, which must end in time, whatever its processes do."""
    pool = Pool(PoolSettings(spec, **settings))
    yield pool
    began = time.monotonic()
    await pool.close()
    assert time.monotonic() - began < 3


async def eventually(what: Callable[[], object]) -> None:
    """Poll `what` until it is true, while the event loop goes on."""
    await asyncio.to_thread(until, what)


# ---- what a task finds there


async def test_tasks_share_a_process_one_after_the_other(capfd):
    """It is started once, has the app's lifespan, and gives each task what it has in a worker."""
    async with open_pool() as pool:
        first = await pool.value("pid")
        assert first != os.getpid()
        assert await pool.value("about") == {"pid": first, "state": first, "attempt": 1, "fence": 2}
        assert "w-1-pool shop: from user code [tests.apps.stubborn.about 17 attempt 1]" in capfd.readouterr().err
        assert await pool.value("run_a_loop") == 5, "user code finds no running loop, as in a thread"
        assert [await pool.value("remember") for _ in range(2)] == [0, 0], "what a task sets the next does not see"
        await pool.close()
        assert "lifespan left" in capfd.readouterr().err


async def test_what_fails_fails_that_task_alone(capfd):
    """The process goes on, whatever is raised in it."""
    async with open_pool() as pool:
        process = await pool.value("pid")
        assert await pool.error("leave") == "SystemExit"
        assert await pool.error("interrupt") == "KeyboardInterrupt"
        assert await pool.error("unreadable_in_process") == "tests.apps.stubborn.Unreadable"
        assert await pool.error("cancel_all") == "asyncio.exceptions.CancelledError"
        assert await pool.error("pid", "argument") == "streamq.errors.ArgumentError"
        assert await pool.error("large", 1000) == "streamq.errors.ResultTooLarge"
        assert await pool.value("print_much") == 1
        assert await pool.value("fork_and_return") == "parent"
        assert await pool.value("fork_and_return_async") == "parent"
        assert await pool.value("pid") == process, "neither has another become the result of this one"
        assert "Unreadable: (the message could not be made)" in capfd.readouterr().err


async def test_a_task_that_the_processes_code_does_not_have():
    """It was changed under a running worker. That is no death, and no failure of the task."""
    async with open_pool({**SPEC, "app": "tests.apps.bare:app"}) as pool:
        outcome = await pool.call("pid")
        assert isinstance(outcome, Unroutable)
        assert outcome.reason == "unknown task"


async def test_only_some_processes_start_at_a_time(monkeypatch):
    """More would all take longer; and what waits for a start takes a process that has become free meanwhile."""
    begun: list[int] = []

    class Slow(processes._Process):
        async def begin(self) -> None:
            begun.append(1)
            assert sum(begun) == 1
            await super().begin()
            begun.append(-1)

    monkeypatch.setattr(processes, "_Process", Slow)
    monkeypatch.setattr(processes, "_STARTS_MOST", 1)
    async with open_pool() as pool:
        pids = await asyncio.gather(*(pool.value("pid") for _ in range(6)))
    assert len(set(pids)) < 6


# ---- time limits


async def test_time_limits():
    """One ends what blocks in C too, can be handled, and does not cost the process."""
    async with open_pool() as pool:
        process = await pool.value("pid")
        began = time.monotonic()
        assert await pool.error("sleep_too_long") == "streamq.errors.TaskTimeout"
        assert await pool.error("await_too_long") == "streamq.errors.TaskTimeout"
        assert await pool.value("handle_its_limit") == "TaskTimeout"
        assert time.monotonic() - began < 3
        assert await pool.value("pid") == process


async def test_a_hard_limit_kills(tmp_path):
    """What ignores everything is killed; that is a failure of the task, and no death of a worker."""
    async with open_pool() as pool:
        process = await pool.value("pid")
        began = time.monotonic()
        assert await pool.error("ignore_everything_limited", tmp_path / "marker") == "streamq.errors.TaskTimeout"
        assert time.monotonic() - began < 2
        await eventually(lambda: not is_alive(process))
        assert await pool.value("pid") != process


# ---- deaths


async def test_a_death_is_that_of_one_task(caplog):
    """Others, in their own processes, do not notice."""
    async with open_pool() as pool:
        neighbour = asyncio.create_task(pool.call("until_lost"))
        assert await pool.call("kill_itself") == Died("signal SIGKILL")
        assert await pool.call("exit_at_once", 7) == Died("exit code 7")
        [run] = pool._busy
        pool.lost(run)
        assert await neighbour == Succeeded(b"true"), "it was told that its lease is lost, and has seen it"
        pool.lost(run)
        [idle] = pool._idle
        idle.process.kill()
        idle.process.wait()
        assert await pool.value("pid") != idle.process.pid, "one that dies while it is idle is replaced"
    assert "the process that ran task 17 (tests.apps.stubborn.kill_itself) died: signal SIGKILL" in caplog.text


async def test_a_process_without_files_has_died():
    async with open_pool() as pool:
        assert isinstance(await pool.call("close_all_files"), Died)


async def test_what_a_task_leaves_behind_does_not_hide_its_death(tmp_path):
    """A process that it has forked has copies of all its files; the end of the line shows all the same, and at once."""
    marker = tmp_path / "child"
    began = time.monotonic()
    async with open_pool() as pool:
        assert await pool.call("leave_a_child_and_die", marker) == Died("signal SIGKILL")
        assert time.monotonic() - began < 4
        os.kill(int(marker.read_text()), signal.SIGKILL)


async def test_a_run_that_is_cancelled_takes_its_process_along(tmp_path):
    """Also when that is only starting, or blocks in C with the interpreter's lock."""
    async with open_pool() as pool:
        for seconds, task, args in [(0.1, "pid", ()), (1.5, "block_in_c", ())]:
            running = asyncio.create_task(pool.call(task, *args))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(running, seconds)
            assert pool.pids == []
            await eventually(lambda: not [pid for pid in children_of(os.getpid()) if is_runner(pid)])


@contextmanager
def errors_to(path: Path) -> Iterator[None]:
    """Have standard error go to a file, also that of processes; who reads it takes nothing out of it, as capfd does."""
    before = os.dup(2)
    with path.open("ab") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


async def test_processes_show_where_they_are(tmp_path):
    """As at a SIGQUIT of their worker; what they run goes on."""
    marker, ready, errors = tmp_path / "marker", tmp_path / "ready", tmp_path / "errors"
    with errors_to(errors):
        async with open_pool() as pool:
            running = asyncio.create_task(pool.call("until_file", marker, ready))
            await eventually(marker.exists)
            pool.show_stacks()
            await eventually(lambda: "in until_file" in errors.read_text())
            ready.touch()
            assert isinstance(await running, Succeeded)


# ---- replacement


async def test_a_process_is_replaced_after_so_many_tasks():
    async with open_pool(max_tasks=2) as pool:
        pids = [await pool.value("pid") for _ in range(4)]
        assert pids[0] == pids[1] != pids[2] == pids[3]
        assert not pool.pids


async def test_a_process_is_replaced_that_has_had_so_much_memory():
    """What the process that started it has had does not count."""
    ballast = bytearray(400 * 1024 * 1024)
    del ballast
    async with open_pool(max_memory=300) as pool:
        first = await pool.value("pid")
        await pool.value("allocate", 1)
        assert await pool.value("pid") == first
        await pool.value("allocate", 400)
        assert await pool.value("pid") != first


async def test_an_idle_process_ends(monkeypatch):
    monkeypatch.setattr(processes, "_IDLE_SECONDS", 0.05)
    async with open_pool() as pool:
        process = await pool.value("pid")
        await eventually(lambda: not pool.pids)
        await eventually(lambda: not is_alive(process))
        assert await pool.value("pid") != process


# ---- processes that cannot start


async def test_a_process_that_cannot_start_costs_no_task(monkeypatch, caplog):
    """The task goes back, and the log says why."""
    monkeypatch.setattr(processes, "_START_AGAIN_SECONDS", 0)
    names = ("nowhere", "broken", "unentered")
    async with AsyncExitStack() as stack:
        specs = ({**SPEC, "app": f"tests.apps.{name}:app"} for name in names)
        pools = [await stack.enter_async_context(open_pool(spec)) for spec in specs]
        assert await asyncio.gather(*(pool.call("pid") for pool in pools)) == [Abandoned()] * 3
    for said in ("there is no module 'tests.apps.nowhere'", "cannot import 'tests.apps.broken'", "or said nothing"):
        assert said in caplog.text


async def test_a_process_for_which_there_is_no_room_costs_no_task(monkeypatch, caplog):
    """As with too many open files, or too little memory."""
    monkeypatch.setattr(processes, "_START_AGAIN_SECONDS", 0)

    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(24, "Too many open files")

    async with open_pool() as pool:
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", refuse)
            assert await pool.call("pid") == Abandoned()
        assert "Too many open files" in caplog.text
        assert isinstance(await pool.call("pid"), Succeeded)


# ---- the other end of the line


@pytest.fixture
def runner():
    """Start a process of the pool without a pool; give it and our end of the line."""
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    with ours, theirs:
        spec = json.dumps({**SPEC, "line": theirs.fileno()})
        command = [sys.executable, "-m", "streamq.cli.runner", spec]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT)
        theirs.close()
        assert b"ready" in ours.recv(1000)
        yield process, ours
        process.kill()
        process.wait()


@pytest.mark.parametrize("last_words", [b"", pack({"run": ["1", "t", "q"]}, b"[]" * 1000)[:500]])
def test_a_process_ends_with_its_worker(runner, last_words):
    """Also if the worker was killed in the middle of a word."""
    process, line = runner
    line.sendall(last_words)
    line.close()
    assert process.wait(timeout=5) == 1


def test_signals_are_for_the_worker(runner):
    """A service manager sends them to all processes of a service; what runs is for its worker to end."""
    process, line = runner
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    line.sendall(pack({"run": ["1", "tests.apps.stubborn.pid", "q"], "counts": [0, 0, 1, 0, 0], "options": ""}, b"[]"))
    assert str(process.pid).encode() in line.recv(1000)
    line.sendall(pack({"stop": True}))
    assert process.wait(timeout=5) == 0
