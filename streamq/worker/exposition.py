"""The metrics of a worker in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from streamq.errors import MissingExtra
from streamq.worker.tally import Tally

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_OUTCOMES = ("succeeded", "failed", "retried", "dead", "expired", "cancelled", "handed_back", "fenced")

# The name of each counter: what it says, what it is called in the tally, and in which unit that is.
_COUNTERS = {
    "streamq_tasks_fetched": ("Messages read from the streams.", "fetched", 1),
    "streamq_tasks_reclaimed": ("Tasks taken over from workers that gave no sign of life.", "reclaimed", 1),
    "streamq_leases_lost": ("Running tasks that went to another worker.", "leases_lost", 1),
    "streamq_loop_blocked": ("Times that an event loop was blocked for over a second.", "loop_blocked", 1),
    "streamq_loop_blocked_seconds": ("Time for which event loops were blocked.", "loop_blocked_ms", 1000),
    "streamq_outages": ("Times that Redis could not be reached, in each child process.", "outages", 1),
}
_GAUGES = {
    "streamq_children": ("Child processes that take tasks.", "children"),
    "streamq_tasks_running": ("Tasks that run now.", "running"),
    "streamq_tasks_capacity": ("Tasks that can run at a time.", "capacity"),
    "streamq_tasks_stuck": ("Running tasks past their time limit that cannot be ended.", "stuck"),
    "streamq_loop_lag_seconds": ("How long the slowest event loop took to come round of late.", "lag"),
    "streamq_last_contact_age_seconds": ("Since the child that is worst off last read from Redis.", "silence"),
}


def expose(tally: Tally) -> tuple[str, str]:
    """Return the metrics, and the content type of their format.

    Raises:
        MissingExtra: prometheus-client is not installed.
    """
    try:
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingExtra("metrics need prometheus-client: pip install 'streamq[prometheus]'") from None
    return generate_latest(_Source(tally)).decode(), CONTENT_TYPE_LATEST


class _Source:
    """What prometheus-client asks for metrics."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        """Give each metric with its present values."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 - an extra

        counted = self._tally.counted.copy()
        tasks = CounterMetricFamily("streamq_tasks", "Outcomes of runs.", labels=["outcome", "task"])
        restarts = CounterMetricFamily("streamq_child_restarts", "Child processes replaced.", labels=["reason"])
        for (what, of), number in sorted(counted.items()):
            if what in _OUTCOMES:
                tasks.add_metric([what, of], number)
            elif what == "child_restarts":
                restarts.add_metric([of], number)
        yield tasks
        yield restarts
        for name, (says, what, unit) in _COUNTERS.items():
            yield CounterMetricFamily(name, says, value=counted.get((what, ""), 0) / unit)
        gauges = self._tally.gauges()
        for name, (says, what) in _GAUGES.items():
            yield GaugeMetricFamily(name, says, value=gauges[what])
