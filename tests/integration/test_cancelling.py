"""A task that is cancelled ends at once; what runs of it stops, and whoever waits for it is told."""

from __future__ import annotations

import asyncio
import logging

import pytest

from streamq import State, TaskCancelled, TaskFailed
from streamq.worker import child
from tests.serving import job, serving, until
from tests.workers import is_alive

KINDS = ["on_loop", "in_thread", "in_thread_with_limit", "in_process"]

# The exception that is raised in a thread may strike in the tracer of the coverage, whose lock then stays taken.
pytestmark = pytest.mark.no_cover


@pytest.fixture
def endless(load_app_at, server_url):
    return load_app_at("tests.apps.endless", server_url)


@pytest.fixture
def said(tmp_path):
    """Give a file, and a function that reads the words in it."""
    path = tmp_path / "said"
    path.touch()

    def read() -> list[str]:
        return path.read_text().splitlines()

    read.path = str(path)
    return read


async def cancelled(result):
    """Wait for a task that was cancelled."""
    async with asyncio.timeout(5):
        with pytest.raises(TaskCancelled, match="it was cancelled") as raised:
            await result.aget()
    assert isinstance(raised.value, TaskFailed)
    assert await result.astatus() is State.CANCELLED


def nothing_is_left(connection):
    for stream in ("5", "returned"):
        assert connection.client.execute_command("XLEN", f"sq:{{default}}:stream:{stream}") == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_task_that_runs_is_stopped(endless, said, server_url, connection, caplog, kind):
    """On the loop and in a thread by an exception that says so; a process is killed. Its place is free again."""
    caplog.set_level(logging.INFO, "streamq")
    task = getattr(endless, kind)
    result = await task.adelay(said.path)
    async with serving(job(server_url, endless, lease=60.0, threads=1, pool_processes=1)):
        await until(lambda: "began" in said())
        assert await result.acancel()
        await cancelled(result)
        if kind == "in_process":
            await until(lambda: not is_alive(int(said()[0])))
        else:
            await until(lambda: "CancelledError" in said())
        another = await task.adelay(said.path)
        await until(lambda: said().count("began") == 2)
        await another.acancel()
        await cancelled(another)
    nothing_is_left(connection)
    assert f"task {result.id} ({task.name}) was cancelled" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    await endless.app.aclose()


async def test_a_run_that_goes_on_all_the_same_can_commit_nothing(endless, said, server_url, connection):
    """Code in a thread can catch the exception, and look whether its task was cancelled where it may stop."""
    result = await endless.in_thread_to_its_end.adelay(said.path)
    async with serving(job(server_url, endless)):
        await until(lambda: "began" in said())
        assert await result.acancel()
        await until(lambda: "saw it" in said())
        await cancelled(result)
    assert said() == ["began", "CancelledError", "saw it"]
    await cancelled(result)
    await endless.app.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_worker_that_was_not_told_finds_out(endless, said, server_url, connection, caplog, monkeypatch, kind):
    """Pub/Sub may lose the message; then the renewal of the lease shows it, within a quarter of the lease."""
    caplog.set_level(logging.INFO, "streamq")
    monkeypatch.setattr(child, "Listener", Deaf)
    result = await getattr(endless, kind).adelay(said.path)
    async with serving(job(server_url, endless, lease=1.0)):
        await until(lambda: "began" in said())
        began = asyncio.get_running_loop().time()
        assert await result.acancel()
        await until(lambda: "was cancelled" in caplog.text)
        assert asyncio.get_running_loop().time() - began < 0.75
        if kind == "in_process":
            await until(lambda: not is_alive(int(said()[0])))
        else:
            await until(lambda: "CancelledError" in said())
        await cancelled(result)
    assert "lease" not in caplog.text
    await endless.app.aclose()


class Deaf:
    """A listener that hears nothing."""

    def __init__(self, *_: object) -> None:
        pass

    async def run(self) -> None:
        await asyncio.Event().wait()


async def test_a_task_that_waits_in_the_memory_of_a_worker_does_not_run(endless, said, server_url, connection):
    """It was fetched, and waits for a place."""
    first = await endless.in_thread.adelay(said.path)
    second = await endless.in_thread.adelay(said.path)
    async with serving(job(server_url, endless, threads=1)):
        await until(lambda: "began" in said())
        await until(lambda: connection.client.execute_command("XPENDING", "sq:{default}:stream:5", "workers")[0] == 2)
        await second.acancel()
        await first.acancel()
        await cancelled(first)
        await cancelled(second)
    assert said() == ["began", "CancelledError"]
    nothing_is_left(connection)
    await endless.app.aclose()


@pytest.mark.parametrize("options", [{}, {"countdown": 60}])
@pytest.mark.parametrize("finds", [True, False])
def test_a_task_that_waits_never_runs(endless, said, server_url, connection, options, finds):
    """Also if only its id is known; a second time says the same, and an unknown id is not cancelled."""
    result = endless.on_loop.using(**options).delay(said.path)
    if finds:
        result = endless.app.result(result.id)
    assert result.cancel() is True
    assert result.cancel() is True
    with pytest.raises(TaskCancelled):
        result.get()
    assert endless.app.result("never enqueued").cancel() is False
    nothing_is_left(connection)
    assert connection.client.execute_command("ZCARD", "sq:{default}:delayed") == 0


async def test_a_task_that_has_ended_cannot_be_cancelled(load_app_at, server_url):
    lives = load_app_at("tests.apps.lives", server_url)
    result = await lives.once.adelay()
    async with serving(job(server_url, lives)):
        assert await result.aget() == "run 1"
        assert await result.acancel() is False
    assert await result.aget() == "run 1"
    await lives.app.aclose()


def test_what_was_cancelled_stays_so(said, private_server, load_app_at):
    """The server was killed, and comes up again with what its disk has."""
    server = private_server("--appendonly", "yes", "--appendfsync", "always")
    endless = load_app_at("tests.apps.endless", f"redis://127.0.0.1:{server.port}/0")
    results = [endless.on_loop.using(countdown=countdown).delay(said.path) for countdown in (None, 60)]
    for result in results:
        assert result.cancel()
    server.kill()
    server.start()
    for result in results:
        with pytest.raises(TaskCancelled):
            result.get()
