"""How flows begin, and go on where a single step cannot do it: calls in turn, each of which can be made again. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from streamq._redis.keys import Keys
from streamq.broker import calls, cancels, flow_reads, flows, reads
from streamq.broker.batch import enqueue_all
from streamq.broker.flows import End, Found, Home, Plan
from streamq.broker.gathering import gather
from streamq.broker.records import stored_error
from streamq.broker.walking import Steps
from streamq.errors import UnknownTaskId
from streamq.lifecycle import State
from streamq.message import Delivery, Message
from streamq.nodes import Chunk, Drawing, Stored, node_id, read_like
from streamq.sending import level_of

Work = tuple[str, str]
"""The name of a queue, and a member of its outbox."""


def _write(
    home: Home, flow_id: str, chunks: Iterable[Chunk], fence: int | None = None
) -> Steps[tuple[Chunk, bool] | None]:
    """Write all of a graph but its last part; returns that, and whether it is all of it.

    Returns None if the flow has begun, or the task with this fence is another worker's by now.
    """
    last: Chunk | None = None
    is_small = True
    for chunk in chunks:
        if last is not None:
            if not (yield flows.add(home.queue, flow_id, last, is_first=is_small, fence=fence)):
                return None
            is_small = False
        last = chunk
    assert last is not None  # noqa: S101 - a graph without a node is none
    return last, is_small


def prepare(home: Home, graph: Stored, flow_id: str) -> Steps[Plan | None]:
    """Write all of a graph but its last part; None if its flow has begun."""
    now_ms = 0
    if graph.needs_time:
        now_ms = yield reads.now()
    rest = yield from _write(home, flow_id, graph.chunks(lambda: now_ms))
    return None if rest is None else Plan(*rest, graph.label, graph.out, graph.size, graph.roots)


def become(home: Home, delivery: Delivery, drawing: Drawing, own: bytes | None) -> Steps[flows.Begun]:
    """Have a task that has run become a flow; `own`: its own result, if the flow only adds to it."""
    rest = yield from _write(home, delivery.message.id, drawing.chunks, delivery.fence)
    # If it is refused, it is another worker's; or it is a flow already, and the reply that said so got lost: ask.
    plan = Plan(*(rest or (drawing.chunks[-1], False)), drawing.label, drawing.out, drawing.size, drawing.roots)
    begun: flows.Begun = yield flows.become(home, delivery, plan, own)
    return begun


def carry(keys: Keys, work: Iterable[Work], ttl_ms: int) -> Steps[None]:
    """See to what is in outboxes, and to what that leads to."""
    todo = dict.fromkeys(work)
    while todo:
        queue, member = next(iter(todo))
        home = Home.of(keys, queue, ttl_ms)
        kind, _, one = member.partition(":")
        if kind == "flow":
            del todo[queue, member]
            todo |= dict.fromkeys((yield from _carry_flow(keys, home, one)))
            continue
        ends = [member for name, member in todo if name == queue and member.startswith("end:")]
        for one in (member, *ends):  # what newer versions put there is not for us
            todo.pop((queue, one), None)
        todo |= dict.fromkeys((yield from _carry_ends(keys, home, [end.partition(":")[2] for end in ends])))


def _carry_flow(keys: Keys, home: Home, flow_id: str) -> Steps[list[Work]]:
    """Take a flow on as far as it goes; returns what there is more to do."""
    more: list[Work] = []
    sent: list[int] = []
    swept = -1
    while True:
        step: flows.Step = yield flows.step(home, flow_id, sent, swept)
        more += [(home.queue.name, member) for member in step.more if member != f"flow:{flow_id}"]
        if step.what == "done":
            return more
        if step.what == "cancel":
            yield from _cancel(keys, home, flow_id, step.nodes)
            swept, sent = step.nodes[-1].node, []
        else:
            more += yield from _send(keys, home, flow_id, step.nodes)
            sent = [found.node for found in step.nodes]


def _message(home: Home, flow_id: str, found: Found) -> Message:
    like = read_like(found.like)
    return Message(
        node_id(flow_id, found.node),
        like.task,
        like.queue or home.queue.name,
        found.args,
        like.delay_ms,
        like.options,
        like.terms,
    )


def _send(keys: Keys, home: Home, flow_id: str, nodes: Iterable[Found]) -> Steps[list[Work]]:
    """Enqueue the tasks of nodes, each on its queue; one that is there already is left alone.

    Returns what there is more to do: what is there already may have ended, and its flow be told that again.
    """
    there: list[Work] = []
    plain: defaultdict[tuple[str, int], list[Message]] = defaultdict(list)
    for message in (_message(home, flow_id, found) for found in nodes if found.spec):
        if message.terms is None:
            plain[message.queue, level_of(message.options)].append(message)
            continue
        put = yield enqueue_all(keys, [message])
        there += [(message.queue, f"end:{message.id}")] if put.there else []
        if put.queues:
            yield calls.register_queues(keys, put.queues)
    for (queue, level), messages in plain.items():
        found = yield calls.enqueue(keys.queue(queue), messages, level)
        there += [(queue, f"end:{messages[position].id}") for position in found.known]
        if found.to_note:
            yield calls.register_queues(keys, [queue])
    return there


def cancel_flow(keys: Keys, queue: str, flow_id: str, ttl_ms: int) -> Steps[bool]:
    """Cancel a flow and all that belongs to it; returns whether it is cancelled."""
    is_cancelled = yield from cancels.cancel_one(keys, queue, flow_id, ttl_ms)
    if is_cancelled:
        yield from carry(keys, [(queue, f"flow:{flow_id}")], ttl_ms)
    return is_cancelled


def _cancel(keys: Keys, home: Home, flow_id: str, nodes: Iterable[Found]) -> Steps[None]:
    """Cancel the tasks of nodes, wherever they are, and the flows that they have become."""
    by_queue: defaultdict[str, list[str]] = defaultdict(list)
    for found in nodes:
        if found.spec:
            queue = read_like(found.like).queue or home.queue.name
            by_queue[queue].append(node_id(flow_id, found.node))
    canceller = cancels.Canceller(keys.done, home.ttl_ms, running=True)
    for queue, task_ids in by_queue.items():
        there = keys.queue(queue)
        done = yield from canceller.cancel(there, [cancels.Place(task_id) for task_id in task_ids])
        flows_there = yield flows.noted(there, task_ids)
        yield from carry(keys, [(queue, f"flow:{task_id}") for task_id in flows_there], home.ttl_ms)
        yield from _carry_ends(keys, Home.of(keys, queue, home.ttl_ms), done)
        others = [task_id for task_id in task_ids if task_id not in done]
        for task_id in others:  # they are on other queues, or nowhere yet, or have ended
            yield from cancels.cancel_one(keys, queue, task_id, home.ttl_ms)
        if others:
            yield flows.told(home, [End(task_id, State.CANCELLED, cancels.ERROR) for task_id in others])


def _carry_ends(keys: Keys, home: Home, task_ids: Sequence[str]) -> Steps[list[Work]]:
    """Tell flows of tasks that have ended; returns what there is more to do."""
    work: list[Work] = []
    while task_ids:
        found = yield flow_reads.ended(home.queue, task_ids)
        by_home: defaultdict[str, list[End]] = defaultdict(list)
        for task_id, ended in zip(task_ids, found, strict=False):
            if ended.state is not None and ended.state.ended and ended.home:
                by_home[ended.home].append((yield from _end_of(home, task_id, ended, ended.state)))
        for name, ends in by_home.items():
            members = yield flows.told(Home.of(keys, name, home.ttl_ms), ends)
            work += [(name, member) for member in members]
        yield flows.let_go(home.queue, task_ids[: len(found)], home.ttl_ms)
        task_ids = task_ids[len(found) :]
    return work


def _end_of(home: Home, task_id: str, ended: flow_reads.Ended, state: State) -> Steps[End]:
    """Say how a task has ended; of one that has become a flow the value may have to be put together."""
    if ended.out is None or state is not State.SUCCEEDED or (ended.body and not ended.is_more):
        return End(task_id, state, ended.body)
    try:
        value = yield from gather(home.queue, task_id, ended.out)
    except UnknownTaskId as error:
        return End(task_id, State.FAILED, stored_error(type(error), str(error)))
    return End(task_id, state, ended.body, value[1:-1]) if ended.is_more else End(task_id, state, value)
