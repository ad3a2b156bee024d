"""What a sweep takes over and what it leaves, and which consumers are removed; without a worker around it."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from streamq._redis.keys import GROUP
from streamq.broker.calls import Settlement
from streamq.broker.fleet import Fleet
from streamq.config import Settings, WorkerSettings
from streamq.lifecycle import State
from streamq.worker import reaper
from streamq.worker.fetcher import Fetcher
from streamq.worker.holdings import Holdings, Run
from streamq.worker.metrics import Counters
from streamq.worker.outage import Outage
from streamq.worker.reaper import Reaper
from tests.workers import until

READY = "sq:{default}:stream:5"


@pytest.fixture
async def fleets(server_url):
    """Give a function that makes workers' views of the broker, by consumer."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(consumer):
            fleet = Fleet(Settings(url=server_url), WorkerSettings(), consumer, 0.01)
            stack.push_async_callback(fleet.close)
            await fleet.prepare()
            return fleet

        yield make


def reaper_of(fleet, *, lease=0.0):
    return Reaper(fleet, Holdings(), None, Outage(), counters=Counters(), lease_seconds=lease)


def pending(connection):
    return connection.client.execute_command("XPENDING", READY, GROUP)[0]


def consumers(connection):
    found = connection.client.execute_command("XINFO", "CONSUMERS", READY, GROUP)
    return {one[1].decode() for one in found}


async def fetch_all(fleet, number):
    found = []
    while len(found) < number:
        found += (await fleet.fetch(number)).deliveries
    return found


async def test_a_sweep_is_bounded_and_the_next_goes_on(any_server, basic, fleets, connection, monkeypatch):
    """However much a dead worker held, one sweep takes a bounded part of it; where it ended the next begins."""
    monkeypatch.setattr(reaper, "_COUNT", 2)
    monkeypatch.setattr(reaper, "_STEPS", 2)
    results = basic.app.enqueue_many(basic.add.s(n, n) for n in range(11))
    await fetch_all(await fleets("dead"), 11)
    sweeper = reaper_of(await fleets("alive"))
    left = []
    while pending(connection):
        await sweeper.sweep(READY)
        left.append(pending(connection))
    assert left == [7, 3, 0]
    assert sweeper._counters["reclaimed", ""] == 11
    assert all(result.record().deaths == 1 for result in results)


async def test_a_sweep_does_not_bury_a_suspect_for_what_others_do(any_server, basic, fleets, connection):
    """It runs in a process of its own: if the worker that has it stands still, that is another's doing; to a limit."""
    result = basic.add.delay(1, 1)
    dead, sweeper = await fleets("dead"), reaper_of(await fleets("alive"))
    deaths = []
    while result.status() is not State.DEAD:
        await fetch_all(dead, 1)
        for stream in sweeper._fleet.streams:
            await sweeper.sweep(stream)
        deaths.append(result.record().deaths)
    assert deaths == list(range(1, 3 + 10 + 1))
    assert result.forget()
    assert basic.app.dead_letters.purge() == 1


async def test_a_sweep_leaves_what_its_own_worker_runs(any_server, basic, fleets, connection):
    """Even if its lease has run out: nobody knows better that it goes on."""
    result = basic.add.delay(1, 1)
    fleet = await fleets("busy")
    sweeper = reaper_of(fleet)
    [delivery] = await fetch_all(fleet, 1)
    run = Run(delivery, None)
    sweeper._holdings.add(run)
    await sweeper.sweep(READY)
    assert pending(connection) == 1
    sweeper._holdings.drop(run)
    await sweeper.sweep(READY)
    assert pending(connection) == 0
    assert result.record().deaths == 1


async def test_a_sweep_of_a_stream_that_has_vanished(any_server, basic, fleets, connection):
    """It is left to the fetcher; when the stream is there again, the sweep begins at its beginning."""
    fleet = await fleets("alive")
    sweeper = reaper_of(fleet)
    sweeper._cursors[READY] = b"9-9"
    connection.client.execute_command("DEL", READY)
    await sweeper.sweep(READY)
    basic.add.delay(1, 1)
    await fetch_all(await fleets("dead"), 1)
    await sweeper.sweep(READY)
    assert pending(connection) == 0


class Begun(list):
    """Stands for what runs messages; takes down their ids."""

    def __init__(self):
        super().__init__()
        self.holdings = Holdings()

    def room(self):
        return 10

    def hold(self, deliveries):
        runs = [Run(one, None) for one in deliveries]
        for run in runs:
            self.holdings.add(run)
        return runs

    def fetched(self, _runs):
        """Stand for what has others wait, too; nobody waits."""

    def arrived(self, _runs):
        """Stand for what knows what was cancelled; nothing was."""

    def begin(self, runs):
        self += [run.delivery.message.id for run in runs]


async def test_what_lay_unread_and_is_anothers_is_not_begun(any_server, basic, fleets, connection):
    """The server has answered, but the event loop was blocked for longer than a lease, so that nobody renewed."""
    blocked = await fleets("blocked")
    blocked._block_ms = 5000
    begun, counters = Begun(), Counters()
    fetcher = Fetcher(
        blocked,
        begun,
        begun.holdings,
        Outage(),
        gate=begun,
        loader=begun,
        losses=begun,
        counters=counters,
        lease_seconds=0.0,
    )
    fetching = asyncio.create_task(fetcher.run())
    await asyncio.to_thread(until, lambda: b"xreadgroup" in connection.client.execute_command("CLIENT", "LIST"))
    first, second = basic.app.enqueue_many([basic.add.s(1, 1), basic.add.s(2, 2)])
    entry = connection.client.execute_command("XRANGE", READY, "-", "+")[0][0]
    connection.client.execute_command("XCLAIM", READY, GROUP, "another", 0, entry)
    await asyncio.to_thread(until, lambda: begun)
    await fetcher.stop()
    await fetching
    assert begun == [second.id]
    assert len(begun.holdings) == 1
    assert counters["leases_lost", ""] == 1
    assert [one.forget() for one in (first, second)] == [True, True]


class Renewing:
    """Stands for the thread that renews."""

    is_good = True

    def is_alive(self):
        return True


async def test_what_lies_unread_is_not_abandoned(any_server, basic, fleets, connection, monkeypatch):
    """After a block of the event loop the worker first reads what it was sent meanwhile."""
    looked = []
    monkeypatch.setattr(reaper.random, "uniform", lambda *_: looked.append(1) or 0.001)
    result = basic.add.delay(1, 1)
    fleet = await fleets("blocked")
    await fetch_all(fleet, 1)
    sweeper = Reaper(fleet, Holdings(), Renewing(), Outage(), counters=Counters(), lease_seconds=0.0)
    sweeper._holdings.reading_since = time.monotonic() - 1.5
    sweeping = asyncio.create_task(sweeper.run())
    await asyncio.to_thread(until, lambda: len(looked) > 10)
    assert pending(connection) == 1
    sweeper._holdings.reading_since = time.monotonic()
    await asyncio.to_thread(until, lambda: pending(connection) == 0)
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)
    assert result.record().deaths == 1


async def test_what_lay_unread_is_not_abandoned(any_server, basic, fleets, connection):
    """A sweep of the worker's own leaves it alone, though its lease has run out: it is about to be run."""
    fleet = await fleets("blocked")
    begun, sweeper = Begun(), reaper_of(fleet)
    sweeper._holdings = begun.holdings
    result = basic.add.delay(1, 1)
    keep = fleet.keep

    async def keep_after_a_sweep(deliveries):
        for stream in fleet.streams:
            await sweeper.sweep(stream)
        return await keep(deliveries)

    fleet.keep = keep_after_a_sweep
    fetcher = Fetcher(
        fleet,
        begun,
        begun.holdings,
        Outage(),
        gate=begun,
        loader=begun,
        losses=begun,
        counters=Counters(),
        lease_seconds=0.0,
    )
    fetching = asyncio.create_task(fetcher.run())
    await asyncio.to_thread(until, lambda: begun)
    await fetcher.stop()
    await fetching
    assert begun == [result.id]
    assert sweeper._counters["reclaimed", ""] == 0
    assert result.record().deaths == 0
    assert result.forget()


async def come_and_go(fleet, basic):
    """Have a worker take a task and give it back, so that the server knows it."""
    result = basic.add.delay(1, 1)
    await fleet.give_back(await fetch_all(fleet, 1))
    return result


def idle_ms(connection, consumer):
    found = connection.client.execute_command("XINFO", "CONSUMERS", READY, GROUP)
    return {one[1].decode(): one[5] for one in found}[consumer]


async def test_consumers_of_workers_that_are_no_more_are_removed(any_server, basic, fleets, connection):
    """Those that hold nothing and have long asked for nothing; one that holds a task stays, or that would be lost."""
    gone, holding, alive = [await fleets(name) for name in ("gone", "holding", "alive")]
    await come_and_go(gone, basic)
    basic.add.delay(1, 1)
    await fetch_all(holding, 2)
    sweeper = reaper_of(alive, lease=60)
    await sweeper.tidy()
    assert consumers(connection) == {"gone", "holding"}
    until(lambda: idle_ms(connection, "gone") > 100)
    sweeper._forgotten_ms = 100
    await sweeper.tidy()
    assert consumers(connection) == {"holding"}
    assert pending(connection) == 1


async def test_a_sweep_shows_that_a_worker_lives(basic, fleets, connection):
    """It sets the consumer's idle time back, though it finds nothing: so a full worker is not taken for dead."""
    fleet = await fleets("full")
    await come_and_go(fleet, basic)
    until(lambda: idle_ms(connection, "full") > 300)
    await reaper_of(fleet, lease=60).sweep(READY)
    assert idle_ms(connection, "full") < 300


async def test_a_consumer_that_was_removed_is_made_again(any_server, basic, fleets, connection):
    """Nothing is lost if it was a live one's, which waits for a message just then."""
    waiting, other = await fleets("waiting"), await fleets("other")
    first = await come_and_go(waiting, basic)
    [delivery] = await fetch_all(waiting, 1)
    await waiting.commit([Settlement(delivery, State.SUCCEEDED, b"2")])
    waiting._block_ms = 5000
    reading = asyncio.create_task(waiting.fetch(1))
    await asyncio.to_thread(until, lambda: b"xreadgroup" in connection.client.execute_command("CLIENT", "LIST"))
    assert await other.retire_idle(READY, -1) == 1
    second = basic.add.delay(1, 1)
    assert [one.message.id for one in (await reading).deliveries] == [second.id]
    assert first.get(timeout=1) == 2
    assert consumers(connection) == {"waiting"}
