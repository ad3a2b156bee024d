"""What a supervisor makes of what its children report, and how it answers probes."""

from __future__ import annotations

import sys
from dataclasses import asdict
from http.client import HTTPConnection

import pytest

from streamq import ConfigError
from streamq.config import WorkerSettings
from streamq.worker import reporter
from streamq.worker.health import Health
from streamq.worker.metrics import Counters, Vitals
from streamq.worker.outage import Outage
from streamq.worker.reporter import Reporter
from streamq.worker.tally import Tally

WELL = Vitals(running=1, capacity=10, silence=0.5, lag=0.001, blocked=0.0, stuck=0)


def report(*counted, **different):
    return {"vitals": asdict(WELL) | different, "counted": [list(one) for one in counted]}


@pytest.fixture
def tally():
    """Give what a supervisor knows of one child, which is well."""
    made = Tally()
    made.begun("w-0")
    made.reported("w-0", report())
    return made


# ---- the verdicts


def test_a_worker_that_is_well(tally):
    assert tally.troubles() == []
    assert tally.hindrances() == []


def test_a_worker_that_begins_is_alive_but_not_ready():
    """As long as its app is loaded, or Redis is away, a restart would not help."""
    tally = Tally()
    assert tally.troubles() == []
    assert tally.hindrances() == ["no child has begun to work"]
    tally.begun("w-0")
    assert tally.hindrances() == ["w-0 has not reached Redis"]


@pytest.mark.parametrize(
    ("different", "said"),
    [
        ({"stuck": 2}, "w-0 runs 2 tasks past their time limit that cannot be ended"),
        ({"blocked": 2.34}, "the event loop of w-0 has been blocked for 2.3 s"),
    ],
)
def test_a_child_that_hangs_is_not_well(tally, different, said):
    tally.reported("w-0", report(**different))
    assert tally.troubles() == [said]
    tally.reported("w-0", report())
    assert tally.troubles() == []


def test_a_child_that_reports_nothing_is_not_well(tally):
    """Unless it is to end, when it has no more to report."""
    tally._known["w-0"].at -= 6
    assert tally.troubles() == ["w-0 has reported nothing for 6 s"]
    tally.stopping = True
    assert tally.troubles() == []


def test_a_supervisor_that_hangs_is_not_well(tally):
    tally.turned -= 60
    assert tally.troubles() == ["the supervisor has done nothing for 60 s"]


def test_one_child_that_reaches_redis_is_enough(tally):
    tally.reported("w-1", report(silence=60))
    assert tally.hindrances() == []
    tally.ended("w-0")
    assert tally.hindrances() == ["w-1 has not reached Redis for 60 s"]


def test_a_child_that_was_replaced_takes_nothing(tally):
    """It counts for what it runs, not for what it could."""
    tally.leaves("w-0", "max_tasks")
    assert tally.hindrances() == ["no child has begun to work"]
    assert (tally.gauges()["running"], tally.gauges()["capacity"]) == (1, 0)


def test_a_worker_that_stops_is_not_ready(tally):
    tally.stopping = True
    assert tally.hindrances() == ["the worker is stopping"]


def test_sums_outlive_children(tally):
    """They only grow, however many children come and go."""
    tally.reported("w-0", report(("succeeded", "a", 3), ("outages", "", 1)))
    tally.reported("w-0", report(("succeeded", "a", 2)))
    tally.ended("w-0")
    tally.begun("w-1")
    tally.reported("w-1", report(("succeeded", "a", 1)))
    assert tally.counted == {("succeeded", "a"): 6, ("outages", ""): 1}


# ---- what children report


class Runs:
    """What a reporter asks of an executor."""

    def __init__(self):
        self.ended = self.busy = self.stuck = 0
        self.capacity = 116


@pytest.fixture
def runs():
    return Runs()


def reporter_of(runs, **bounds):
    return Reporter(WorkerSettings(**bounds), runs, Outage(), Counters())


def test_a_report_has_what_is_new(runs):
    """Counters are told by how much they have grown, so that none is lost or counted twice."""
    told = reporter_of(runs)
    told._counters["succeeded", "a"] += 2
    assert told.report(lag=0.1, blocked=0.0)["counted"] == [["succeeded", "a", 2]]
    told._counters["succeeded", "a"] += 1
    told._counters["failed", "a"] += 1
    assert told.report(lag=0.1, blocked=0.0)["counted"] == [["succeeded", "a", 1], ["failed", "a", 1]]
    assert told.report(lag=0.1, blocked=0.0)["counted"] == []


def test_how_long_redis_has_not_answered_is_reported(runs):
    told = reporter_of(runs)
    assert told.report(lag=0, blocked=0)["vitals"]["silence"] is None
    told._outage.hear()
    assert 0 <= told.report(lag=0, blocked=0)["vitals"]["silence"] < 1


def test_a_process_without_bounds_stays(runs):
    runs.ended = 10**9
    assert reporter_of(runs).reason_to_go() is None


def test_a_process_asks_once_to_be_replaced(runs):
    told = reporter_of(runs, max_tasks_per_child=5)
    runs.ended = 4
    assert told.reason_to_go() is None
    runs.ended = 6
    assert told.reason_to_go()[0] == "max_tasks"
    assert told.reason_to_go() is None


def test_a_process_that_was_too_large_from_the_start_does_something_first(runs):
    """Else each would be replaced by the next before it has run a task."""
    told = reporter_of(runs, max_memory_per_child=1)
    assert told.reason_to_go() is None
    runs.ended = 1
    assert told.reason_to_go()[0] == "max_memory"


def test_memory_is_counted_in_mib():
    """The unit of the system's figure depends on the system."""
    assert 10 < reporter.peak_memory() < 10_000


def test_tasks_that_cannot_be_ended_cost_their_process(runs, caplog):
    """When they go on for too long; it is said once that they do, and when they have ended."""
    caplog.set_level("INFO", "streamq.worker")
    told = reporter_of(runs, stuck_after=60)
    runs.stuck = 2
    assert told.reason_to_go() is None
    assert told.reason_to_go() is None
    assert caplog.messages == ["2 tasks go on in spite of their time limit; if so for 60 s, this process is replaced"]
    runs.stuck = 0
    assert told.reason_to_go() is None
    assert len(caplog.messages) == 2
    runs.stuck = 1
    assert told.reason_to_go() is None
    told._stuck_since -= 61
    assert told.reason_to_go()[0] == "stuck"


# ---- over HTTP


@pytest.fixture
def ask(tally):
    """Give a function that asks the server: status, type and body."""
    health = Health(tally, "127.0.0.1", 0)
    health.start()

    def ask(path, method="GET"):
        caller = HTTPConnection(health.address.removeprefix("http://"), timeout=5)
        caller.request(method, path)
        answer = caller.getresponse()
        body = answer.read().decode()
        caller.close()
        return answer.status, answer.headers["Content-Type"].partition(";")[0], body

    yield ask
    health.close()


def test_probes_of_a_worker_that_is_well(ask):
    assert ask("/live") == (200, "text/plain", "ok\n")
    assert ask("/ready?verbose=1") == (200, "text/plain", "ok\n")


def test_probes_say_why(ask, tally):
    """One reason a line."""
    tally.reported("w-0", report(stuck=1, blocked=3, silence=9))
    status, _, body = ask("/live")
    assert status == 503
    assert len(body.splitlines()) == 2
    assert ask("/ready") == (503, "text/plain", "w-0 has not reached Redis for 9 s\n")


def test_other_questions_are_refused(ask):
    assert ask("/") == (404, "text/plain", "there are /live, /ready and /metrics\n")
    assert ask("/live", "POST")[0] == 405
    assert ask("/live", "BREW")[0] == 501
    assert ask("/live", "HEAD") == (200, "text/plain", "")


def test_metrics(ask, tally):
    """In Prometheus' text format: counters end in _total, times are seconds."""
    tally.reported(
        "w-0", report(("succeeded", "shop.buy", 3), ("retried", "shop.buy", 1), ("loop_blocked_ms", "", 1500))
    )
    tally.restarted("max_memory")
    status, kind, body = ask("/metrics")
    assert (status, kind) == (200, "text/plain")
    lines = body.splitlines()
    assert 'streamq_tasks_total{outcome="succeeded",task="shop.buy"} 3.0' in lines
    assert 'streamq_tasks_total{outcome="retried",task="shop.buy"} 1.0' in lines
    assert 'streamq_child_restarts_total{reason="max_memory"} 1.0' in lines
    assert "streamq_loop_blocked_seconds_total 1.5" in lines
    assert "streamq_tasks_running 1.0" in lines
    assert "streamq_tasks_capacity 10.0" in lines
    assert "streamq_tasks_fetched_total 0.0" in lines


def test_metrics_need_an_extra(ask, monkeypatch):
    """Without it one line says what to install; probes work all the same."""
    monkeypatch.setitem(sys.modules, "prometheus_client.exposition", None)
    assert ask("/metrics") == (
        501,
        "text/plain",
        "metrics need prometheus-client: pip install 'streamq[prometheus]'\n",
    )
    assert ask("/live")[0] == 200


def test_a_port_that_is_taken(tally):
    """One clear error, before any child is started."""
    first = Health(tally, "127.0.0.1", 0)
    port = int(first.address.rpartition(":")[2])
    try:
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port} for --health-port"):
            Health(tally, "127.0.0.1", port)
    finally:
        first._server.server_close()


def test_by_default_all_addresses_are_served(tally):
    """Also over IPv4 where there is IPv6."""
    health = Health(tally, None, 0)
    health.start()
    caller = HTTPConnection("127.0.0.1", int(health.address.rpartition(":")[2]), timeout=5)
    caller.request("GET", "/live")
    assert caller.getresponse().status == 200
    caller.close()
    health.close()
