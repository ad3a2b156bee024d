"""What is measured, in which order. Rounds take turns, and in each the other side begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.channel_rounds import ChannelRound
from benchmarks.drains import time_drain
from benchmarks.flow_rounds import FlowRound
from benchmarks.machine import Figure
from benchmarks.measures import Measure, measures
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
    chains: int
    members: int
    peer_members: int


class Rounds:
    """Runs the rounds of a plan and collects the figures."""

    def __init__(self, plan: Plan, server: Server, progress: Callable[[str], None], celery: str | None = None) -> None:
        self._plan = plan
        self._server = server
        self._processes = Processes(server, celery)
        self._peers = () if celery is None else ("celery",)
        self._progress = progress
        self.measures = measures()
        self._channels = ChannelRound(server, self._processes, self._add)
        self._flows = FlowRound(server, self._processes, self._add)

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
                ("chains", self._chains),
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
            for side in self._peers:
                self._progress(f"round {number + 1} of {self._plan.rounds}: chains, {side}")
                self._server.clean()
                self._chains(side)
            for side in ("ours", *self._peers):
                self._progress(
                    f"round {number + 1} of {self._plan.rounds}: chords, {'streamq' if side == 'ours' else side}"
                )
                self._chords(side)
        return self.measures

    def _add(self, name: str, side: str, figure: Figure) -> None:
        measure = self.measures[name]
        {"ours": measure.ours, "bare": measure.bare, "celery": measure.celery}[side].append(figure)

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

    def _chains(self, side: str) -> None:
        self._flows.chains(side, self._plan.chains, self._plan.round_trips // 2)

    def _chords(self, side: str) -> None:
        members = self._plan.members if side == "ours" else self._plan.peer_members
        self._server.clean()
        self._flows.chord_memory(side, members)
        self._server.clean()
        self._flows.chords(side, members)

    def _latency(self, side: str) -> None:
        with self._processes.worker() if side == "ours" else self._processes.bare("echo"):
            times = self._processes.job(side, "latency", self._plan.round_trips, beside_server=True)
        for name, value in zip(("latency_p50", "latency_p99"), times, strict=True):
            self._add(name, side, Figure(value, None, None))
