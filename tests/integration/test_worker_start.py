"""What a worker says when it starts, when it cannot start, and when its server goes and returns."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import redis

from streamq import BrokerUnavailable
from tests.workers import ROOT, Worker, until

APP = "tests.apps.basic:app"


def run_worker(app, url, *options, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "streamq", "worker", app, *options],
        env={**os.environ, "STREAMQ_URL": url},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_the_banner(any_server, server_url, start_worker):
    """One block says what is served, from where, and what the server is."""
    log = start_worker(APP, "--queues", "default,mail", "--name", "web-1").log
    assert "worker 'web-1' is ready" in log
    assert "tests.apps.basic.add" in log
    assert "default, mail" in log
    assert server_url in log
    assert "(Redis " in log or "(Valkey " in log


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("no.such.module:app", "there is no module 'no'"),
        ("tests.apps.no_such:app", "there is no module 'tests.apps.no_such'"),
        ("tests.apps.basic:nothing", "has no attribute 'nothing'"),
        ("tests.apps.basic:add", "is a AsyncTask, not a StreamQ app"),
        ("tests.apps.broken:app", "ZeroDivisionError: division by zero"),
        ("tests.apps.untyped:app", "Nowhere"),
    ],
)
def test_an_app_that_cannot_be_served(server_url, app, said):
    """A wrong module, attribute or annotation gets one clear line, exit code 2 and no traceback."""
    done = run_worker(app, server_url)
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("streamq: ")
    assert said in line


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://localhost", "must begin with one of redis://"),
        ("localhost:6379", "must begin with one of redis://"),
        ("redis://localhost:port/0", "cannot use the URL"),
        ("embedded://", "needs a folder"),
    ],
)
def test_a_url_that_cannot_be_used(url, said):
    """A URL of no known form gets one clear line and exit code 2."""
    done = run_worker(APP, url)
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert said in line


def test_a_wrong_password(private_server):
    """A password that the server refuses gets one clear line, which does not repeat it, and exit code 2."""
    server = private_server("--requirepass", "right")
    for credentials in ("", ":wrong@"):
        done = run_worker(APP, f"redis://{credentials}127.0.0.1:{server.port}/0")
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1, done.stderr
        line = done.stderr
        assert "127.0.0.1" in line
        assert "wrong@" not in line


def test_something_else_than_redis():
    """A port where something else answers gets one clear line and exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"redis://127.0.0.1:{other.getsockname()[1]}/0"
        worker = subprocess.Popen(
            [sys.executable, "-m", "streamq", "worker", APP],
            env={**os.environ, "STREAMQ_URL": url},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        caller, _ = other.accept()
        with caller:
            caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            _, said = worker.communicate(timeout=20)
    assert worker.returncode == 2
    assert "not a Redis server" in said


@pytest.mark.parametrize(
    "options", [["--concurrency", "0"], ["--lease", "0"], ["--queues", "a b"], ["--queues", "a,a"], ["--name", "x:y"]]
)
def test_options_that_cannot_be_used(options):
    """A wrong option gets a clear line and exit code 2, before anything is started."""
    done = run_worker(APP, "redis://localhost:1", *options)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_redis_goes_and_returns(private_server, monkeypatch, load_app_at):
    """A worker waits for its server, at the start and later, says so once, and carries on."""
    server = private_server()
    url = f"redis://127.0.0.1:{server.port}/0"
    server.kill()
    worker = Worker(APP, url, ready=False)
    try:
        worker.until_logged("Redis is away")
        server.start()
        worker.until_logged("is ready")
        basic = load_app_at("tests.apps.basic", url)
        assert basic.add.delay(1, 2).get(timeout=10) == 3
        kept = basic.add.using(countdown=0.5).delay(2, 2)
        server.kill()
        until(lambda: worker.log.count("Redis is away") == 2)
        server.start()
        worker.until_logged("Redis is back")
        assert kept.get(timeout=10) == 4
        assert worker.log.count("Redis is away") == 2
    finally:
        worker.stop()


def test_a_worker_without_redis_is_alive_but_not_ready(private_server):
    """To start it anew would not help; it is ready when Redis is there, and no more when it has gone."""

    def status(path):
        try:
            with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status
        except HTTPError as error:
            error.close()
            return error.code

    server = private_server()
    server.kill()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    worker = Worker(APP, f"redis://127.0.0.1:{server.port}/0", "--health-port", str(port), ready=False)
    try:
        worker.until_logged("Redis is away")
        assert (status("/live"), status("/ready")) == (200, 503)
        server.start()
        until(lambda: status("/ready") == 200)
        server.kill()
        until(lambda: status("/ready") == 503)
        assert status("/live") == 200
    finally:
        worker.stop()


def test_a_port_for_probes_that_is_taken(server_url):
    """It gets one clear line and exit code 2, before anything is started."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run_worker(APP, server_url, "--health-host", "127.0.0.1", "--health-port", str(port))
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert line.startswith(f"streamq: cannot listen on 127.0.0.1:{port} for --health-port")


def test_outcomes_wait_for_redis(private_server, load_app_at, tmp_path):
    """A task that ends while Redis is away is committed when it returns, and not run again."""
    server = private_server()
    url = f"redis://127.0.0.1:{server.port}/0"
    worker = Worker(APP, url)
    marker, ready = tmp_path / "marker", tmp_path / "ready-file"
    try:
        basic = load_app_at("tests.apps.basic", url)
        result = basic.until_file.delay(marker, ready)
        until(marker.exists)
        server.kill()
        ready.touch()
        worker.until_logged("Redis is away")
        server.start()
        assert result.get(timeout=10) == 1
        assert len(marker.read_text().splitlines()) == 1
    finally:
        worker.stop()


def test_outcomes_wait_for_permission(private_server, load_app_at, tmp_path):
    """An outcome that Redis refuses to take for lack of permission is kept, and committed once it is granted."""
    server = private_server()
    url = f"redis://127.0.0.1:{server.port}/0"
    worker = Worker(APP, url)
    marker, ready = tmp_path / "marker", tmp_path / "ready-file"
    try:
        with redis.Redis(port=server.port) as admin:
            basic = load_app_at("tests.apps.basic", url)
            result = basic.until_file.delay(marker, ready)
            until(marker.exists)
            admin.execute_command("ACL", "SETUSER", "default", "-evalsha")
            ready.touch()
            worker.until_logged("no permissions")
            admin.execute_command("ACL", "SETUSER", "default", "+evalsha")
        assert result.get(timeout=10) == 1
        assert len(marker.read_text().splitlines()) == 1
    finally:
        worker.stop()


def test_a_producer_waits_for_redis(private_server, load_app_at):
    """``delay()`` bears it that the server is restarted."""
    server = private_server()
    url = f"redis://127.0.0.1:{server.port}/0"
    basic = load_app_at("tests.apps.basic", url)
    basic.add.delay(1, 1)
    server.kill()
    server.start()
    basic.add.delay(2, 2)
    with redis.Redis(port=server.port) as client:
        assert client.xlen("sq:{default}:stream:5") == 2


def test_a_producer_that_gives_up_says_the_id(private_server, load_app_at):
    """When Redis stays away, the error says with which id it is safe to try again."""
    server = private_server()
    basic = load_app_at("tests.apps.basic", f"redis://127.0.0.1:{server.port}/0")
    server.kill()
    with pytest.raises(BrokerUnavailable) as caught:
        basic.add.using(task_id="order-18").delay(1, 1)
    assert "order-18" in caught.value.__notes__[0]


def test_several_processes(server_url, start_worker, basic):
    """With ``--processes`` each child serves; a killed one is replaced."""
    worker = start_worker(APP, "--processes", "3")
    until(lambda: len(worker.children) == 3)
    victim = worker.children[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(worker.children) == 3 and victim not in worker.children)
    results = basic.app.enqueue_many(basic.add.s(i, 1) for i in range(500))
    assert [result.get(timeout=10) for result in results] == [i + 1 for i in range(500)]


def test_consumers_are_removed(server_url, start_worker, basic, connection):
    """A worker that has stopped leaves no consumer behind, whether it stopped in order or its child was killed."""

    def consumers():
        found = connection.client.execute_command("XINFO", "CONSUMERS", "sq:{default}:stream:5", "workers")
        return len(found)

    worker = start_worker(APP)
    assert basic.add.delay(1, 1).get(timeout=10) == 2
    until(lambda: consumers() == 1)
    [child] = worker.children
    os.kill(child, signal.SIGKILL)
    worker.until_logged("signal SIGKILL")
    until(lambda: len(worker.children) == 1 and worker.children != [child])
    assert basic.add.delay(1, 1).get(timeout=10) == 2
    assert consumers() == 1
    worker.terminate()
    assert consumers() == 0


def test_the_lifespan_is_entered_and_left(server_url, start_worker):
    """Each child enters the app's lifespan before it works, and leaves it when it stops."""
    worker = start_worker(APP)
    worker.until_logged("lifespan entered")
    worker.terminate()
    assert "lifespan left" in worker.log
