"""`Group`: calls that run side by side, and chords, which go on with the list of their values."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast, overload

from streamq.errors import FlowError
from streamq.flow_results.group import GroupResult
from streamq.flow_results.reader import Types
from streamq.nodes import POLICIES, Policy
from streamq.refs import Row
from streamq.workflows.canvas import Canvas, Chain, Several, Step, check_step
from streamq.workflows.edges import HeadRow, Heads
from streamq.workflows.graph import MISPLACED, Drawn, Graph, Spot, placed
from streamq.workflows.signature import Call

R = TypeVar("R")
S = TypeVar("S")
R_co = TypeVar("R_co", covariant=True)


class Members(Iterable[Step[Any, Any]]):
    """The members of a group; those of a generator can be gone through once, but the first ones be seen before."""

    def __init__(self, members: Iterable[Step[Any, Any]]) -> None:
        self._kept = members if isinstance(members, Sequence) else None
        self._once = iter(()) if self._kept is not None else iter(members)
        self._seen: list[Step[Any, Any]] = []
        self._is_used = False

    def ahead(self) -> Iterator[Step[Any, Any]]:
        """Look at them before they are gone through, as far as the caller likes: those that were seen are held."""
        if self._kept is not None:
            yield from map(check_member, self._kept, itertools.count(1))
            return
        for place in itertools.count():
            if place == len(self._seen):
                self._seen += () if self._is_used else itertools.islice(self._once, 1)
            if place == len(self._seen):
                return
            yield check_member(self._seen[place], place + 1)

    def __iter__(self) -> Iterator[Step[Any, Any]]:
        if self._kept is not None:
            return iter(self._kept)
        if self._is_used:
            raise FlowError("the members of this group come from a generator, and have been used up; give a list")
        self._is_used = True
        seen, self._seen = self._seen, []
        return itertools.chain(seen, self._once)


def check_member(member: object, number: int) -> Step[Any, Any]:
    """Return what can be a member of a group.

    Raises:
        FlowError: it cannot.
    """
    return member if isinstance(member, Step) else check_step(member, f"group, member {number}:")


def check_policy(policy: Policy) -> Policy:
    """Return what may become of a group when a member fails.

    Raises:
        FlowError: it is something else.
    """
    if policy not in POLICIES:
        raise FlowError(f"on_error must be one of {', '.join(POLICIES)}, not {policy!r}")
    return policy


class Group(Several[list[R_co]]):
    """Calls that run side by side; the value is the list of their values, in their order.

    Attributes:
        members: what it is made of.
        policy: what becomes of it when a member fails.
    """

    def __init__(self, members: Members, policy: Policy) -> None:
        self.members = members
        self.policy = check_policy(policy)

    def _draw(self, graph: Graph, spot: Spot) -> Drawn[Heads]:
        out, before, ends, scope = spot.out, spot.before, spot.ends, spot.scope
        after = spot.after.through(out, self.policy)
        inputs, heads = Row(), HeadRow()
        number = 0
        for number, member in enumerate(self.members, 1):
            node = graph.number()
            inputs.add(node)
            here = Spot(node, before, after, ends, scope)
            try:
                if isinstance(member, Call) and member.is_single:
                    heads.add(member.draw_node(graph, here))
                else:
                    heads.add((yield from check_member(member, number).draw(graph, here)))
            except MISPLACED as error:
                raise placed(error, f"group, member {number}") from error
            if graph.is_full:
                yield
        graph.join(out, self.policy, inputs.refs(), number or before.deps, spot.after)
        if number:
            return heads.heads()
        ends.include(before.ends)
        return Heads((out,), spot.after.children, spot.after.next, are_all=False)

    def delay(self) -> GroupResult[R_co]:
        """Enqueue all of it as one flow: all of it, or, if an error is raised, nothing has begun.

        Raises:
            FlowError: it cannot be run.
            PayloadError: a call cannot be sent.
            BrokerError: as for an enqueue.
        """
        return cast("GroupResult[R_co]", self.enqueue_whole())

    async def adelay(self) -> GroupResult[R_co]:
        """Enqueue all of it as one flow, as `delay` does."""
        return cast("GroupResult[R_co]", await self.aenqueue_whole())

    def _make_result(self, graph: Graph, types: Types, *, is_ours: bool) -> GroupResult[R_co]:
        members = graph.members if is_ours else None
        return GroupResult(graph.flow_id, graph.home, graph.broker, types, members=members, duplicate=not is_ours)

    def with_policy(self, policy: Policy) -> Group[R_co]:
        """Make the same group with another policy."""
        return self._with(policy=check_policy(policy))

    def _parts(self) -> Iterable[Step[Any, Any]]:
        return itertools.islice(self.members.ahead(), 1)

    def _ahead(self) -> Iterable[Step[Any, Any]]:
        return self.members.ahead()

    def label(self) -> str:
        """Name it for people."""
        first = next(self.members.ahead(), None)
        if first is None:
            return "group of nothing"
        return f"group of ({first.label()})" if type(first) is Chain else f"group of {first.label()}"

    def __repr__(self) -> str:
        return f"<{self.label()}>"


class Chord(Chain[R_co]):
    """A group, and what gets the list of its values as its first argument."""

    def label(self) -> str:
        """Name it for people."""
        group, body = self.parts
        return f"chord: {group.label().removeprefix('group of ')} -> {body.label()}"


@overload
def group(members: Iterable[Canvas[R]], /, *, on_error: Policy = ...) -> Group[R]: ...
@overload
def group(*members: Canvas[R], on_error: Policy = ...) -> Group[R]: ...
@overload
def group(members: Iterable[Step[Any, R]], /, *, on_error: Policy = ...) -> Group[R]: ...
@overload
def group(*members: Step[Any, R], on_error: Policy = ...) -> Group[R]: ...
def group(*members: Any, on_error: Policy = "fail") -> Group[Any]:
    """Have calls run side by side; the value is the list of their values, in their order.

    Args:
        members: signatures, chains, groups and so on; or one iterable of them, of any size: what a generator makes is
            taken as it is sent, and can be sent once.
        on_error: what becomes of the group when a member fails: it ``fail``s too, at once; or it goes on when all have
            ended, and that member is a `Failure` in the list (``collect``), or is not in it (``continue``).

    Raises:
        FlowError: a member is none.
    """
    if len(members) == 1 and not isinstance(members[0], Step):
        if not isinstance(members[0], Iterable) or isinstance(members[0], (str, bytes)):
            check_step(members[0], "group, member 1:")
        many = members[0]
        members = tuple(many) if isinstance(many, (Sequence, set, frozenset)) else ()
        if not isinstance(many, (Sequence, set, frozenset)):
            return Group(Members(many), on_error)
    for number, member in enumerate(members, 1):
        check_member(member, number)
    return Group(Members(members), on_error)


def chord(
    members: Group[S] | Iterable[Step[Any, S]], body: Step[list[S], R], *, on_error: Policy | None = None
) -> Chord[R]:
    """Have calls run side by side, and then `body`, with the list of their values as its first argument.

    Args:
        members: a group, or an iterable of members as `group` takes it.
        body: what goes on with the list.
        on_error: what becomes of it when a member fails, as for `group`.

    Raises:
        FlowError: a member, or the body, is none.
    """
    if isinstance(members, Step):
        if not isinstance(members, Group):
            raise FlowError(f"a chord needs a group or an iterable of members, not {members!r}")
        whole: Group[Any] = members if on_error is None else members.with_policy(on_error)
    else:
        whole = group(members, on_error=on_error or "fail")
    return Chord((whole, check_step(body, "the body of a chord:")))
