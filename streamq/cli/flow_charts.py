"""Writes a flow as a chart, for Mermaid and for Graphviz. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from streamq.broker.flow_census import FlowNode, FlowView
from streamq.cli.flow_shape import Item, Many, counts, fold_members, fold_steps, shape, word_of
from streamq.cli.flow_tree import short_names
from streamq.cli.options import in_one_line
from streamq.refs import each

_COLOURS = {
    "succeeded": "#c8e6c9",
    "running": "#b3e5fc",
    "queued": "#e3f2fd",
    "failed": "#ffcdd2",
    "dead": "#ffcdd2",
    "expired": "#ffcdd2",
    "cancelled": "#ffe0b2",
    "mixed": "#fff9c4",
}


@dataclass(slots=True)
class Box:
    """What is drawn as one: a node, or many of the same kind; `inner` is what the task has become."""

    name: str
    lines: list[str]
    word: str
    is_join: bool
    inner: Chart | None = None


@dataclass(slots=True)
class Chart:
    """What is to be drawn: boxes, and arrows from one to another; those of errors are dotted."""

    title: str
    boxes: list[Box] = field(default_factory=list)
    arrows: list[tuple[str, str, bool]] = field(default_factory=list)


def chart(view: FlowView, *, everything: bool, prefix: str = "n") -> Chart:
    """Find what is to be drawn of a flow; many of a kind are drawn as one, unless all is wanted."""
    names = short_names(view)
    found = Chart(f"flow {view.head.id} {view.head.label}: {view.head.state.value}")
    boxes: dict[int, str] = {}
    for same in _same(shape(view), everything=everything):
        first = same[0]
        name = f"{prefix}{first.node}"
        boxes |= dict.fromkeys((node.node for node in same), name)
        found.boxes.append(_box(name, same, names, everything=everything))
    arrows: dict[tuple[str, str, bool], None] = {}
    for node in view.nodes.values():
        for refs, is_error in ((node.to, False), (node.err, True)):
            for one in each(refs):
                if node.node in boxes and one in boxes:
                    arrows[boxes[node.node], boxes[one], is_error] = None
    found.arrows = [arrow for arrow in arrows if arrow[0] != arrow[1]]
    return found


def _same(sequence: Sequence[Item], *, everything: bool) -> Iterator[list[FlowNode]]:
    """Give the nodes, those together that are drawn as one."""
    for step in fold_steps(sequence, everything=everything):
        if isinstance(step, Many):
            yield from _merged(step)
            continue
        if step.node and not step.is_again:
            yield [step.node]
        for member in fold_members(step.members, everything=everything):
            if isinstance(member, Many):
                yield from _merged(member)
            else:
                yield from _same(member, everything=everything)
        for _, branch in step.branches:
            yield from _same(branch, everything=everything)


def _merged(many: Many) -> Iterator[list[FlowNode]]:
    """Put together the nodes at the same place of sequences of the same kind."""
    kinds: dict[tuple[object, ...], list[FlowNode]] = {}
    for sequence in many.sequences:
        for place, node in _places(sequence, ()):
            kinds.setdefault(place, []).append(node)
    yield from kinds.values()


def _places(sequence: Sequence[Item], place: tuple[object, ...]) -> Iterator[tuple[tuple[object, ...], FlowNode]]:
    for number, item in enumerate(sequence):
        here = (*place, number)
        if item.node and not item.is_again:
            yield (*here, item.node.task), item.node
        for member in item.members:
            yield from _places(member, (*here, "member"))
        for name, branch in item.branches:
            yield from _places(branch, (*here, name))


def _box(name: str, same: Sequence[FlowNode], names: dict[str, str], *, everything: bool) -> Box:
    first = same[0]
    title = names[first.task] if first.task else "group"
    words = [word_of(node) for node in same]
    if len(same) > 1:
        word = words[0] if len({*words}) == 1 else "mixed"
        return Box(name, [f"{title} \N{MULTIPLICATION SIGN} {len(same):,}", counts(words)], word, not first.task)
    lines = [f"{title} .{first.node}" if first.task else title, words[0]]
    inner = chart(first.flow, everything=everything, prefix=f"{name}_") if first.flow else None
    return Box(name, lines, words[0], not first.task, inner)


def mermaid(drawn: Chart) -> str:
    """Write a chart for Mermaid."""
    lines = ["---", f"title: {_quoted(drawn.title)}", "---", "flowchart TD"]
    _mermaid_boxes(drawn, lines, "  ")
    for word, colour in _COLOURS.items():
        lines.append(f"  classDef {word} fill:{colour},stroke:#555,color:#000")
    return "\n".join(lines)


def _mermaid_boxes(drawn: Chart, lines: list[str], indent: str) -> None:
    for box in drawn.boxes:
        text = "<br/>".join(_mermaid_text(line) for line in box.lines)
        opened, closed = ('(["', '"])') if box.is_join else ('["', '"]')
        style = f":::{box.word}" if box.word in _COLOURS else ""
        lines.append(f"{indent}{box.name}{opened}{text}{closed}{style}")
        if box.inner:
            lines.append(f'{indent}subgraph {box.name}_flow["{_mermaid_text(box.inner.title)}"]')
            _mermaid_boxes(box.inner, lines, indent + "  ")
            lines += [f"{indent}end", f"{indent}{box.name} -.- {box.name}_flow"]
    lines += [f"{indent}{one} {'-. error .->' if is_error else '-->'} {other}" for one, other, is_error in drawn.arrows]


def _mermaid_text(text: str) -> str:
    """Escape what Mermaid would take for its own: it has entities, as HTML, with # for &."""
    safe = {"&": "#amp;", "<": "#lt;", ">": "#gt;", '"': "#quot;", "#": "#35;", "`": "#96;", "\\": "#92;"}
    return "".join(safe.get(char, char) for char in in_one_line(text))


def _quoted(text: str) -> str:
    """Quote a text, as YAML and Graphviz both read it."""
    escaped = in_one_line(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def dot(drawn: Chart) -> str:
    """Write a chart for Graphviz."""
    lines = ["digraph flow {", f"  label={_quoted(drawn.title)}; labelloc=t;"]
    lines.append('  node [shape=box, style="rounded,filled", fillcolor=white];')
    _dot_boxes(drawn, lines, "  ")
    return "\n".join([*lines, "}"])


def _dot_boxes(drawn: Chart, lines: list[str], indent: str) -> None:
    for box in drawn.boxes:
        text = "\\n".join(_quoted(line)[1:-1] for line in box.lines)
        colour = f', fillcolor="{_COLOURS[box.word]}"' if box.word in _COLOURS else ""
        lines.append(f'{indent}{box.name} [label="{text}"{", shape=ellipse" * box.is_join}{colour}];')
        if box.inner:
            lines += [f"{indent}subgraph cluster_{box.name} {{", f"{indent}  label={_quoted(box.inner.title)};"]
            _dot_boxes(box.inner, lines, indent + "  ")
            lines.append(f"{indent}}}")
            if box.inner.boxes:
                lines.append(f"{indent}{box.name} -> {box.inner.boxes[0].name} [style=dotted, arrowhead=none];")
    for one, other, is_error in drawn.arrows:
        lines.append(f"{indent}{one} -> {other}{' [style=dashed, label=error]' if is_error else ''};")
