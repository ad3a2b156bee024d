"""Flows without workers: the tests run their tasks, one by one, and say how each ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from streamq import StreamQ
from streamq.broker import calls, cancels, flows
from streamq.broker.flow_census import read_head, read_states
from streamq.broker.flow_retry import retry_flow
from streamq.broker.flowing import become, carry
from streamq.broker.walking import Steps, complete
from streamq.lifecycle import State
from streamq.message import Delivery
from streamq.nodes import Drawing
from streamq.sending import part_of
from streamq.workflows.canvas import Canvas

TTL_MS = 60_000
ERROR = b'{"type":"ValueError","message":"no tea","args":[],"traceback":""}'


class FlowBench:
    """The flows of an app, and a worker that is the test itself.

    Attributes:
        ran: the ids of the tasks that were run since the last look.
        becomes: what tasks become when they are run next, by id.
    """

    def __init__(self, app: StreamQ) -> None:
        self.broker = app.broker
        self.keys = app.broker.keys
        self.ran: list[str] = []
        self.becomes: dict[str, Canvas] = {}

    def do(self, steps: Steps):
        return complete(self.broker.sync, steps)

    def redis(self, *words):
        return self.broker.sync.client.execute_command(*words)

    def home(self, queue: str = "default") -> flows.Home:
        return flows.Home.of(self.keys, queue, TTL_MS)

    def fetch(self, queue: str = "default") -> list[Delivery]:
        """Take all that waits in a queue."""
        keys = self.keys.queue(queue)
        streams = [key for key in keys.all_streams if self.redis("EXISTS", key)]
        return self.broker.sync.run(calls.fetch(dict.fromkeys(streams, queue), "w-1", 1000, 0)) if streams else []

    def end(self, delivery: Delivery, state: State = State.SUCCEEDED, body: bytes = b"1") -> bool:
        """Commit an outcome, and carry on with what that leads to; False if it was refused."""
        part = part_of(delivery.message)
        assert part is not None
        settlement = calls.Settlement(delivery, state, body)
        home = self.home(delivery.message.queue)
        done = self.broker.sync.run(flows.finish(home, delivery.stream, [settlement], worker="w-1"))
        self.do(carry(self.keys, [(home.queue.name, member) for member in done.more], TTL_MS))
        return not done.refused

    def become(self, delivery: Delivery, canvas: Canvas) -> None:
        """Have a task that was taken become a flow."""
        home = self.home(delivery.message.queue)
        graph = canvas.to_graph(root="root", flow_id=delivery.message.id, home=home.queue.name)
        chunks = tuple(graph.chunks())
        drawing = Drawing(chunks, graph.label, graph.out, graph.size, tuple(graph.roots))
        begun = self.do(become(home, delivery, drawing, None))
        assert begun.is_new
        if begun.goes_on:
            self.do(carry(self.keys, [(home.queue.name, f"flow:{delivery.message.id}")], TTL_MS))

    def work(self, *queues: str, fails: Callable[[str], bool] = lambda _: False) -> None:
        """Run all that waits, and what follows; tasks fail of whose names `fails` says so."""
        names = queues or ("default",)
        while found := [one for name in names for one in self.fetch(name)]:
            for one in found:
                if one.message.id in self.becomes:
                    self.become(one, self.becomes.pop(one.message.id))
                    continue
                self.ran.append(one.message.id)
                is_bad = fails(one.message.id)
                assert self.end(one, State.FAILED if is_bad else State.SUCCEEDED, ERROR if is_bad else b"1")

    def took(self) -> list[str]:
        """Give the nodes of what was run since the last look, sorted."""
        ran, self.ran = self.ran, []
        return sorted(one.rpartition(".")[2] for one in ran)

    def cancel(self, flow_id: str, queue: str = "default") -> None:
        self.do(cancels.cancel_one(self.keys, queue, flow_id, TTL_MS))
        self.do(carry(self.keys, [(queue, f"flow:{flow_id}")], TTL_MS))

    def retry(self, flow_id: str, queue: str = "default") -> int:
        return self.do(retry_flow(self.keys, queue, flow_id, TTL_MS))

    def states(self, flow_id: str, queue: str = "default") -> str:
        head = self.do(read_head(self.keys, queue, flow_id))
        return self.do(read_states(self.keys.queue(queue), flow_id, head.size))

    def record(self, task_id: str, queue: str = "default") -> Mapping[str, str]:
        words = [word.decode() for word in self.redis("HGETALL", self.keys.queue(queue).record(task_id))]
        return dict(zip(words[::2], words[1::2], strict=True))
