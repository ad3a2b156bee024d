"""`Flow`: a graph of calls, each of which begins when those before it have succeeded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from streamq.errors import FlowError
from streamq.refs import Row
from streamq.workflows.callers import Callee
from streamq.workflows.canvas import Several, Step, check_step
from streamq.workflows.edges import After, Before, Ends, Heads, together
from streamq.workflows.graph import MISPLACED, Drawn, Graph, Spot, placed

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@dataclass(slots=True, eq=False)
class Part(Generic[R_co]):
    """A part of a flow; made by `Flow.add`.

    Attributes:
        step: what is run.
        number: its place among the parts of the flow, from 1.
    """

    step: Step[Any, R_co]
    number: int
    flow: Flow = field(repr=False)
    before: list[Part[Any]] = field(default_factory=list, repr=False)
    after: list[Part[Any]] = field(default_factory=list, repr=False)


class Flow(Several[Any]):
    """A graph of calls, each of which begins when those before it have succeeded.

    The value is that of the only part that no other comes after; of several of those, the list of their values, in the
    order in which they were added.
    """

    def __init__(self) -> None:
        self.parts: list[Part[Any]] = []

    def add(self, step: Step[Any, R], *, after: Iterable[Part[Any]] = ()) -> Part[R]:
        """Add a signature, or several, as one part.

        Args:
            step: what is to be run.
            after: the parts that come before it; their values are its first arguments, in this order, unless it is
                immutable.

        Raises:
            FlowError: it cannot be run, or a part is not of this flow, or is named twice.
        """
        check_step(step, f"flow, part {len(self.parts) + 1}:")
        before = [*after]
        number = len(self.parts) + 1
        for place, one in enumerate(before):
            self._check(one)
            if one in before[:place]:
                raise FlowError(f"flow, part {number}: part {one.number} cannot be before it twice")
        part = Part(step, number, self, before)
        self.parts.append(part)
        for one in before:
            one.after.append(part)
        return part

    def connect(self, before: Part[Any], after: Part[Any]) -> None:
        """Have one part begin only when another has succeeded; the value is added to its arguments from before.

        Raises:
            FlowError: a part is not of this flow, or is before the other already, or comes after it: a cycle.
        """
        self._check(before)
        self._check(after)
        if before in after.before:
            raise FlowError(f"flow, part {after.number}: part {before.number} cannot be before it twice")
        reached, found = [after], {after}
        while reached:
            part = reached.pop()
            if part is before:
                raise FlowError(f"flow, part {after.number}: part {before.number} comes after it: that is a cycle")
            reached += (one for one in part.after if one not in found)
            found.update(part.after)
        after.before.append(before)
        before.after.append(after)

    def _check(self, part: Part[Any]) -> None:
        if not isinstance(part, Part):
            raise FlowError(f"a flow needs parts that its add() has returned, not {part!r}")
        if part.flow.parts is not self.parts:  # what set() has made of it is the same graph
            raise FlowError(f"part {part.number}, {part.step!r}, is of another flow")

    def _sinks(self) -> list[Part[Any]]:
        if not self.parts:
            raise FlowError("an empty flow cannot be run")
        return [part for part in self.parts if not part.after]

    def _draw(self, graph: Graph, spot: Spot) -> Drawn[Heads]:
        sinks = self._sinks()
        after = spot.after if len(sinks) == 1 else spot.after.through(spot.out, "fail")
        outs = {part: graph.number() if [part] != sinks else spot.out for part in self.parts}
        ends = {part: part.step.ends_at(outs[part]) for part in self.parts}
        heads: dict[Part[Any], Heads] = {}
        for part in reversed(_in_order(self.parts)):
            here = Spot(
                outs[part],
                self._before(part, spot, outs, ends),
                After(together(heads[one] for one in part.after)) if part.after else after,
                ends[part],
                spot.scope.later if part.before else spot.scope,
            )
            try:
                heads[part] = yield from part.step.draw(graph, here)
            except MISPLACED as error:
                raise placed(error, f"flow, part {part.number}") from error
            ends[part].close()
            if graph.is_full:
                yield
        if len(sinks) > 1:
            row = Row()
            for part in sinks:
                row.add(outs[part])
            graph.join(spot.out, "fail", row.refs(), len(sinks), spot.after)
        for part in sinks:
            spot.ends.include(ends[part])
        return together(heads[part] for part in self.parts if not part.before)

    @staticmethod
    def _before(part: Part[Any], spot: Spot, outs: dict[Part[Any], int], ends: dict[Part[Any], Ends]) -> Before:
        if not part.before:
            return spot.before
        theirs = Ends()
        for one in part.before:
            theirs.include(ends[one])
        theirs.close()
        return Before(tuple(outs[one] for one in part.before), len(part.before), theirs)

    def _parts(self) -> Iterable[Step[Any, Any]]:
        return [part.step for part in self.parts]

    def last(self) -> Callee | None:
        """Find the task whose result is its value; None: that is a list."""
        sinks = self._sinks()
        return sinks[0].step.last() if len(sinks) == 1 else None

    def label(self) -> str:
        """Name it for people."""
        names = [part.step.label() for part in self.parts[:3]]
        return f"flow of {', '.join(names)}{', …' if len(self.parts) > len(names) else ''}"

    def __repr__(self) -> str:
        return f"<flow of {len(self.parts)} parts>"


def _in_order(parts: Sequence[Part[Any]]) -> list[Part[Any]]:
    """Put each part after those that come before it."""
    waits = {part: len(part.before) for part in parts}
    ready = [part for part in parts if not part.before]
    for part in ready:
        for one in part.after:
            waits[one] -= 1
            if not waits[one]:
                ready.append(one)
    return ready
