"""The thread that watches the event loop, here without one that is really blocked for long."""

from __future__ import annotations

import asyncio
import threading

import pytest

from streamq.context import running
from streamq.message import Delivery, Message
from streamq.worker.holdings import Holdings, Run
from streamq.worker.metrics import Counters
from streamq.worker.stacks import Stacks
from streamq.worker.watchdog import Watchdog


class Silent:
    """A reporter that has nothing to say."""

    def report(self, *, lag, blocked):
        return {"lag": lag, "blocked": blocked}

    def reason_to_go(self):
        return None


def delivery(n: int) -> Delivery:
    return Delivery(Message(str(n), "shop.buy", "q", b"[]"), "s", b"1-%d" % n, 0, 1)


@pytest.fixture
async def watchdog():
    return Watchdog(Stacks(Holdings()), Silent(), Counters(), lambda **_: None, 60.0)


async def come_round():
    await asyncio.sleep(0)


async def test_a_loop_that_answers(watchdog, caplog):
    """Nothing is said, and the lag is what it took to answer."""
    watchdog._look()
    await come_round()
    watchdog._look()
    assert 0 <= watchdog._lag < 0.5
    assert watchdog._blocked == 0
    assert caplog.messages == []


async def test_a_loop_that_does_not_answer(watchdog, caplog):
    """It is said once, and again when it is over; the time is counted."""
    watchdog._look()
    watchdog._asked -= 1.2
    watchdog._look()
    watchdog._look()
    assert watchdog._blocked > 1.2
    assert len(caplog.messages) == 1
    assert "in test_a_loop_that_does_not_answer" in caplog.messages[0]
    await come_round()
    watchdog._look()
    assert caplog.messages[1].startswith("the event loop was blocked for 1.")
    assert watchdog._counters["loop_blocked", ""] == 1
    assert watchdog._counters["loop_blocked_ms", ""] >= 1200
    assert watchdog._blocked == 0


@pytest.mark.parametrize("answered", [True, False])
async def test_a_process_that_was_stopped(watchdog, caplog, answered):
    """That nothing ran is said; it must not cost the process, for it may go on now."""
    watchdog._look()
    if answered:
        await come_round()
    watchdog._looked -= 600
    watchdog._asked -= 600
    if answered:
        watchdog._answered -= 600
    watchdog._look()
    assert len(caplog.messages) == 1
    assert "nothing in this process ran for 599." in caplog.messages[0] or "for 600." in caplog.messages[0]
    assert watchdog._counters["loop_blocked", ""] == 1
    assert watchdog._blocked == 0


async def test_stacks_have_the_names_of_tasks(capfd):
    """Each asyncio task is shown with all frames of its wait, and with its task if it runs one."""
    holdings = Holdings()
    stacks = Stacks(holdings)
    run, in_thread = Run(delivery(1), None), Run(delivery(2), None)
    holdings.add(run)
    holdings.add(in_thread)
    ready = asyncio.Event()

    async def inner():
        await ready.wait()

    async def outer():
        running.set((run.delivery, None))
        await inner()

    run.handle = asyncio.create_task(outer())
    await come_round()
    stacks.print_tasks()
    ready.set()
    await run.handle
    said = capfd.readouterr().err
    mine = said.split("\ntask shop.buy 1:\n")[1]
    assert mine.index("await inner()") < mine.index("await ready.wait()")
    assert "task shop.buy 2: in a thread" in said


async def test_who_blocks_the_loop():
    """The task that runs at the moment; the stack is that of the loop's thread, whichever thread asks."""
    holdings = Holdings()
    stacks = Stacks(holdings)
    run = Run(delivery(1), None)
    holdings.add(run)

    async def block():
        asking = threading.Thread(target=lambda: found.append(stacks.of_loop()))
        asking.start()
        asking.join()

    found = []
    run.handle = asyncio.create_task(block())
    await run.handle
    [(who, stack)] = found
    assert who == "task shop.buy 1"
    assert "in block\n" in stack
