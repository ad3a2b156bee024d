"""Redis Clusters of a few nodes, as processes that a test may kill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
from redis.crc import key_slot

from tests.nodes import Node, free_port
from tests.workers import until

SLOTS = 16384


def raw(node: Node, *words: str | int) -> Any:
    """Run a command, and return the reply as it is."""
    with redis.Redis(port=node.port, protocol=2, decode_responses=True) as client:
        client.response_callbacks.clear()
        return client.execute_command(*words)


def _reaches_all(node: Node) -> bool:
    """Tell whether a node is connected to all others: what is published there is lost to those it cannot reach."""
    known = raw(node, "CLUSTER", "NODES")
    return "handshake" not in known and "disconnected" not in known


class Cluster:
    """Some masters, which share the slots, and a replica of each if that is asked for."""

    def __init__(self, start_node: Callable[..., Node], masters: int = 3, *, replicas: bool = False) -> None:
        def start() -> Node:
            options = ("cluster-enabled", "yes", "cluster-port", free_port(), "cluster-node-timeout", 3000)
            return start_node(*options, "cluster-replica-validity-factor", 0)

        self.masters = [start() for _ in range(masters)]
        self.replicas = [start() for _ in range(masters if replicas else 0)]
        self.nodes = [*self.masters, *self.replicas]
        first, *others = self.nodes
        for other in others:
            bus = raw(other, "CONFIG", "GET", "cluster-port")[1]
            first.run("CLUSTER", "MEET", "127.0.0.1", other.port, bus)
        for number, master in enumerate(self.masters):
            master.run("CLUSTER", "ADDSLOTSRANGE", SLOTS * number // masters, SLOTS * (number + 1) // masters - 1)
        self._all(lambda node: f"cluster_known_nodes:{len(self.nodes)}" in raw(node, "CLUSTER", "INFO"))
        for master, replica in zip(self.masters, self.replicas, strict=False):
            replica.run("CLUSTER", "REPLICATE", self.id_of(master))
            until(
                lambda one=replica: one.client.info("replication")["master_link_status"] == "up", why="no replication"
            )
        self._all(lambda node: "cluster_state:ok" in raw(node, "CLUSTER", "INFO"))
        self._all(_reaches_all)
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def _all(self, holds: Callable[[Node], object]) -> None:
        until(lambda: all(holds(node) for node in self.nodes), seconds=30, why="the nodes do not find each other")

    def id_of(self, node: Node) -> str:
        return str(raw(node, "CLUSTER", "MYID"))

    def owner(self, key: str, *, among: list[Node] | None = None) -> Node:
        """Find the master that has the slot of a key, as `among` or all say."""
        asked = (among or self.nodes)[0]
        slot = key_slot(key.encode())
        port = next(part[2][1] for part in raw(asked, "CLUSTER", "SLOTS") if part[0] <= slot <= part[1])
        return next(node for node in self.nodes if node.port == port)

    def move(self, key: str, target: Node) -> None:
        """Give the slot of a key, in which nothing lies, to another master."""
        slot, source = key_slot(key.encode()), self.owner(key)
        node = self.id_of(target)
        target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", node)
        target.run("CLUSTER", "SETSLOT", slot, "NODE", node)
        source.run("CLUSTER", "SETSLOT", slot, "NODE", node)
        self._all(lambda asked: self.owner(key, among=[asked]) is target)

    def flush(self) -> None:
        for node in self.masters:
            node.run("FLUSHALL")
