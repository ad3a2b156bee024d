"""Who is there, who comes, and who goes."""

from __future__ import annotations

import asyncio
import os
import socket
import time

from streamq import Agent, AgentInfo, Joined, Left, StreamQ, agents, presence
from streamq.agent.presence import PresenceWatch, agents_sync
from tests.agents import here, processes, running
from tests.serving import until


async def test_all_see_who_is_there(app: StreamQ, any_server: str):
    planner, reader = Agent("planner", app, capabilities=("plan", "draw")), Agent("reader", app)
    again = Agent("reader", app)
    async with running(reader, planner, again):
        found = await agents(app)
        assert [(one.name, one.instance) for one in found] == [
            (one.name, one.instance) for one in (planner, reader, again)
        ]
        first = found[0]
        assert first.capabilities == ("plan", "draw")
        assert (first.host, first.pid) == (socket.gethostname(), os.getpid())
        assert abs(first.last_seen.timestamp() - time.time()) < 5
        assert abs(first.since.timestamp() - time.time()) < 5
        assert {one.instance for one in await asyncio.to_thread(agents_sync, app)} == {one.instance for one in found}
    assert await agents(app) == []


async def test_who_watches_is_told_who_comes_and_goes(app: StreamQ, any_server: str):
    before, agent = Agent("before", app), Agent("coming", app)
    async with running(before), presence(app) as watch, asyncio.timeout(10):
        async with running(agent):
            joined = await anext(watch)
        left = await anext(watch)
    assert isinstance(joined, Joined)
    assert isinstance(left, Left)
    assert joined.info.instance == left.info.instance == agent.instance


async def test_a_watcher_finds_out_what_it_could_not_hear(app: StreamQ, connection):
    """Its connection is killed; what has changed meanwhile is found by comparing, each change once."""
    agent, other = Agent("coming", app), Agent("other", app)
    async with presence(app) as watch, asyncio.timeout(15):
        async with running(agent):
            assert isinstance(await anext(watch), Joined)
            connection.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        assert isinstance(await anext(watch), Left)
        async with running(other):
            change = await anext(watch)
            assert isinstance(change, Joined)
            assert change.info.name == "other"


async def test_a_killed_agent_is_gone_within_seconds(app: StreamQ):
    """It is told once to each who watches, though all of them look."""
    told: list[list[str]] = [[], []]

    async def watching(watch: PresenceWatch, into: list[str]) -> None:
        async for change in watch:
            into.append(f"{type(change).__name__} {change.info.name}")  # noqa: PERF401 - it is looked at meanwhile

    with processes(app) as start:
        mortal = await asyncio.to_thread(start, "mortal")
        async with presence(app) as one, presence(app) as two, running(Agent("bystander", app)):
            watching_both = [asyncio.create_task(watching(*pair)) for pair in zip((one, two), told, strict=True)]
            mortal.kill()
            began = time.monotonic()
            async with asyncio.timeout(10):
                while await asyncio.to_thread(here, app, "mortal"):  # noqa: ASYNC110 - it looks at the server
                    await asyncio.sleep(0.05)
            assert time.monotonic() - began < 6
            await until(lambda: all("Left mortal" in some for some in told))
            async with running(Agent("last", app)):
                await until(lambda: all("Joined last" in some for some in told))
            for task in watching_both:
                task.cancel()
            await asyncio.gather(*watching_both, return_exceptions=True)
    assert [[line for line in some if "mortal" in line] for some in told] == [["Left mortal"]] * 2


async def test_a_blocked_event_loop_does_not_make_an_agent_vanish(app: StreamQ):
    async with running(Agent("blocked", app)):
        [before] = await agents(app)
        deadline = time.monotonic() + 5
        while seen(app) <= before.last_seen.timestamp() + 4:
            assert time.monotonic() < deadline + 5
            time.sleep(0.05)  # noqa: ASYNC251 - the loop is blocked: that is the point
        [after] = await agents(app)
        assert after.instance == before.instance


def seen(app: StreamQ) -> float:
    """Read when the agents gave a sign of life."""
    found: list[AgentInfo] = agents_sync(app)
    return min((one.last_seen.timestamp() for one in found), default=float("inf"))
