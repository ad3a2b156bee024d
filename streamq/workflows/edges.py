"""What the parts of a flow know of each other while it is drawn, from its last part to its first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from streamq.refs import Refs, Row, encode_refs, first_of, merge

MOST_ROOTS = 100
_MOST_NEXT = 4


class Ends:
    """The task nodes whose end is the end of a part; they may get known after those that wait for it are drawn."""

    def __init__(self, refs: Refs = (), *, is_known: bool = False) -> None:
        self._row = Row()
        self._row.extend(refs)
        self._others: list[Ends] = []
        self._pending = 0
        self._is_closed = is_known
        self._waiting: list[Callable[[Refs], None]] = []
        self._refs: Refs | None = refs if is_known else None

    @property
    def known(self) -> Refs | None:
        """All of them; None: they are not known yet."""
        return self._refs

    def add(self, node: int) -> None:
        """Put in one node, unless they are known already."""
        if not self._is_closed:
            self._row.add(node)

    def include(self, other: Ends) -> None:
        """Put in all of another part's, once they are known, unless these are known already."""
        if self._is_closed or other is self or (self._others and self._others[-1] is other):
            return
        theirs = other.known
        if theirs is not None and not self._others and (not theirs or first_of(theirs[0]) > self._row.last):
            self._row.extend(theirs)
            return
        self._others.append(other)
        self._pending += 1
        other.when_known(self._one_is_known)

    def close(self) -> None:
        """Say that there are no more."""
        self._is_closed = True
        self._settle()

    def when_known(self, tell: Callable[[Refs], None]) -> None:
        """Have `tell` called with all of them: now, or as soon as they are known."""
        if self._refs is None:
            self._waiting.append(tell)
        else:
            tell(self._refs)

    def _one_is_known(self, _refs: Refs) -> None:
        self._pending -= 1
        self._settle()

    def _settle(self) -> None:
        if self._refs is None and self._is_closed and not self._pending:
            self._refs = merge((self._row.refs(), *(other.known or () for other in self._others)))
            waiting, self._waiting = self._waiting, []
            for tell in waiting:
                tell(self._refs)


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """Where a part begins.

    Attributes:
        to: the nodes that are to be told so that it begins.
        tasks: the task nodes that begin then: some may do so through joins that have no inputs.
        plain: those of them that are on home and have no terms, with their levels; of very many the first.
        are_all: there are no others than those.
    """

    to: Refs = ()
    tasks: Refs = ()
    plain: tuple[tuple[int, int], ...] = ()
    are_all: bool = True


def together(many: Iterable[Heads]) -> Heads:
    """Make one of the heads of several parts."""
    parts = list(many)
    if len(parts) == 1:
        return parts[0]
    plain = sorted({pair for heads in parts for pair in heads.plain})
    return Heads(
        merge(heads.to for heads in parts),
        merge(heads.tasks for heads in parts),
        tuple(plain[: MOST_ROOTS + 1]),
        all(heads.are_all for heads in parts),
    )


_NOTHING = Heads()


class HeadRow:
    """Collects the heads of many parts that are drawn one after another."""

    def __init__(self) -> None:
        self._to = Row()
        self._tasks: list[Refs] | None = None  # only if they are others than those in `_to`
        self._plain: list[tuple[int, int]] = []
        self._are_all = True

    def add(self, heads: Heads) -> None:
        """Put in those of the next part."""
        if self._tasks is None and heads.tasks != heads.to:
            self._tasks = [self._to.refs()]
        if self._tasks is not None:
            self._tasks.append(heads.tasks)
        self._to.extend(heads.to)
        if len(self._plain) <= MOST_ROOTS:
            self._plain += heads.plain
        self._are_all = self._are_all and heads.are_all

    def heads(self) -> Heads:
        """Give them all."""
        to = self._to.refs()
        tasks = to if self._tasks is None else merge(self._tasks)
        return Heads(to, tasks, tuple(dict.fromkeys(self._plain[: MOST_ROOTS + 1])), self._are_all)


class Before:
    """What comes before a part.

    Args:
        inputs: the nodes whose values are its first arguments.
        deps: how many it waits for.
        ends: the task nodes that do so.
    """

    __slots__ = ("deps", "ends", "inputs", "text")

    def __init__(self, inputs: tuple[int, ...], deps: int, ends: Ends) -> None:
        self.inputs = inputs
        self.deps = deps
        self.ends = ends
        self.text = edge_text(b"in", inputs)


class After:
    """What comes after a part.

    Args:
        to: what is told when it has succeeded.
        err: what is told when it has ended in another way.
        policy: of the join that it is a member of.
    """

    __slots__ = ("children", "next", "policy", "text", "to_err")

    def __init__(self, to: Heads = _NOTHING, err: Heads = _NOTHING, policy: str | None = None) -> None:
        self.to_err = (to, err)
        self.policy = policy
        self.children = merge((to.tasks, err.tasks))
        self.next = tuple(sorted({*to.plain[:_MOST_NEXT], *err.plain[:_MOST_NEXT]})[:_MOST_NEXT])
        self.text = edge_text(b"to", to.to) + edge_text(b"err", err.to)

    def also(self, successes: list[Heads], errors: list[Heads]) -> After:
        """Make what comes after a part that has callbacks besides."""
        to, err = self.to_err
        return After(together([to, *successes]), together([err, *errors]), self.policy)

    def through(self, join: int, policy: str) -> After:
        """Make what comes after the members of a join, after which comes this."""
        return After(Heads((join,), self.children, self.next, are_all=False), policy=policy)


def edge_text(name: bytes, refs: Refs) -> bytes:
    """Write the part of a spec that says where edges lead."""
    return b',"%b":%b' % (name, encode_refs(refs)) if refs else b""
