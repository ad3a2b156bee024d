"""Flows whose graphs are written by hand, and the scripts of flows, each called alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from streamq._redis.keys import Keys
from streamq._redis.scripts import Call
from streamq.broker import flow_reads, flows
from streamq.broker.calls import Settlement
from streamq.broker.flows import Home, Plan
from streamq.lifecycle import State
from streamq.message import Delivery
from streamq.nodes import Chunk, node_id

TTL_MS = 60_000
Node = Mapping[str, Any]


def task(args: str = "[]", **said: Any) -> Node:
    """Make a node of a task; `before` are the nodes whose values it gets, `to` and `err` those that follow."""
    return {"like": 0, "args": args, **_said(said)}


def join(policy: str = "fail", **said: Any) -> Node:
    """Make a node that waits for others."""
    return {"join": policy, **_said(said)}


def _said(said: dict[str, Any]) -> dict[str, Any]:
    return {"in" if name == "before" else name: value for name, value in said.items()}


def like(name: str = "shop.buy", *, follow: Sequence[int] = (), home: str = "q", **said: Any) -> dict[str, Any]:
    """Make what nodes share; `follow`: nodes that may be enqueued in the step that commits one of these."""
    part: dict[str, Any] = {"home": home}
    if follow:
        part["next"] = [[node, 5] for node in follow]
    return {"task": name, "options": json.dumps({"flow": part}, separators=(",", ":")), **said}


class Flows:
    """The scripts of flows whose home is one queue, and what they leave.

    Args:
        connection: to the server.
        queue: the name of the home.
    """

    def __init__(self, connection: Any, queue: str = "q") -> None:
        self.keys = Keys("sq")
        self.home = Home.of(self.keys, queue, TTL_MS)
        self.queue = self.home.queue
        self._connection = connection

    def run(self, call: Call[Any]) -> Any:
        return self._connection.run(call)

    def redis(self, *words: Any) -> Any:
        return self._connection.client.execute_command(*words)

    # ---- steps

    def chunk(self, nodes: Mapping[int, Node], likes: Sequence[Mapping[str, Any]], start: Any = None) -> Chunk:
        fields = {**nodes, **{f"like:{n}": one for n, one in enumerate(likes)}}
        if start is not None:
            fields["start"] = {"to": start}
        written = [(str(name), json.dumps(one, separators=(",", ":")).encode()) for name, one in fields.items()]
        return Chunk(written, [(min(nodes), "w" * len(nodes))] if nodes else [])

    def start(
        self,
        nodes: Mapping[int, Node],
        likes: Sequence[Mapping[str, Any]] = (),
        *,
        start: Sequence[Any],
        roots: Iterable[int] | None = None,
        flow_id: str = "f",
    ) -> flows.Begun:
        """Have a flow begin, whose value is that of node 0; `roots`: those of `start` that can be enqueued at once."""
        last = self.chunk(nodes, likes or [like(follow=[*nodes][:4])], start)
        near = [(node, 5) for node in (start if roots is None else roots)]
        plan = Plan(last, is_small=True, label="a label", out=0, size=len(nodes), roots=near)
        return self.run(flows.start(self.home, flow_id, plan))

    def finish(
        self, *deliveries: Delivery, state: State = State.SUCCEEDED, body: bytes = b"1", ttl_ms: int = TTL_MS
    ) -> flows.Finished:
        """Commit outcomes, on the queue where the deliveries came from."""
        home = Home.of(self.keys, deliveries[0].message.queue, ttl_ms)
        settlements = [Settlement(one, state, body) for one in deliveries]
        return self.run(flows.finish(home, deliveries[0].stream, settlements, worker="w-1"))

    def tell(self, *nodes: int, state: State = State.SUCCEEDED, body: bytes = b"1", flow_id: str = "f") -> list[str]:
        """Tell that nodes have ended elsewhere."""
        return self.run(flows.told(self.home, [flows.End(node_id(flow_id, node), state, body) for node in nodes]))

    def step(self, *sent: int, swept: int = -1, flow_id: str = "f") -> flows.Step:
        return self.run(flows.step(self.home, flow_id, sent, swept))

    def let_go(self, *task_ids: str, queue: str = "q") -> None:
        self.run(flows.let_go(self.keys.queue(queue), task_ids, TTL_MS))

    def ended(self, *task_ids: str, queue: str = "q") -> list[flow_reads.Ended]:
        return self.run(flow_reads.ended(self.keys.queue(queue), task_ids))

    # ---- what is there

    def states(self, flow_id: str = "f") -> str:
        return self.redis("GET", self.queue.flow(flow_id)[1]).decode()

    def record(self, flow_id: str = "f") -> dict[str, str]:
        words = [word.decode() for word in self.redis("HGETALL", self.queue.record(flow_id))]
        return dict(zip(words[::2], words[1::2], strict=True))

    def outbox(self, queue: str = "q") -> list[str]:
        return [one.decode() for one in self.redis("ZRANGE", self.keys.queue(queue).outbox, 0, -1)]

    def listed(self, part: str, flow_id: str = "f") -> list[str]:
        """Give the list ``todo`` or ``sends``."""
        key = self.queue.flow(flow_id)[{"todo": 5, "sends": 6}[part]]
        return [one.decode() for one in self.redis("LRANGE", key, 0, -1)]

    def lives(self, flow_id: str = "f") -> set[bool]:
        """Say of the keys of a flow that are there whether they have a time to live."""
        found = [self.redis("PTTL", key) for key in self.queue.flow(flow_id)]
        return {ttl != -1 for ttl in found if ttl != -2}

    def kept_until(self, flow_id: str = "f") -> float:
        return float(self.redis("ZSCORE", self.queue.flows, flow_id))
