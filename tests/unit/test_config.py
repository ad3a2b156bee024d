"""Names and settings are checked when they are made."""

from __future__ import annotations

import math

import pytest

from streamq import StreamQ
from streamq.config import DEFAULT_URL, Settings, WorkerSettings, check_name, check_task_id
from streamq.errors import ConfigError

BAD_NAMES = ["", "a:b", "{a}", "a b", "-a", ".a", "a*", "a?", "a[b]", "ü", "a\n", "x" * 129, None, 5, b"a"]


@pytest.mark.parametrize("name", ["default", "a", "0", "_a", "A.b-c_d", "x" * 128])
def test_a_name_that_can_be_part_of_a_key(name):
    assert check_name("queue", name) == name


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_cannot_be_part_of_a_key(name):
    """What has a meaning in keys, hash tags or Pub/Sub patterns is refused, and the message says for what."""
    with pytest.raises(ConfigError, match="queue name"):
        check_name("queue", name)


@pytest.mark.parametrize("task_id", ["1", "order:17", "{x}", "a/b?c=*", "~" * 200])
def test_a_task_id_can_be_any_printable_ascii(task_id):
    assert check_task_id(task_id) == task_id


@pytest.mark.parametrize("task_id", ["", "a b", "a\n", "ü", "\x7f", "x" * 201, None, 17, b"a"])
def test_a_task_id_that_cannot_be_used(task_id):
    with pytest.raises(ConfigError, match="task id"):
        check_task_id(task_id)


def test_the_url_comes_from_the_environment(monkeypatch):
    """``$STREAMQ_URL`` is used where no URL is given; empty is as good as not set."""
    monkeypatch.setenv("STREAMQ_URL", "redis://elsewhere/3")
    assert Settings().url == "redis://elsewhere/3"
    assert StreamQ().settings.url == "redis://elsewhere/3"
    assert StreamQ("redis://here").settings.url == "redis://here"
    monkeypatch.setenv("STREAMQ_URL", "")
    assert Settings().url == DEFAULT_URL


@pytest.mark.parametrize("name", ["result_ttl", "max_payload", "max_result", "max_stream"])
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_a_setting_of_an_app_that_cannot_be_used(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be a"):
        Settings(**{name: value})


@pytest.mark.parametrize("name", BAD_NAMES[:8])
def test_a_namespace_is_a_name(name):
    with pytest.raises(ConfigError, match="namespace"):
        StreamQ("redis://x", namespace=name)


@pytest.mark.parametrize(
    "given",
    [{"result_ttl": math.inf}, {"result_ttl": "1 h"}, {"max_payload": None}, {"result_ttl": 0.0001}],
    ids=str,
)
def test_a_setting_that_fails_later_is_refused_at_once(given):
    """No end, another type, or what would be 0 ms in Redis."""
    with pytest.raises(ConfigError):
        Settings(**given)


def test_a_worker_has_a_name_and_a_queue():
    """By default a worker is called like its host and serves the default queue."""
    settings = WorkerSettings()
    assert check_name("worker", settings.name) == settings.name
    assert settings.queues == ("default",)


@pytest.mark.parametrize("queues", [(), ("a", "a"), ("a", "b", "a"), ("a:b",), ("",)])
def test_queues_of_a_worker_are_different_names(queues):
    with pytest.raises(ConfigError, match="queue"):
        WorkerSettings(queues=queues)


@pytest.mark.parametrize("name", ["concurrency", "threads", "processes", "lease"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_setting_of_a_worker_that_cannot_be_used(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be a"):
        WorkerSettings(**{name: value})


def test_a_worker_may_have_no_grace():
    assert WorkerSettings(grace=0).grace == 0
    with pytest.raises(ConfigError, match="grace"):
        WorkerSettings(grace=-1)
