"""Runs the stored nodes of a flow by the rules of flows, as workers would, without Redis: what a flow comes to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from streamq.nodes import Join, Like, Spec, read_like, read_spec, read_start
from streamq.refs import count, each
from streamq.sending import read_steering
from streamq.workflows.canvas import Step
from streamq.workflows.graph import Graph


class Failed(Exception):
    """Raised by a function that a test has fail."""


FAILURE = "a failure"


@dataclass
class Stored:
    """A graph as it is stored."""

    graph: Graph
    nodes: dict[int, Spec | Join] = field(default_factory=dict)
    likes: dict[int, Like] = field(default_factory=dict)
    start: list[int] = field(default_factory=list)
    states: Counter[int] = field(default_factory=Counter)

    def tasks(self) -> dict[int, Like]:
        """What the task nodes are like, by their numbers."""
        return {number: self.likes[node.like] for number, node in self.nodes.items() if isinstance(node, Spec)}

    def part(self, number: int):
        return read_steering(self.tasks()[number].options).flow

    def edges(self) -> Counter[tuple[int, int]]:
        """Whom each node tells; -1: the start."""
        found = Counter((-1, to) for to in self.start)
        for number, node in self.nodes.items():
            found.update((number, to) for to in (*each(node.to), *each(node.err)))
        return found


def store(what: Step[Any, Any] | Graph, **options: Any) -> Stored:
    """Draw all of a graph."""
    graph = what if isinstance(what, Graph) else what.to_graph(**options)
    stored = Stored(graph)
    for chunk in graph.chunks():
        for name, value in chunk.fields:
            kind, _, number = name.partition(":")
            if name == "start":
                assert not stored.start
                stored.start = [*each(read_start(value))]
            elif kind == "like":
                assert int(number) not in stored.likes
                stored.likes[int(number)] = read_like(value)
            else:
                assert int(name) not in stored.nodes
                stored.nodes[int(name)] = read_spec(value)
        for first, states in chunk.states:
            assert set(states) == {"w"}
            stored.states.update(range(first, first + len(states)))
    return stored


class Run:
    """Runs a stored graph to its end.

    Args:
        stored: the graph.
        call: runs a task, by its name and its encoded arguments.
    """

    def __init__(self, stored: Stored, call: Callable[[str, bytes], Any]) -> None:
        self._stored = stored
        self._call = call
        self._waits = {number: node.deps for number, node in stored.nodes.items()}
        self.states: dict[int, str] = {}
        self.values: dict[int, Any] = {}
        self._todo: list[tuple[str, int, int]] = [("arrives", to, -1) for to in stored.start]
        while self._todo:
            what, node, source = self._todo.pop()
            if node not in self.states:
                getattr(self, f"_{what}")(node, source)

    def _arrives(self, number: int, _source: int) -> None:
        self._waits[number] -= 1
        assert self._waits[number] >= 0
        if self._waits[number]:
            return
        node = self._stored.nodes[number]
        values = [(self.states[one], self.values.get(one, FAILURE)) for one in each(node.inputs)]
        if isinstance(node, Join):
            kept = [value for state, value in values if state == "s" or node.policy == "collect"]
            self._ends(number, "s", kept)
            return
        args = node.args
        if count(node.inputs):
            head = b'{"*":[' if args.endswith(b"}") else b"["
            args = head + b",".join(json.dumps(value).encode() for _, value in values) + args
        try:
            value = self._call(self._stored.likes[node.like].task, args)
        except Failed:
            self._ends(number, "f", FAILURE)
        else:
            self._ends(number, "s", value)

    def _fails(self, number: int, source: int) -> None:
        node = self._stored.nodes[number]
        if isinstance(node, Join) and node.policy != "fail" and source in each(node.inputs):
            self._arrives(number, source)
        else:
            self._ends(number, "k", FAILURE)

    def _omitted(self, number: int, _source: int) -> None:
        self._ends(number, "o", None)

    def _ends(self, number: int, state: str, value: Any) -> None:
        self.states[number], self.values[number] = state, value
        node = self._stored.nodes[number]
        to, err = {"s": ("arrives", "omitted"), "o": ("omitted", "omitted")}.get(state, ("fails", "arrives"))
        self._todo += [(to, one, number) for one in each(node.to)]
        self._todo += [(err, one, number) for one in each(node.err)]

    @property
    def outcome(self) -> tuple[str, Any]:
        """The state and the value of the whole."""
        out = self._stored.graph.out
        return self.states[out], self.values[out]
