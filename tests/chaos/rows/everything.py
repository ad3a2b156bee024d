"""Row 1: everything at once. Workers are killed, stopped and replaced, the network fails, the server is killed."""

from __future__ import annotations

import time

from tests.chaos.producer import Order
from tests.chaos.report import Report
from tests.chaos.stage import Case, Stage
from tests.proxy import Fault

LEASE = 1.5
KINDS = ("child", "child", "worker", "supervisor", "freeze", "freeze", "replace", "start", "hole", "server")
TASKS = (("on_loop", 6), ("in_thread", 3), ("third_time", 1))
STORM = (Fault.BEFORE, Fault.AFTER, Fault.DELAY)
HELD_UP = ("finish", "XREADGROUP", "renew", "XAUTOCLAIM")  # calls that fall into a black hole now and then


def run(case: Case) -> Report:
    """Play the row."""
    tasks, rounds = (500, 1) if case.smoke else (2000, 3)
    with Stage(case) as stage:
        rnd = stage.random
        names, weights = zip(*TASKS, strict=True)
        orders = [Order(name, (rnd.uniform(0, 0.1),)) for name in rnd.choices(names, weights, k=tasks)]
        stage.fleet.start(3, "-p", "2", lease=LEASE, grace=2.0)
        stage.proxy.storm(case.seed, 0.01, STORM, seconds=0.2)
        stage.producer.begin(orders, seconds=6.0 * rounds)
        for _ in range(rounds):
            for kind in rnd.sample(KINDS, len(KINDS)):
                time.sleep(rnd.uniform(0.2, 0.8))
                harm(stage, kind)
        return stage.finish(lease=LEASE)


def harm(stage: Stage, kind: str) -> None:
    """Have a fault of this kind happen."""
    rnd = stage.random
    match kind:
        case "child":
            stage.fleet.kill_child()
        case "worker":
            stage.fleet.kill_worker()
        case "supervisor":
            stage.fleet.kill_supervisor()
        case "freeze":
            stage.fleet.freeze_child(rnd.uniform(0.7, 1.6) * LEASE)
        case "replace":
            stage.fleet.replace_worker()
        case "start":
            stage.fleet.disturb_start()
        case "hole":
            stage.proxy.strike(rnd.choice(HELD_UP), Fault.HOLE)
        case "server":
            stage.kill_server(rnd.uniform(0.0, 0.5))
