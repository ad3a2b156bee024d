"""Servers, workers and the checks that follow every test."""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import inspect
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from streamq import StreamQ
from streamq._redis.connections import SyncConnection
from tests import commands, servers
from tests.nodes import Node
from tests.workers import Worker, until

_LEVELS = tuple(f":stream:{level}" for level in range(10))
_SCHEDULES = (":schedule", ":schedules", ":fired", ":declared")
_PERMANENT = (":queues", *_LEVELS, *_SCHEDULES, ":stream:returned", ":dead", ":delayed", ":paused", ":channels")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name the servers that are used, and say why others are not."""
    if all("unit" in argument for argument in config.args):
        return []
    missing = [f"  not {name}: {reason}" for name, reason in servers.unavailable().items()]
    return [f"servers: {', '.join(servers.available())}", *missing]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for ``any_server`` on each server."""
    if "any_server" in metafunc.fixturenames:
        metafunc.parametrize("any_server", servers.available(), indirect=True, scope="session")


def pytest_configure() -> None:
    """Have processes that tests start heed SIGINT, which a shell that runs the tests in the background ignores."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep the garbage collector, which follows every test, from looking through all modules each time."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail an async test that leaves a task of asyncio's running."""
    test = getattr(item, "obj", None)
    if not inspect.iscoroutinefunction(test):
        return

    @functools.wraps(test)
    async def leaving_nothing(*args: object, **kwargs: object) -> None:
        await test(*args, **kwargs)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks are left: {left}"

    item.obj = leaving_nothing  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def _servers() -> Iterator[servers.Servers]:
    started = servers.Servers()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def any_server(request: pytest.FixtureRequest, _servers: servers.Servers) -> str:
    return _servers.url(request.param)


@pytest.fixture
async def app(server_url: str) -> AsyncIterator[StreamQ]:
    """Give an app without tasks; what it has opened is closed at the end."""
    async with StreamQ(server_url) as opened:
        yield opened


@pytest.fixture
def connection(request: pytest.FixtureRequest) -> Iterator[SyncConnection]:
    """Connect to the server of the test, which is empty at first, and must be left in order."""
    url = request.getfixturevalue("server_url")
    opened = SyncConnection(url)
    yield opened
    opened.close()


@pytest.fixture
def server_url(request: pytest.FixtureRequest, _servers: servers.Servers) -> Iterator[str]:
    """Give the URL of an empty server; the embedded one, unless the test also asks for ``any_server``."""
    all_of_them = "any_server" in request.fixturenames
    url = request.getfixturevalue("any_server") if all_of_them else _servers.url(servers.EMBEDDED)
    connection = SyncConnection(url)
    connection.client.execute_command("FLUSHALL")
    yield url
    strays = _strays(connection)
    connection.close()
    assert not strays, f"keys without owner or time to live: {strays}"


def _strays(connection: SyncConnection) -> list[str]:
    """Find keys that nobody will ever delete: no time to live, not permanent, and no task that is still to end.

    What a channel keeps has a time to live, unless its `max_age` is None: tests call such a channel ``forever``. The
    index of a queue's flows stays, but of each flow it has to say until when it is kept, as soon as that has ended.
    """
    run = connection.client.execute_command
    found = []

    def has_flow(queue: str, flow_id: str) -> bool:
        return run("HGET", f"{queue}:task:{flow_id}", "state") == b"running"

    for key in run("KEYS", "*"):
        name = key.decode()
        if name.endswith(_PERMANENT) or ":channel:{forever" in name or run("PTTL", key) != -1:
            continue
        if ":task:" in name and run("HGET", key, "state") in (b"queued", b"delayed", b"held", b"running"):
            continue
        queue, _, part = name.partition(":flow:")
        if part and has_flow(queue, part.rpartition(":")[0]):
            continue
        if name.endswith(":outbox"):
            noted = [one.decode() for one in run("ZRANGE", key, 0, -1)]
            found += [f"{name}: {one}" for one in noted if not has_flow(name[:-7], one.removeprefix("flow:"))]
            continue
        if name.endswith(":flows"):
            kept = run("ZRANGEBYSCORE", key, "+inf", "+inf")
            found += [f"{name}: {one.decode()}" for one in kept if not has_flow(name[:-6], one.decode())]
            continue
        found.append(name)
    return found


@pytest.fixture
def streamq(server_url: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Give a function that runs a command to its end."""
    return functools.partial(commands.run, server_url)


@pytest.fixture
def private_server(tmp_path: Path) -> Iterator[Callable[..., servers.PrivateServer]]:
    """Start servers with options of the test's choice; they are killed at the end."""
    started: list[servers.PrivateServer] = []

    def make(*options: str) -> servers.PrivateServer:
        folder = tmp_path / f"server-{len(started)}"
        folder.mkdir()
        started.append(servers.PrivateServer(folder, *options))
        return started[-1]

    yield make
    for server in started:
        server.stop()


@pytest.fixture
def start_worker(server_url: str) -> Iterator[Callable[..., Worker]]:
    """Start workers of the test's server; they are stopped at the end."""
    started: list[Worker] = []

    def start(app: str, *options: str, **more: object) -> Worker:
        worker = Worker(app, server_url, *options, **more)  # type: ignore[arg-type]
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.stop()


@pytest.fixture
def start_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Node]]:
    """Start servers that a test may freeze and kill; they are gone at its end."""
    started: list[Node] = []

    def start(*options: str | int, **more: object) -> Node:
        started.append(Node(tmp_path_factory.mktemp("node") / "data", *options, **more))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for node in started:
        node.close()


@pytest.fixture
def load_app_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], ModuleType]]:
    """Import a module of ``tests/apps`` anew, so that its app uses a given server."""
    loaded: list[ModuleType] = []

    def load(name: str, url: str) -> ModuleType:
        monkeypatch.setenv("STREAMQ_URL", url)
        sys.modules.pop(name, None)
        loaded.append(importlib.import_module(name))
        return loaded[-1]

    yield load
    for module in loaded:
        module.app.close()


@pytest.fixture
def basic(load_app_at: Callable[[str, str], ModuleType], server_url: str) -> ModuleType:
    """Give the module of simple tasks."""
    return load_app_at("tests.apps.basic", server_url)


@pytest.fixture
def stubborn(load_app_at: Callable[[str, str], ModuleType], server_url: str) -> ModuleType:
    """Give the module of tasks that fail, hang, kill and are killed."""
    return load_app_at("tests.apps.stubborn", server_url)


@pytest.fixture
def limited(load_app_at: Callable[[str, str], ModuleType], server_url: str) -> ModuleType:
    """Give the module of tasks with limits and orders."""
    return load_app_at("tests.apps.limited", server_url)


@pytest.fixture
def flows(load_app_at: Callable[[str, str], ModuleType], server_url: str) -> ModuleType:
    """Give the module of tasks that are put together."""
    return load_app_at("tests.apps.flows", server_url)


@pytest.fixture
def rest(connection: SyncConnection) -> Callable[[], None]:
    """Give a function that waits until nothing is to be done for flows, and all that is of them has a time to live."""
    run = connection.client.execute_command

    def at_rest() -> bool:
        keys = [key for key in run("KEYS", "sq:*") if b":flow:" in key or b":task:" in key]
        return not run("KEYS", "sq:*:outbox") and all(run("PTTL", key) != -1 for key in keys)

    return lambda: until(at_rest, why=f"left: {run('KEYS', '*')}") and None


@pytest.fixture
def marked(tmp_path: Path) -> tuple[Path, Path]:
    """Give a file that tasks write their process id to when they start, and one whose appearance ends them."""
    marker, ready = tmp_path / "started", tmp_path / "ready"
    marker.touch()
    return marker, ready


@pytest.fixture
def dead(connection: SyncConnection) -> Callable[[], dict[str, dict[bytes, bytes]]]:
    """Give a function that reads the dead letters, by the ids of their tasks."""

    def read() -> dict[str, dict[bytes, bytes]]:
        letters = [fields for _, fields in connection.client.execute_command("XRANGE", "sq:{default}:dead", "-", "+")]
        named = [dict(zip(fields[::2], fields[1::2], strict=True)) for fields in letters]
        return {letter[b"id"].decode(): letter for letter in named}

    return read


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Fail a test that leaves a thread of streamq's or, by way of a ResourceWarning, a socket."""
    before = set(threading.enumerate())
    yield
    ours = [t for t in threading.enumerate() if t not in before and t.name.startswith("streamq")]
    until(lambda: not any(thread.is_alive() for thread in ours), seconds=3, why=f"threads are left: {ours}")
    gc.collect()
