"""``streamq flow``: show, list, cancel or retry flows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from streamq.cli.options import in_one_line, json_option, opened_app, print_any_text, server_options, to_json
from streamq.cli.spans import span
from streamq.config import check_task_id
from streamq.errors import FlowError, UnknownTaskId

if TYPE_CHECKING:
    from streamq.app import StreamQ
    from streamq.broker.flow_census import FlowHead, FlowNode, FlowView

_FAILED = 1
_LONGEST_LABEL = 50
_HEAD = ("id", "flow", "state", "done", "age", "took", "queue")
_queue_option = click.option(
    "-Q", "--queue", metavar="NAME", help="The queue of the flow's first task, where its state is; saves a search."
)


@click.group("flow")
def command() -> None:
    """Show, list, cancel or retry flows: chains, groups, chords and graphs of tasks."""


@command.command("list", short_help="List flows, those that began last first.")
@click.option("-Q", "--queue", metavar="NAME", help="Of this queue only.")
@click.option(
    "--state",
    type=click.Choice(["running", "failed", "succeeded", "cancelled"]),
    help="In this state only; a flow has failed as soon as there can be no value any more.",
)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="No more than so many.")
@json_option("Print a JSON array; times are seconds since 1970.")
@server_options
def list_flows(url: str, namespace: str, queue: str | None, state: str | None, limit: int, *, as_json: bool) -> None:
    """List flows, those that began last first; also the flows that tasks have become.

    Those that have ended are listed as long as their results are kept. Done: how many of the nodes have ended; besides
    tasks, groups are nodes.
    """
    from streamq.broker import calls, reads  # noqa: PLC0415 - --help must answer quickly
    from streamq.broker.flow_census import list_flows as read  # noqa: PLC0415
    from streamq.broker.walking import complete  # noqa: PLC0415

    print_any_text()
    with opened_app(url, namespace) as app:
        connection, keys = app.broker.sync, app.broker.keys
        names: list[str] = connection.run(calls.queue_names(keys)) if queue is None else [queue]
        found = complete(connection, read(keys, names))
        now_ms = connection.run(reads.now())
    found = [head for head in found if state in (None, head.state.value)]
    shown = found[:limit]
    if as_json:
        click.echo(to_json([_head_as_dict(head) for head in shown]))
        return
    if not found:
        _say("no flows" if state or queue else f"no flows yet under the namespace {namespace!r}")
        return
    _print_table([_row(head, now_ms) for head in shown])
    if len(found) > limit:
        _say(f"{len(found) - limit} more: --limit {len(found)} shows all")


@command.command("show", short_help="Show the steps of a flow, and how each stands.")
@click.argument("flow_id", metavar="ID")
@_queue_option
@json_option("Print a JSON object with all nodes; times are seconds since 1970.")
@click.option("--mermaid", is_flag=True, help="Print a chart for Mermaid.")
@click.option("--dot", is_flag=True, help="Print a chart for Graphviz.")
@click.option("--all", "everything", is_flag=True, help="Show each node, also of many that are alike.")
@server_options
def show(
    flow_id: str,
    url: str,
    namespace: str,
    queue: str | None,
    *,
    as_json: bool,
    everything: bool,
    **chart: bool,
) -> None:
    """Show the flow ID: its steps one below the other, and the members of a group under it, each with its state.

    Many members of one kind are one line that counts them, with some of those that have failed. The time of a task is
    that from its enqueue to its end.

    Exit code: 1 if there is no such flow, or it has failed or was cancelled.
    """
    if as_json + sum(chart.values()) > 1:
        raise click.UsageError("give one of --json, --mermaid and --dot")
    print_any_text()
    view = _read(url, namespace, queue, flow_id)
    if as_json:
        click.echo(to_json(_as_dict(view)))
    elif any(chart.values()):
        from streamq.cli import flow_charts  # noqa: PLC0415 - --help must answer quickly

        drawn = flow_charts.chart(view, everything=everything)
        click.echo(flow_charts.mermaid(drawn) if chart["mermaid"] else flow_charts.dot(drawn))
    else:
        from streamq.cli.flow_tree import print_flow  # noqa: PLC0415

        print_flow(view, sys.stdout, everything=everything)
    sys.exit(_FAILED if view.head.state.value in ("failed", "cancelled") else 0)


@command.command("cancel", short_help="Cancel flows.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@_queue_option
@server_options
def cancel(ids: tuple[str, ...], url: str, namespace: str, queue: str | None) -> None:
    """Cancel flows: what has not ended of them ends as cancelled, and what has not begun never does.

    Exit code: 1 if the flow of an ID has ended already or is not known.
    """
    from streamq.broker.flowing import carry  # noqa: PLC0415 - --help must answer quickly
    from streamq.broker.walking import complete  # noqa: PLC0415

    print_any_text()
    count = 0
    with opened_app(url, namespace) as app:
        broker = app.broker
        for flow_id in map(check_task_id, ids):
            with _saying_why(flow_id, "cancelled"):
                head = _find(app, flow_id, queue)
                if not broker.cancel(head.queue, flow_id):
                    _say(f"{in_one_line(flow_id)} is not cancelled: it has ended")
                    continue
                complete(broker.sync, carry(broker.keys, [(head.queue, f"flow:{flow_id}")], broker.ttl_ms))
                count += 1
    click.echo(f"{count} cancelled")
    sys.exit(0 if count == len(ids) else _FAILED)


@command.command("retry", short_help="Have what has failed of flows run again.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--failed", is_flag=True, help="Those tasks that have failed; has to be said.")
@_queue_option
@server_options
def retry(ids: tuple[str, ...], url: str, namespace: str, queue: str | None, *, failed: bool) -> None:
    """Have those tasks of flows run again that have failed, are dead, have expired or were cancelled.

    What has succeeded stays, and its values are used; what did not run because of them waits for them again. Error
    callbacks that have run stay as they are. Prints how many tasks run again.

    Exit code: 1 if there is nothing to retry in one of the flows, or it is not known.
    """
    print_any_text()
    if not failed:
        raise click.UsageError("say what to retry: --failed")
    code = 0
    with opened_app(url, namespace) as app:
        for flow_id in map(check_task_id, ids):
            count = 0
            with _saying_why(flow_id, "retried"):
                count = app.broker.retry_flow(_find(app, flow_id, queue).queue, flow_id)
                click.echo(f"{in_one_line(flow_id)}: {count} task{'s' * (count != 1)} run{'s' * (count == 1)} again")
            code = code if count else _FAILED
    sys.exit(code)


@contextmanager
def _saying_why(flow_id: str, what: str) -> Iterator[None]:
    """Say why something could not be done with one flow, and go on to the next."""
    try:
        yield
    except (FlowError, UnknownTaskId) as error:
        _say(f"{in_one_line(flow_id)} is not {what}: {in_one_line(str(error))}")


def _find(app: StreamQ, flow_id: str, queue: str | None) -> FlowHead:
    """Find a flow by its id.

    Raises:
        UnknownTaskId: there is none.
        FlowError: the task with this id is no flow.
    """
    from streamq.broker.flow_census import read_head  # noqa: PLC0415 - --help must answer quickly
    from streamq.broker.walking import complete  # noqa: PLC0415

    queue = queue or app.broker.find_queue(flow_id)
    head = complete(app.broker.sync, read_head(app.broker.keys, queue, flow_id)) if queue else None
    if head is not None:
        return head
    if queue and app.broker.look(queue, flow_id).state.value != "unknown":
        raise FlowError(f"it is a task and no flow; streamq result {in_one_line(flow_id)} shows it")
    raise UnknownTaskId("there is no such flow: it never began, has expired, or was forgotten")


def _read(url: str, namespace: str, queue: str | None, flow_id: str) -> FlowView:
    from streamq.broker.flow_census import read_flow  # noqa: PLC0415 - --help must answer quickly
    from streamq.broker.walking import complete  # noqa: PLC0415

    with opened_app(url, namespace) as app:
        try:
            head = _find(app, check_task_id(flow_id), queue)
        except (FlowError, UnknownTaskId) as error:
            _say(f"{in_one_line(flow_id)}: {in_one_line(str(error))}")
            sys.exit(_FAILED)
        return complete(app.broker.sync, read_flow(app.broker.keys, head))


def _head_as_dict(head: FlowHead) -> dict[str, Any]:
    return {
        "id": head.id,
        "label": head.label,
        "queue": head.queue,
        "state": head.state.value,
        "size": head.size,
        "done": head.size - head.left,
        "made": head.made_ms / 1000,
        "ended": _seconds(head.ended_ms),
        "error": head.error or None,
    }


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


def _as_dict(view: FlowView) -> dict[str, Any]:
    from streamq.refs import each  # noqa: PLC0415 - --help must answer quickly

    before: dict[int, list[int]] = {number: [] for number in view.nodes}
    for node in view.nodes.values():
        for one in (*each(node.to), *each(node.err)):
            before.setdefault(one, []).append(node.node)
    nodes = [_node_as_dict(node, before[number]) for number, node in sorted(view.nodes.items())]
    return {**_head_as_dict(view.head), "out": view.head.out, "start": [*view.start], "nodes": nodes}


def _node_as_dict(node: FlowNode, needs: list[int]) -> dict[str, Any]:
    from streamq.cli.flow_shape import word_of  # noqa: PLC0415 - --help must answer quickly
    from streamq.refs import each  # noqa: PLC0415

    shown: dict[str, Any] = {"node": node.node, "state": word_of(node), "needs": needs, "to": [*each(node.to)]}
    shown["on_error"] = [*each(node.err)]
    if not node.task:
        return {**shown, "group": node.policy}
    shown |= {"task": node.task, "id": node.task_id, "queue": node.queue, "error": node.error or None}
    shown |= {"enqueued": _seconds(node.since_ms), "ended": _seconds(node.ended_ms)}
    return {**shown, "flow": _as_dict(node.flow)} if node.flow else shown


def _row(head: FlowHead, now_ms: int) -> tuple[str, ...]:
    done = f"{head.size - head.left:,}/{head.size:,}"
    took = "-" if head.ended_ms is None else span(head.ended_ms - head.made_ms)
    label = (
        head.label
        if len(head.label) <= _LONGEST_LABEL
        else f"{head.label[: _LONGEST_LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"
    )
    row = (head.id, label or "-", head.state.value, done, span(now_ms - head.made_ms), took, head.queue)
    return tuple(map(in_one_line, row))


def _print_table(rows: list[tuple[str, ...]]) -> None:
    lines = [_HEAD, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(map(str.ljust, line, widths)).rstrip())


def _say(text: str) -> None:
    click.echo(f"streamq: {text}", err=True)
