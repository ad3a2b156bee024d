"""What a real worker answers to probes and to Prometheus."""

from __future__ import annotations

import os
import re
import signal
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.workers import until

APP = "tests.apps.heavy:app"


@pytest.fixture
def heavy(load_app_at, server_url):
    return load_app_at("tests.apps.heavy", server_url)


def value(ask, name):
    """Return the value of a metric that has no labels."""
    return float(re.search(rf"^{name} (\S+)$", ask("/metrics")[1], re.MULTILINE)[1])


@pytest.fixture
def start_with_health(start_worker):
    """Give a function that starts a worker, and returns it and a function that asks it: status and body."""

    def start(*options):
        worker = start_worker(APP, "--health-port", "0", "--health-host", "127.0.0.1", *options)
        address = re.search(r"http://[\d.:]+", worker.log)[0]

        def ask(path):
            try:
                with urlopen(address + path, timeout=5) as answer:  # noqa: S310 - our own
                    return answer.status, answer.read().decode()
            except HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        return worker, ask

    return start


def test_a_worker_answers_probes(heavy, start_with_health, tmp_path):
    """Alive and ready while it works; while it stops it is not ready any more, but alive."""
    worker, ask = start_with_health()
    until(lambda: ask("/ready") == (200, "ok\n"))
    assert ask("/live") == (200, "ok\n")
    result = heavy.until_there.delay(tmp_path / "started", tmp_path / "there")
    until((tmp_path / "started").exists)
    worker.process.terminate()
    until(lambda: ask("/ready") == (503, "the worker is stopping\n"))
    assert ask("/live") == (200, "ok\n")
    (tmp_path / "there").touch()
    assert worker.process.wait(timeout=10) == 0
    assert result.get(timeout=1) == 1


def test_a_full_worker_is_ready(heavy, start_with_health, tmp_path):
    """It reads nothing, but it could talk to Redis: its sweeps succeed."""
    _, ask = start_with_health("--concurrency", "1", "--threads", "1")
    blocker = [heavy.until_there.delay(tmp_path / "started", tmp_path / "there") for _ in range(3)]
    until((tmp_path / "started").exists)
    until(lambda: value(ask, "streamq_tasks_running") == 1)
    until(lambda: value(ask, "streamq_last_contact_age_seconds") > 1)
    until(lambda: value(ask, "streamq_last_contact_age_seconds") < 0.9)
    assert ask("/ready")[0] == 200
    (tmp_path / "there").touch()
    [result.get(timeout=10) for result in blocker]


def test_a_blocked_loop_shows(heavy, start_with_health):
    """In the answer to the probe while it lasts, and in the metrics for good."""
    _, ask = start_with_health()
    result = heavy.block.delay(3)
    until(lambda: ask("/live")[0] == 503)
    assert re.fullmatch(r"the event loop of \S+ has been blocked for \d\.\d s\n", ask("/live")[1])
    result.get(timeout=10)
    until(lambda: ask("/live") == (200, "ok\n"))
    until(lambda: value(ask, "streamq_loop_blocked_total") == 1)
    assert value(ask, "streamq_loop_blocked_seconds_total") > 2.5


def test_counts_survive_the_children(heavy, start_with_health):
    """What children counted that were killed or replaced stays in the sums, with the reason of their end."""
    worker, ask = start_with_health("--max-tasks-per-child", "5")
    [first] = worker.children
    [heavy.quick.delay(n).get(timeout=10) for n in range(5)]
    until(lambda: 'streamq_child_restarts_total{reason="max_tasks"} 1.0' in ask("/metrics")[1])
    until(lambda: first not in worker.children)
    assert value(ask, "streamq_tasks_fetched_total") == 5
    [second] = worker.children
    os.kill(second, signal.SIGKILL)
    until(lambda: 'streamq_child_restarts_total{reason="died"} 1.0' in ask("/metrics")[1])
    heavy.quick.delay(6).get(timeout=10)
    until(lambda: value(ask, "streamq_tasks_fetched_total") == 6)
