"""Row 16: another server becomes the master, because the first was killed, or because it was cut off and did not know.

The clients are on its side of the cut, so for a while there are two masters, and what only the old one has been given
is gone when it is a replica again. Half of the tasks are enqueued with ``durability="replica"``: of these none may be
lost. The other half shows that the faults could do it: what is lost of them is counted.

Server, replicas and Sentinel are processes of this machine, whatever server the campaign is told.
"""

from __future__ import annotations

import time
from pathlib import Path

import redis

from tests.chaos import check
from tests.chaos.producer import Order, Producer
from tests.chaos.report import Report
from tests.chaos.server import Server, version_of
from tests.chaos.stage import Case, Stage
from tests.nodes import Node
from tests.workers import until

LEASE = 1.5
TASKS = 1500
SECONDS = 10.0  # for which they are enqueued
LAG = 0.3  # seconds for which a master that is killed has been without its replica
SPLIT = 1.0  # seconds for which there are two masters
_SERVICE, _PEER = "shop", "peer"
_SENTINEL_PERIODS = {"info-period": 200, "ping-period": 200, "publish-period": 200, "ask-period": 200}  # ms


def run(case: Case) -> Report:
    """Play the row."""
    with Stage(case, start=Watched) as stage:
        rnd, servers = stage.random, stage.server
        stage.fleet.start(2, lease=LEASE)
        loose = Producer(stage.app, "loose")
        _begin(stage, stage.producer, "replica")
        _begin(stage, loose, "async")
        for kind, harm in (("master killed", servers.kill_master), ("master cut off", servers.cut_off)):
            time.sleep(rnd.uniform(0.8, 1.6))
            stage.strike(kind)
            harm()
        loose.join()
        report = stage.finish(lease=LEASE)
        _account(report, stage, loose)
        report.more["failover_max"] = round(max(servers.took), 2)
        stage.failed = not report.ok
        return report


def _begin(stage: Stage, producer: Producer, durability: str) -> None:
    rnd = stage.random
    orders = [
        Order(rnd.choice(("on_loop", "in_thread")), (rnd.uniform(0, 0.1),), durability=durability)
        for _ in range(TASKS // 2)
    ]
    producer.begin(orders, seconds=SECONDS)


def _account(report: Report, stage: Stage, loose: Producer) -> None:
    found = check.records(stage.server.client, loose.acknowledged)
    lost = [task_id for task_id in loose.acknowledged if "ended" not in found.get(task_id, {})]
    ran = {line.id for line in stage.lines()}
    report.tasks += len(loose.acknowledged)
    report.more |= {
        "not_durable": stage.producer.errors.count("NotDurable"),
        "lost_without_durability": len(lost),
        "of_these_have_run": len(ran & set(lost)),
    }
    report.require(len(stage.producer.acknowledged) == len(loose.acknowledged) == TASKS // 2, "not all were sent")
    report.require(not set(lost) & set(found), "some that were not lost have no end")
    report.require(bool(lost), "no task was lost without durability: the faults could do no harm")


class Watched(Server):
    """A server, its replica and a Sentinel that watches them.

    Replica and Sentinel have a user of their own: without it, a server is cut off from them, and not from its clients.

    Attributes:
        master: who it is now.
        took: seconds from each fault to the next master.
    """

    def __init__(self, _name: str, folder: Path) -> None:
        self._folder = folder
        self._nodes: list[Node] = []
        self.took: list[float] = []
        self.master, self._replica = self._node(), self._node()
        self._replica.follow(self.master)
        self._sentinel = self._node_of_sentinel()
        self._until_watched()
        self.url = self.master.url
        self.way = f"redis+sentinel://:mine@127.0.0.1:{self._sentinel.port}/{_SERVICE}/0"
        self.version = version_of(self.master.client)

    @property
    def client(self) -> redis.Redis:
        """A client of who is master now."""
        return self.master.client

    def _node(self) -> Node:
        peer = f"{_PEER} on >its ~* &* +@all"
        words = ("requirepass", "mine", "user", peer, "masteruser", _PEER, "masterauth", "its")
        self._nodes.append(Node(self._folder / f"node{len(self._nodes)}", *words, login="mine"))
        return self._nodes[-1]

    def _node_of_sentinel(self) -> Node:
        words = {
            "monitor": f"127.0.0.1 {self.master.port} 1",
            "auth-user": _PEER,
            "auth-pass": "its",
            "down-after-milliseconds": 500,
            "failover-timeout": 1000,
        }
        options = [word for name, value in words.items() for word in (f"sentinel {name} {_SERVICE}", value)]
        sentinel = Node(self._folder / "sentinel", *options, sentinel=True)
        self._nodes.append(sentinel)
        for name, period in _SENTINEL_PERIODS.items():
            sentinel.run("SENTINEL", "DEBUG", name, period)
        return sentinel

    def _until_watched(self) -> None:
        def is_known() -> bool:
            replicas = self._sentinel.client.sentinel_slaves(_SERVICE)
            return any(one["port"] == self._replica.port and not one["is_disconnected"] for one in replicas)

        until(is_known, why="the Sentinel does not know the replica")

    def _cut(self) -> None:
        self.master.run("ACL", "SETUSER", _PEER, "off")
        self.master.run("CLIENT", "KILL", "USER", _PEER)

    def _mend(self, node: Node) -> None:
        node.run("ACL", "SETUSER", _PEER, "on")
        for one in node.client.client_list():
            if not one["name"]:  # nor a client's: a Sentinel that was refused goes on asking, and does not log in again
                node.client.client_kill_filter(_id=one["id"])

    def _until_switched(self) -> Node:
        """Wait for the replica to be master; returns the server that was it before."""

        def is_master() -> bool:
            named = self._sentinel.client.sentinel_get_master_addr_by_name(_SERVICE)
            return named[1] == self._replica.port and self._replica.client.info("replication")["role"] == "master"

        began = time.monotonic()
        until(is_master, seconds=15, why="the Sentinel does not make the replica the master")
        self.took.append(time.monotonic() - began)
        old, self.master = self.master, self._replica
        return old

    def kill_master(self) -> None:
        """Kill it, some time after it has lost its replica, and have a new server be the replica of the next master."""
        self._cut()
        time.sleep(LAG)
        self.master.kill()
        self._until_switched()
        self._replica = self._node()
        self._replica.follow(self.master)
        self._until_watched()

    def cut_off(self) -> None:
        """Cut the master off from replica and Sentinel, until there has been another master for some time."""
        self._cut()
        self._replica = old = self._until_switched()
        time.sleep(SPLIT)
        self._mend(old)
        until(lambda: old.client.info("replication")["role"] == "slave", why="the old master does not become a replica")
        until(lambda: old.client.info("replication")["master_link_status"] == "up", why="it does not catch up")

    def close(self) -> None:
        for node in self._nodes:
            node.close()
