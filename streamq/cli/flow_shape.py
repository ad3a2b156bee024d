"""The shape of a flow as people think of it: steps one after another, and groups with their members. Pure.

A flow is stored as nodes and edges. Where several nodes follow one, they are members of what ends where all ways from
them come together; what leads to the value of the flow from nowhere is a side branch: a callback.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from streamq.broker.flow_census import FAILING, FlowNode, FlowView
from streamq.nodes import NodeState
from streamq.refs import each

MOST_MEMBERS = 8  # of one kind that are shown one by one
_MOST_STEPS = 20  # of one kind, one after another, that are

_WORDS = {
    NodeState.NONE: "unknown",
    NodeState.WAITING: "waiting",
    NodeState.RELEASED: "released",
    NodeState.SUCCEEDED: "succeeded",
    NodeState.FAILED: "failed",
    NodeState.DEAD: "dead",
    NodeState.CANCELLED: "cancelled",
    NodeState.EXPIRED: "expired",
    NodeState.UPSTREAM_FAILED: "skipped",
    NodeState.OMITTED: "not needed",
}
BAD = ("failed", "dead", "cancelled", "expired")
_ORDER = ("succeeded", *BAD, "running", "queued", "released", "held", "delayed", "waiting", "skipped", "not needed")


@dataclass(slots=True)
class Item:
    """A step.

    Attributes:
        node: the node; of members that do not come together in a join, None.
        members: what runs side by side in it, each one a sequence of steps.
        branches: what is called back: when, and the steps.
        is_again: it was shown before, and so was what follows.
        after: the nodes that it waits for, if the place where it stands does not say that.
        is_tangled: the members are the steps of a graph; each says itself what it waits for.
    """

    node: FlowNode | None
    members: list[list[Item]] = field(default_factory=list)
    branches: list[tuple[str, list[Item]]] = field(default_factory=list)
    is_again: bool = False
    after: list[FlowNode] = field(default_factory=list)
    is_tangled: bool = False

    @property
    def kind(self) -> tuple[object, ...]:
        """What is the same for those that can be shown as one."""
        node = self.node
        what = (node.task, node.policy) if node else ()
        inner = Counter(kind_of(member) for member in self.members) if self.members else ()
        return (
            what,
            self.is_again,
            frozenset(inner.items()) if inner else (),
            tuple(name for name, _ in self.branches),
        )


@dataclass(slots=True)
class Many:
    """Steps, or sequences of them, that are of the same kind, and too many to be shown one by one."""

    sequences: list[list[Item]]


def kind_of(sequence: Sequence[Item]) -> tuple[object, ...]:
    """Tell what is the same for sequences that can be shown as one."""
    return tuple(item.kind for item in sequence)


def word_of(node: FlowNode) -> str:
    """Say how a node stands."""
    return (node.word if node.state is NodeState.RELEASED else "") or _WORDS[node.state]


def items_in(sequence: Iterable[Item]) -> Iterator[Item]:
    """Go through all steps and those in them, but not the callbacks."""
    for item in sequence:
        yield item
        for member in item.members:
            yield from items_in(member)


def standing(sequence: Sequence[Item]) -> str:
    """Say in one word how a sequence of steps stands."""
    words = [word_of(item.node) for item in items_in(sequence) if item.node and item.node.task]
    words = words or [word_of(item.node) for item in sequence if item.node]
    for word in (*BAD, "running", "queued", "released", "held", "delayed", "waiting", "skipped", "not needed"):
        if word in words:
            return word
    return "succeeded"


def counts(words: Iterable[str]) -> str:
    """Say how many stand how."""
    found = Counter(words)
    return ", ".join(f"{found[word]:,} {word}" for word in sorted(found, key=_rank))


def _rank(word: str) -> tuple[int, str]:
    return (_ORDER.index(word) if word in _ORDER else len(_ORDER), word)


def fold_members(members: Sequence[list[Item]], *, everything: bool) -> list[list[Item] | Many]:
    """Put members of the same kind together, if there are many."""
    kinds: dict[tuple[object, ...], list[list[Item]]] = {}
    for member in members:
        kinds.setdefault(kind_of(member), []).append(member)
    found: list[list[Item] | Many] = []
    for some in kinds.values():
        found += some if everything or len(some) <= MOST_MEMBERS else [Many(some)]
    return found


def fold_steps(sequence: Sequence[Item], *, everything: bool) -> list[Item | Many]:
    """Put steps of the same kind together that come one after another, if there are many."""
    if everything or len(sequence) <= _MOST_STEPS:
        return [*sequence]
    found: list[Item | Many] = []
    run: list[Item] = []
    for item in [*sequence, None]:
        if run and (item is None or item.kind != run[0].kind or item.branches):
            found += [Many([[one] for one in run])] if len(run) > _MOST_STEPS else run
            run = []
        if item is not None:
            run.append(item)
    return found


def shape(view: FlowView) -> list[Item]:
    """Find the shape of a flow: its steps, one after another."""
    return _Shape(view).sequence(_in_reading_order(view.start), None)


def _in_reading_order(nodes: Iterable[int]) -> list[int]:
    return sorted(dict.fromkeys(nodes))


class _Shape:
    """Finds where ways come together, and goes them."""

    def __init__(self, view: FlowView) -> None:
        self.nodes = view.nodes
        self.to = {number: [one for one in each(node.to) if one in self.nodes] for number, node in self.nodes.items()}
        self.before: defaultdict[int, list[int]] = defaultdict(list)
        for number, some in self.to.items():
            for one in some:
                self.before[one].append(number)
        self.main = self._leading_to(view.head.out)
        self.shown: set[int] = set()
        order = self._in_order()
        self.place = {number: place for place, number in enumerate(order)}
        self.meets, self.depth = self._meetings(order)

    def _leading_to(self, out: int) -> set[int]:
        found, reached = {out}, [out]
        while reached:
            new = [one for one in self.before[reached.pop()] if one not in found]
            found.update(new)
            reached += new
        return found

    def _next(self, number: int) -> list[int]:
        """What comes after a node, without callbacks."""
        is_main = number in self.main
        return [one for one in self.to[number] if (one in self.main) == is_main]

    def _meetings(self, order: list[int]) -> tuple[Mapping[int, int | None], Mapping[int | None, int]]:
        """For each node the next one at which all ways from it come together; and how far that is from the end."""
        meets: dict[int, int | None] = {}
        depth: dict[int | None, int] = {None: 0}
        for number in reversed(order):
            after = self._next(number)
            meet: int | None = after[0] if after else None
            for one in after[1:]:
                meet = _meeting(meets, depth, meet, one)
            meets[number] = meet
            depth[number] = depth[meet] + 1
        return meets, depth

    def _in_order(self) -> list[int]:
        """All nodes, each after those before it."""
        missing = {number: len(self.before[number]) for number in self.nodes}
        ready = [number for number, count in missing.items() if not count]
        for number in ready:
            for one in self.to[number]:
                missing[one] -= 1
                if not missing[one]:
                    ready.append(one)
        return ready

    def sequence(self, heads: list[int], stop: int | None) -> list[Item]:
        """Go from some nodes on, until all ways have come together in `stop`, or ended."""
        found: list[Item] = []
        while heads and heads != [stop]:
            if len(heads) == 1:
                meet: int | None = heads[0]
                found.append(self._around(self._step(heads[0]), found))
            else:
                meet = heads[0]
                for one in heads[1:]:
                    meet = _meeting(self.meets, self.depth, meet, one)
                found.append(self._together(heads, meet, stop))
            if meet is None or meet == stop or found[-1].is_again:
                break
            heads = [meet] if found[-1].node is None else _in_reading_order(self._next(meet))
        return found

    @staticmethod
    def _around(item: Item, before: list[Item]) -> Item:
        """If a node is a group of one member, which is the step before, take it in."""
        last = before[-1].node if before else None
        if item.node and not item.node.task and not item.is_again and last and item.node.inputs == (last.node,):
            item.members = [[before.pop()]]
        return item

    def _together(self, heads: list[int], meet: int | None, stop: int | None) -> Item:
        """Members, and the join in which they come together, if it is one that is not shown further out."""
        is_own = meet is not None and meet != stop and not self.nodes[meet].task and meet not in self.shown
        inner: dict[int, list[int]] = {}
        for head in heads:
            top = head
            while (further := self.meets[top]) is not None and meet not in (further, head):
                top = further
            if head != meet:
                inner.setdefault(top, []).append(head)
        members = [self.sequence(some, meet) for some in inner.values()]
        if is_own and meet is not None:
            item = self._step(meet)
            item.after = []
        else:
            item = Item(None)
        item.members = members
        self._flatten(item)
        return item

    def _flatten(self, item: Item) -> None:
        """If ways within an item cross, have its steps be its members, for they have no other order than their arrows.

        Ways that come from elsewhere cross further out.
        """
        inner = [one for member in item.members for one in items_in(member)]
        steps = [one for one in inner if one.node and not one.is_again]
        here = {one.node.node for one in steps if one.node}
        again = {one.node.node for one in inner if one.node and one.is_again}
        if not again or not again <= here:
            return
        steps.sort(key=lambda one: self.place[one.node.node if one.node else 0])
        for one in steps:
            before = self.before[one.node.node] if one.node else []
            one.after, one.members = [self.nodes[number] for number in before if number in here], []
        item.members, item.is_tangled = [[one] for one in steps], True

    def _step(self, number: int) -> Item:
        node = self.nodes[number]
        if number in self.shown:
            return Item(node, is_again=True)
        self.shown.add(number)
        before = self.before[number]
        item = Item(node, after=[self.nodes[one] for one in before] if node.task and len(before) > 1 else [])
        side = [one for one in self.to[number] if number in self.main and one not in self.main]
        for name, some in (("on success", side), ("on error", [one for one in each(node.err) if one in self.nodes])):
            if some:
                item.branches.append((name, self.sequence(_in_reading_order(some), None)))
        return item


def _meeting(
    meets: Mapping[int, int | None], depth: Mapping[int | None, int], one: int | None, other: int | None
) -> int | None:
    """Find where the ways from two nodes come together; None: nowhere."""
    while one != other:
        if depth[one] < depth[other]:
            one, other = other, one
        one = None if one is None else meets[one]
    return one


def is_bad(node: FlowNode) -> bool:
    """Whether a node has failed, and not because of another."""
    return node.state in FAILING and node.state is not NodeState.UPSTREAM_FAILED
