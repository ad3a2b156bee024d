"""What is measured, in which order. Rounds take turns, and in each the other side begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.channel_rounds import ChannelRound
from benchmarks.drains import time_drain
from benchmarks.machine import Figure
from benchmarks.names import BARE_STREAM, QUEUE_STREAM
from benchmarks.processes import Processes
from benchmarks.server import Server


@dataclass(frozen=True)
class Plan:
    """How much is done in each round."""

    rounds: int
    tasks: int
    single: int
    round_trips: int
    few_delayed: int
    many_delayed: int
    messages: int
    stuck_seconds: float


@dataclass
class Measure:
    """The figures of one line of the table, one a round; of a latency the rate is its ms."""

    title: str
    explanation: str
    unit: str = "/s"
    bare: list[Figure] = field(default_factory=list)
    ours: list[Figure] = field(default_factory=list)


def _measures() -> dict[str, Measure]:
    return {
        "enqueue": Measure(
            "enqueue, single",
            "redis-py's XADD of a 100-byte field, against noop.delay(): one round trip each.",
        ),
        "enqueue_many": Measure(
            "enqueue, many",
            "a redis-py pipeline of XADDs, 250 to a round trip, against app.enqueue_many(noop.s() ...).",
        ),
        "drain": Measure(
            "drain, async",
            "XREADGROUP COUNT 100, an asyncio task for each on uvloop, a script that does XACK, XDEL and SET"
            " PX for each, against one worker process that stores results.",
        ),
        "drain_threads": Measure("drain, threads", "the same worker with a task that runs in threads."),
        "promotion_few": Measure(
            "promotion, few",
            "tasks whose time has come are moved to their stream, a hundred in a step, by one process, while a thousand"
            " others wait for theirs.",
        ),
        "promotion_many": Measure("promotion, many", "the same, while a million others wait."),
        "drain_limited": Measure(
            "drain, limited", "the same worker with a task that has a rate and a number of places, which let in all."
        ),
        "latency_p50": Measure(
            "latency p50",
            "XADD, a waiting XREADGROUP in another process, LPUSH and BLPOP, against noop.delay().get();"
            " less is better.",
            unit="ms",
        ),
        "latency_p99": Measure("latency p99", "of the same calls, the slowest in a hundred.", unit="ms"),
        "fair_p50": Measure(
            "fair p50",
            "noop.delay().get() for one tenant, while there are calls of another for the whole time.",
            unit="ms",
        ),
        "tell_p50": Measure(
            "heard p50",
            "from before a message of a channel is published until another process has it: redis-py's asyncio publish"
            " and pubsub.listen() with json, against channel.publish() and channel.listen() with a pydantic model; both"
            " on uvloop.",
            unit="ms",
        ),
        "request_p50": Measure(
            "request p50",
            "agent.request() to an agent of another process, which gets it by its durable inbox, and its reply.",
            unit="ms",
        ),
        "publish": Measure(
            "publish, many",
            "a redis-py pipeline of PUBLISH, 250 to a round trip, against 250 calls of channel.publish() at a time.",
        ),
        "hear": Measure("hear", "the same listeners, of small messages that are published as fast as can be."),
        "hear_many": Measure("hear, many", "a thousand listeners of one process, deliveries to all of them together."),
        "listener_memory": Measure("listener", "memory of each of these thousand listeners.", unit="KB"),
        "stuck": Measure(
            "stuck listener",
            "the most that the server keeps in the buffers of its clients while 5,000 messages of 10 KB a second are"
            " published to a listener that reads nothing. The server closes the connection of the bare one at 32 MB.",
            unit="MB",
        ),
        "stuck_memory": Measure(
            "stuck, memory", "by how much the memory of the server grew at most meanwhile.", unit="MB"
        ),
    }


class Rounds:
    """Runs the rounds of a plan and collects the figures."""

    def __init__(self, plan: Plan, server: Server, progress: Callable[[str], None]) -> None:
        self._plan = plan
        self._server = server
        self._processes = Processes(server)
        self._progress = progress
        self.measures = _measures()
        self._channels = ChannelRound(server, self._processes, self._add)

    def run(self) -> dict[str, Measure]:
        """Run all rounds."""
        for number in range(self._plan.rounds):
            for name, step in (
                ("enqueue", self._enqueue),
                ("drain", self._drain),
                ("latency", self._latency),
                ("publish to hear", lambda side: self._channels.tell(side, self._plan.round_trips)),
                ("publish", lambda side: self._channels.publish(side, self._plan.messages)),
                ("hear", lambda side: self._channels.hear(side, self._plan.messages)),
                ("stuck listener", lambda side: self._channels.stuck(side, self._plan.stuck_seconds)),
            ):
                sides = [True, False] if number % 2 else [False, True]
                for ours in sides:
                    self._progress(
                        f"round {number + 1} of {self._plan.rounds}: {name}, {'streamq' if ours else 'bare'}"
                    )
                    self._server.clean()
                    step("ours" if ours else "bare")
            self._progress(f"round {number + 1} of {self._plan.rounds}: a thousand listeners")
            self._channels.hear_by_many(self._plan.messages // 500)
            self._progress(f"round {number + 1} of {self._plan.rounds}: requests of agents")
            self._server.clean()
            self._channels.ask(self._plan.round_trips)
            self._progress(f"round {number + 1} of {self._plan.rounds}: drain in threads")
            self._server.clean()
            self._drain_filled("drain_threads", "fill_for_threads")
            self._progress(f"round {number + 1} of {self._plan.rounds}: drain with limits")
            self._server.clean()
            self._drain_filled("drain_limited", "fill_limited")
            self._progress(f"round {number + 1} of {self._plan.rounds}: fairness")
            self._server.clean()
            self._fairness()
            for name, waiting in (("few", self._plan.few_delayed), ("many", self._plan.many_delayed)):
                self._progress(f"round {number + 1} of {self._plan.rounds}: promotion, {waiting} others wait")
                self._server.clean()
                self._promotion(name, waiting)
        return self.measures

    def _add(self, name: str, side: str, figure: Figure) -> None:
        measure = self.measures[name]
        (measure.ours if side == "ours" else measure.bare).append(figure)

    def _enqueue(self, side: str) -> None:
        self._add("enqueue", side, Figure(*self._processes.job(side, "enqueue", self._plan.single)))

    def _drain(self, side: str) -> None:
        total = self._plan.tasks
        self._add("enqueue_many", side, Figure(*self._processes.job(side, "enqueue_many", total)))
        if side == "ours":
            with self._processes.worker() as pid:
                figure = time_drain(self._server, QUEUE_STREAM, total, pid)
        else:
            with self._processes.bare("drain") as pid:
                figure = time_drain(self._server, BARE_STREAM, total, pid)
        self._add("drain", side, figure)

    def _drain_filled(self, name: str, fill: str) -> None:
        total = self._plan.tasks // 2
        self._processes.job("ours", fill, total)
        with self._processes.worker() as pid:
            self._add(name, "ours", time_drain(self._server, QUEUE_STREAM, total, pid))

    def _fairness(self) -> None:
        self._processes.job("ours", "fill_one_tenant", self._plan.tasks)
        with self._processes.worker():
            p50, _ = self._processes.job("ours", "latency_of_another", 20, beside_server=True)
        self._add("fair_p50", "ours", Figure(p50, None, None))

    def _promotion(self, name: str, waiting: int) -> None:
        self._processes.job("ours", "fill_delayed", waiting)
        figures = self._processes.job("ours", "promotion", self._plan.tasks // 6)
        self._add(f"promotion_{name}", "ours", Figure(*figures))

    def _latency(self, side: str) -> None:
        with self._processes.worker() if side == "ours" else self._processes.bare("echo"):
            times = self._processes.job(side, "latency", self._plan.round_trips, beside_server=True)
        for name, value in zip(("latency_p50", "latency_p99"), times, strict=True):
            self._add(name, side, Figure(value, None, None))
