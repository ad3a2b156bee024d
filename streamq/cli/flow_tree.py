"""Shows a flow as a tree: steps one below the other, the members of a group under it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import IO

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from streamq.broker.flow_census import FlowNode, FlowView
from streamq.cli.flow_shape import (
    BAD,
    Item,
    Many,
    counts,
    fold_members,
    fold_steps,
    is_bad,
    items_in,
    shape,
    standing,
    word_of,
)
from streamq.cli.options import in_one_line
from streamq.cli.spans import span
from streamq.nodes import NodeState

_MOST_BAD = 5  # of many members that have failed, shown one by one
_MOST_RUNNING = 3
_BROKEN = tuple(word for word in BAD if word != "cancelled")  # of these there is more to tell
_LONGEST_ERROR = 160
_WIDEST = 10_000  # of a line in a pipe
_SIGNS = {
    "succeeded": ("✓", "+", "green"),
    "running": ("●", "*", "cyan"),
    "failed": ("✗", "x", "red"),
    "dead": ("✗", "x", "red"),
    "expired": ("✗", "x", "red"),
    "cancelled": ("⊘", "x", "yellow"),
    "skipped": ("-", "-", "dim"),
    "not needed": ("-", "-", "dim"),
    "waiting": ("·", ".", "dim"),
}
_OTHER = ("○", "o", "blue")
_POLICIES = {"fail": "", "collect": ", failures are collected", "continue": ", failures are left out"}


def print_flow(view: FlowView, file: IO[str], *, everything: bool) -> None:
    """Print a flow: in colours on a terminal, plain in a pipe."""
    console = Console(file=file, highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console.width = _WIDEST
    plain = not console.encoding.lower().startswith("utf")
    console.print(_Tree(view, everything=everything, plain=plain).whole())


def short_names(view: FlowView) -> dict[str, str]:
    """Give for each task the last part of its name, or all of it where two would be the same."""
    names = {node.task for node in view.nodes.values() if node.task}
    shorts: dict[str, list[str]] = {}
    for name in names:
        shorts.setdefault(name.rpartition(".")[2], []).append(name)
    return {name: short if len(some) == 1 else name for short, some in shorts.items() for name in some}


def took(node: FlowNode, now_ms: int) -> str:
    """Say how long a task has taken, with the time it waited for a worker; empty if that is not known."""
    if node.since_ms is None or node.state is NodeState.WAITING:
        return ""
    end = node.ended_ms if node.ended_ms is not None else now_ms
    return span(end - node.since_ms) if node.ended_ms is not None or node.word == "running" or node.flow else ""


class _Tree:
    """Makes the tree of one flow."""

    def __init__(self, view: FlowView, *, everything: bool, plain: bool) -> None:
        self._view = view
        self._everything = everything
        self._plain = plain
        self._names = short_names(view)

    def whole(self) -> Tree:
        head = self._view.head
        done = head.size - head.left
        label = self._signed(head.state.value, "flow ", head.id)
        label.append(f"  {in_one_line(head.label)}" if head.label else "", "bold")
        text = f"  {head.state.value}, {done:,} of {head.size:,} done"
        label.append(f"{text}, {span((head.ended_ms or self._view.now_ms) - head.made_ms)}")
        tree = Tree(label, guide_style="dim")
        if head.error and not any(map(is_bad, self._view.nodes.values())):
            tree.add(Text(_error(head.error), "red"))
        self._add_steps(tree, shape(self._view))
        return tree

    def _add_steps(self, tree: Tree, sequence: Sequence[Item]) -> None:
        for step in fold_steps(sequence, everything=self._everything):
            if isinstance(step, Many):
                self._add_many(tree, step)
            else:
                self._add(tree, step)

    def _add(self, tree: Tree, item: Item) -> None:
        branch = tree.add(self._label(item))
        if item.is_again:
            return
        node = item.node
        if node and node.flow:
            inner = _Tree(
                replace(node.flow, now_ms=self._view.now_ms), everything=self._everything, plain=self._plain
            ).whole()
            branch.add(inner)
        for member in fold_members(item.members, everything=self._everything):
            if isinstance(member, Many):
                self._add_many(branch, member)
            elif len(member) == 1:
                self._add(branch, member[0])
            elif member:
                self._add_steps(branch.add(self._line(member)), member)
        for name, steps in item.branches:
            self._add_steps(branch.add(Text(f"{name}:", "dim")), steps)

    def _add_many(self, tree: Tree, many: Many) -> None:
        words = [standing(one) for one in many.sequences]
        branch = tree.add(
            Text(f"{self._title(many.sequences[0])} \N{MULTIPLICATION SIGN} {len(words):,}: {counts(words)}")
        )
        for some, most, shown in ((_BROKEN, _MOST_BAD, "failed"), (("running",), _MOST_RUNNING, "running")):
            found = [one for one, word in zip(many.sequences, words, strict=True) if word in some]
            for sequence in found[:most]:
                for item in items_in(sequence):
                    if item.node and item.node.task and word_of(item.node) in some:
                        self._add(branch, replace(item, branches=[], members=[]))
            if found[most:]:
                branch.add(Text(f"\N{HORIZONTAL ELLIPSIS} {len(found) - most:,} more {shown}", "dim"))

    def _line(self, member: Sequence[Item]) -> Text:
        word = standing(member)
        return self._signed(word, self._title(member)).append(f"  {word}")

    def _title(self, sequence: Iterable[Item]) -> str:
        return " | ".join("side by side" if item.node is None else self._name(item.node) for item in sequence)

    def _name(self, node: FlowNode) -> str:
        return in_one_line(self._names[node.task]) if node.task else "group"

    def _label(self, item: Item) -> Text:
        node = item.node
        if node is None:
            return Text(f"graph of {len(item.members)}" if item.is_tangled else f"{len(item.members)} side by side")
        if item.is_again:
            return Text(f"{self._name(node)} .{node.node}  see above", "dim")
        if not node.task:
            return self._group_label(item, node)
        word = word_of(node)
        label = self._signed(word, self._name(node), f" .{node.node}").append(f"  {word}")
        if time := took(node, self._view.now_ms):
            label.append(f"  {time}", "dim")
        if node.queue != self._view.head.queue:
            label.append(f"  on {in_one_line(node.queue)}", "dim")
        label.append(self._after(item), "dim")
        if node.error:
            label.append(f"  {_error(node.error)}", "red")
        return label

    def _after(self, item: Item) -> str:
        """Say what a node waits for, if the place where it stands does not."""
        names = [f"{self._name(one)} .{one.node}" if one.task else f"group .{one.node}" for one in item.after]
        if len(names) > 5:  # noqa: PLR2004 - a line's worth
            names = [*names[:4], f"{len(names) - 4:,} more"]
        *most, last = names or [""]
        return f"  after {', '.join(most)}{' and ' * bool(most)}{last}" if last else ""

    def _group_label(self, item: Item, node: FlowNode) -> Text:
        words = [standing(member) for member in item.members]
        word = word_of(node)
        if node.state is NodeState.UPSTREAM_FAILED and any(one in BAD for one in words):
            word = "failed"
        text = f"  {word}"
        if node.state is NodeState.WAITING and words:
            ended = sum(one == "succeeded" or one in BAD for one in words)
            text = f"  {ended:,} of {len(words):,} done" if ended or "running" in words else text
        size = len(item.members)
        name = f"{'graph' if item.is_tangled else 'group'} of {size:,}"
        if not size:
            name = f"group .{node.node}" if node.inputs else "group of nothing"
        label = self._signed(word, f"{name}{_POLICIES.get(node.policy, '')}").append(text)
        return label.append(self._after(item), "dim")

    def _signed(self, word: str, name: str, number: str = "") -> Text:
        sign, letter, style = _SIGNS.get(word, _OTHER)
        label = Text()
        label.append(f"{letter if self._plain else sign} ", style)
        label.append(name, "bold" if number else "")
        label.append(number, "dim" if number.startswith(" .") else "")
        return label


def _error(text: str) -> str:
    """Put an error into one line of a bounded length."""
    line = in_one_line(" ".join(text.split()))
    return line if len(line) <= _LONGEST_ERROR else line[: _LONGEST_ERROR - 1] + "…"
