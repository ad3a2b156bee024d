"""How flows are shown: as a tree of steps and groups, and as charts."""

from __future__ import annotations

import io

import pytest

from streamq import Flow, StreamQ, chain, chord, group
from streamq.broker.flow_census import FlowHead, FlowNode, FlowView
from streamq.cli import flow_charts
from streamq.cli.flow_tree import print_flow
from streamq.cli.spans import span
from streamq.lifecycle import State
from streamq.nodes import Join, NodeState, read_like, read_spec, read_start
from streamq.refs import each

TIMES = "\N{MULTIPLICATION SIGN}"

app = StreamQ()


def task(name):
    def function(*values: object) -> int:
        return len(values)

    function.__name__ = name
    return app.task(name=f"shop.{name}")(function)


a, b, c, d, e = (task(name) for name in "abcde")


def view_of(canvas, states="", state=State.RUNNING, **changed):
    """Draw a flow, and say how its nodes stand: a character each, all waiting by default."""
    graph = canvas.to_graph(flow_id="f")
    fields = {name: value for chunk in graph.chunks() for name, value in chunk.fields}
    numbers = sorted(int(name) for name in fields if name.isdigit())
    nodes = {}
    for number in numbers:
        spec = read_spec(fields[str(number)])
        about = {} if isinstance(spec, Join) else {"task": read_like(fields[f"like:{spec.like}"]).task}
        if isinstance(spec, Join):
            about["policy"] = spec.policy
        nodes[number] = FlowNode(
            node=number,
            state=NodeState(states[number : number + 1] or "w"),
            queue="default",
            inputs=spec.inputs,
            to=spec.to,
            err=spec.err,
            **{**about, **changed.get(f"n{number}", {})},
        )
    left = sum(one.state in "wr" for one in nodes.values())
    head = FlowHead(
        id="f", queue="default", label=graph.label, state=state, out=graph.out, size=graph.size, left=left, made_ms=0
    )
    return FlowView(head=head, start=[*each(read_start(fields["start"]))], nodes=nodes, now_ms=2500)


class Out(io.StringIO):
    encoding = "utf-8"


def lines_of(view, *, everything=False):
    out = Out()
    print_flow(view, out, everything=everything)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def steps_of(canvas, *more, **changed):
    """Give the lines below the first, without signs."""
    return lines_of(view_of(canvas, *more, **changed))[1:]


def test_the_first_line_is_about_the_flow_as_a_whole():
    assert lines_of(view_of(chain(a.s(), b.s()), "ws"))[0] == "● flow f  a | b  running, 1 of 2 done, 2.50 s"


def test_a_chain_is_a_line_of_steps():
    assert steps_of(chain(a.s(), b.s(), c.s()), "wrs") == [
        "├── ✓ a .2  succeeded",
        "├── ○ b .1  released",
        "└── · c .0  waiting",
    ]


def test_a_group_has_its_members_under_it_and_what_follows_after_it():
    assert steps_of(chain(a.s(), group(b.s(), chain(c.s(), d.s())), e.s())) == [
        "├── · a .2  waiting",
        "├── · group of 2  waiting",
        "│   ├── · b .3  waiting",
        "│   └── · c | d  waiting",
        "│       ├── · c .5  waiting",
        "│       └── · d .4  waiting",
        "└── · e .0  waiting",
    ]


def test_groups_within_groups():
    assert steps_of(group(group(a.s(), b.s()), c.s())) == [
        "└── · group of 2  waiting",
        "    ├── · group of 2  waiting",
        "    │   ├── · a .2  waiting",
        "    │   └── · b .3  waiting",
        "    └── · c .4  waiting",
    ]


def test_a_group_that_follows_a_group():
    assert steps_of(chain(group(a.s(), b.s()), group(c.s(), d.s()))) == [
        "├── · group of 2  waiting",
        "│   ├── · a .4  waiting",
        "│   └── · b .5  waiting",
        "└── · group of 2  waiting",
        "    ├── · c .2  waiting",
        "    └── · d .3  waiting",
    ]


@pytest.mark.parametrize(("members", "line"), [([], "group of nothing"), ([a.s()], "group of 1")])
def test_small_groups(members, line):
    first = steps_of(group(members))
    assert first[0] == f"└── · {line}  waiting"
    assert len(first) == 1 + len(members)


def test_how_a_group_stands():
    """How many are done; what it makes of failures; and whether it failed itself or could not begin."""
    assert (
        "· group of 3, failures are collected  2 of 3 done"
        in steps_of(group(a.s(), b.s(), c.s(), on_error="collect"), "wsfr")[0]
    )
    assert "✗ group of 2  failed" in steps_of(group(a.s(), b.s()), "kfs")[0]
    assert "- group of 2  skipped" in steps_of(chain(a.s(), group(b.s(), c.s())), "kfkk")[1]


def test_many_members_of_a_kind_are_one_line():
    """With some of those that failed or run; all of them if that is wanted."""
    view = view_of(
        chord([a.s(n) for n in range(1000)], b.s()),
        "ww" + "s" * 900 + "f" * 7 + "r" * 93,
        n902={"error": "ValueError: no\n tea"},
        n990={"word": "running"},
    )
    shown = lines_of(view)
    assert shown[2] == f"│   └── a {TIMES} 1,000: 900 succeeded, 7 failed, 1 running, 92 released"
    assert shown[3] == "│       ├── ✗ a .902  failed  ValueError: no tea"
    assert shown[8:10] == ["│       ├── … 2 more failed", "│       └── ● a .990  running"]
    assert len(shown) == 11
    assert len(lines_of(view, everything=True)) == 1003


def test_many_members_that_are_chains_are_one_line():
    shown = steps_of(group([chain(a.s(n), b.s()) for n in range(100)]))
    assert shown[1:] == [f"    └── a | b {TIMES} 100: 100 waiting"]


def test_members_of_several_kinds_are_counted_apart():
    shown = steps_of(group([a.s(n) for n in range(50)] + [b.s(n) for n in range(50)] + [c.s()]))
    assert [line.strip(" ├└─│") for line in shown[1:]] == [
        f"a {TIMES} 50: 50 waiting",
        f"b {TIMES} 50: 50 waiting",
        "· c .101  waiting",
    ]


def test_a_long_chain_of_the_same_task_is_one_line():
    assert steps_of(chain([a.s() for _ in range(50)])) == [f"└── a {TIMES} 50: 50 waiting"]


def test_callbacks_stand_under_what_they_are_of():
    shown = steps_of(chain(a.s().on_success(b.s()), c.s()).on_error(chain(d.s(), e.s())))
    assert [line.replace("─", "").replace("│", "").strip(" ├└") for line in shown] == [
        "· a .3  waiting",
        "on success:",
        "· b .4  waiting",
        "· c .0  waiting",
        "on error:",
        "· d .2  waiting",
        "· e .1  waiting",
    ]


def diamond():
    flow = Flow()
    first, second = flow.add(a.s()), flow.add(b.s())
    both = flow.add(c.s(), after=[first, second])
    flow.add(d.s(), after=[both])
    flow.add(e.s(), after=[both, second])
    return flow


def test_steps_of_a_graph_say_what_they_wait_for():
    """Each is shown once."""
    assert steps_of(diamond()) == [
        "└── · graph of 5  waiting",
        "    ├── · a .1  waiting",
        "    ├── · b .2  waiting",
        "    ├── · c .3  waiting  after a .1 and b .2",
        "    ├── · d .4  waiting  after c .3",
        "    └── · e .5  waiting  after b .2 and c .3",
    ]


def test_a_task_after_several():
    flow = Flow()
    flow.add(c.s(), after=[flow.add(a.s()), flow.add(b.s())])
    assert steps_of(flow) == [
        "├── 2 side by side",
        "│   ├── · a .1  waiting",
        "│   └── · b .2  waiting",
        "└── · c .0  waiting  after a .1 and b .2",
    ]


def test_what_a_task_has_become_stands_under_it():
    inner = view_of(chain(c.s(), d.s()), "rs")
    shown = steps_of(chain(a.s(), b.s()), "rs", n0={"flow": inner, "word": "running", "since_ms": 0})
    assert shown[1:] == [
        "└── ● b .0  running  2.50 s",
        "    └── ● flow f  c | d  running, 1 of 2 done, 2.50 s",
        "        ├── ✓ c .1  succeeded",
        "        └── ○ d .0  released",
    ]


def test_names_that_end_alike_are_written_out():
    other = app.task(name="bank.a")(lambda: 1)
    assert [line.split()[2] for line in steps_of(chain(a.s(), other.si()))] == ["shop.a", "bank.a"]


def test_errors_cannot_break_the_lines_or_command_the_terminal():
    shown = steps_of(chain(a.s(), b.s()), "kf", n1={"error": "E: \x1b[2J\n" + "x" * 1000})
    assert len(shown) == 2
    assert "\x1b" not in shown[0]
    assert len(shown[0]) < 200


def test_a_file_that_lacks_the_signs_gets_letters():
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    print_flow(view_of(chain(a.s(), b.s()), "ws"), out, everything=False)
    out.seek(0)
    assert "+ a .1  succeeded" in out.read()


@pytest.mark.parametrize(
    ("ms", "text"),
    [(-5, "0 ms"), (7, "7 ms"), (1500, "1.50 s"), (12_340, "12.3 s"), (61_000, "1 m 1 s"), (90_000_000, "1 d 1 h")],
)
def test_time_spans(ms, text):
    assert span(ms) == text


# ---- charts


def test_a_chart_for_mermaid():
    drawn = flow_charts.chart(view_of(chain(a.s(), group(b.s(), c.s())).on_error(d.s()), "wswrs"), everything=False)
    assert flow_charts.mermaid(drawn).splitlines()[3:13] == [
        "flowchart TD",
        '  n2["a .2<br/>waiting"]',
        '  n0(["group<br/>waiting"])',
        '  n3["b .3<br/>released"]',
        '  n4["c .4<br/>succeeded"]:::succeeded',
        '  n1["d .1<br/>succeeded"]:::succeeded',
        "  n0 -. error .-> n1",
        "  n2 --> n3",
        "  n2 --> n4",
        "  n3 --> n0",
    ]


def test_a_chart_for_graphviz():
    drawn = flow_charts.chart(view_of(chain(a.s(), b.s()).on_error(c.s()), "ksf"), everything=False)
    assert flow_charts.dot(drawn).splitlines() == [
        "digraph flow {",
        '  label="flow f a | b: running"; labelloc=t;',
        '  node [shape=box, style="rounded,filled", fillcolor=white];',
        '  n2 [label="a .2\\nfailed", fillcolor="#ffcdd2"];',
        '  n0 [label="b .0\\nskipped"];',
        '  n1 [label="c .1\\nsucceeded", fillcolor="#c8e6c9"];',
        "  n0 -> n1 [style=dashed, label=error];",
        "  n2 -> n0;",
        "}",
    ]


@pytest.mark.parametrize("write", [flow_charts.mermaid, flow_charts.dot])
def test_many_are_one_box_in_a_chart(write):
    """With the arrows of all, each once; unless all are wanted."""
    view = view_of(chord([chain(a.s(n), b.s()) for n in range(300)], c.s()))
    assert len(write(flow_charts.chart(view, everything=False)).splitlines()) < 25
    assert len(write(flow_charts.chart(view, everything=True)).splitlines()) > 1200
    assert "300 waiting" in write(flow_charts.chart(view, everything=False))


@pytest.mark.parametrize("write", [flow_charts.mermaid, flow_charts.dot])
def test_what_a_task_has_become_is_in_the_chart(write):
    inner = view_of(chain(c.s(), d.s()), "rs")
    text = write(flow_charts.chart(view_of(chain(a.s(), b.s()), "rs", n0={"flow": inner}), everything=False))
    assert "n0_1" in text
    assert "subgraph" in text


def test_names_are_escaped_in_charts():
    odd = app.task(name='x"y<z>#`\\')(lambda: 1)
    drawn = flow_charts.chart(view_of(chain(odd.s(), a.si())), everything=False)
    assert "x#quot;y#lt;z#gt;#35;#96;#92; .1" in flow_charts.mermaid(drawn)
    assert r'[label="x\"y<z>#`\\ .1\nwaiting"]' in flow_charts.dot(drawn)
