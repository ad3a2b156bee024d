"""Work that one agent does for another: given by a durable channel, or to the first who claims it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from streamq import Agent, ConfigError, StreamQ
from streamq.agent import assigning, life, names, taking
from streamq.errors import ChannelError, RemoteError, RequestTimeout
from tests.agents import AgentProcess, processes, running
from tests.apps.agents import Job, Question, Report
from tests.serving import until
from tests.workers import starts

durable_or_not = pytest.mark.parametrize("durable", [True, False], ids=["durable", "claimed"])


@durable_or_not
async def test_one_agent_does_what_is_assigned(app: StreamQ, any_server: str, *, durable: bool):
    """One of several that can, and none that cannot; the result is of the type asked for, and news for all."""
    done: list[str] = []
    giving, other = Agent("giving", app), Agent("other", app)
    can = [Agent(f"can-{number}", app) for number in range(3)]
    news: list[dict[str, object]] = []
    giving.follow(names.RESULTS)
    giving.on("Outcome")(lambda message: news.append(message.payload))
    other.takes("else")(lambda _job: done.append("other"))
    for agent in can:

        @agent.takes(Question)
        async def work(job: Question, name: str = agent.name) -> Report:
            done.append(name)
            return Report(len(job.text))

    async with running(giving, other, *can):
        for number in range(10):
            report = await giving.assign(Question("x" * number), reply=Report, timeout=10, durable=durable)
            assert report == Report(number)
        await until(lambda: len(news) >= 10)
    assert len(done) == 10
    assert set(done) <= {agent.name for agent in can}
    assert [one["agent"] for one in news] == done
    assert all(one["ok"] for one in news)


@durable_or_not
async def test_an_assignment_can_ask_for_a_capability(app: StreamQ, *, durable: bool):
    giving, plain = Agent("giving", app), Agent("plain", app)
    able, special = Agent("able", app, capabilities=("read",)), Agent("special", app)
    plain.takes("work")(lambda _job: "plain")
    able.takes("work")(lambda _job: "able")
    special.takes("work", capability="sing")(lambda _job: "special")
    assert special.capabilities == ("sing",)

    async with running(giving, plain, able, special):
        for capability, who in (("read", {"able"}), ("sing", {"special"}), (None, {"plain", "able"})):
            found = await giving.assign(None, type="work", capability=capability, timeout=10, durable=durable)
            assert found in who
        with pytest.raises(RequestTimeout, match=r"no agent has done work for swim within 0.1 s"):
            await giving.assign(None, type="work", capability="swim", timeout=0.1, durable=durable)


@durable_or_not
async def test_the_error_of_who_did_it_reaches_who_assigned_it(app: StreamQ, *, durable: bool):
    giving, failing = Agent("giving", app), Agent("failing", app)

    @failing.takes("fail")
    async def fail(_job: object) -> None:
        raise LookupError("no such thing")

    failing.takes(Question)(lambda job: job.text)
    async with running(giving, failing):
        with pytest.raises(RemoteError, match="LookupError: no such thing"):
            await giving.assign(None, type="fail", timeout=10, durable=durable)
        with pytest.raises(RemoteError, match="does not fit"):
            await giving.assign(1, type="Question", timeout=10, durable=durable)
        with pytest.raises(ChannelError, match="the reply of agent failing does not fit"):
            await giving.assign(Question("x"), reply=int, timeout=10, durable=durable)


async def test_a_durable_assignment_waits_for_an_agent_that_can(app: StreamQ):
    giving, late = Agent("giving", app), Agent("late", app)
    done: list[object] = []
    late.takes("work")(done.append)
    async with running(giving):
        with pytest.raises(RequestTimeout):
            await giving.assign("too late", type="work", timeout=0.05)
        given = asyncio.create_task(giving.assign("in time", type="work", timeout=20))
        async with running(late):
            await given
    assert done == ["in time"]


async def test_a_timeout_says_who_has_claimed_it(app: StreamQ):
    giving, slow = Agent("giving", app), Agent("slow", app, grace=0)

    @slow.takes("work")
    async def work(_job: object) -> None:
        await asyncio.Event().wait()

    async with running(giving, slow):
        with pytest.raises(RequestTimeout, match=r"no agent has done work within 0.5 s; agent slow has claimed it"):
            await giving.assign(None, type="work", timeout=0.5, durable=False)
        with pytest.raises(RequestTimeout, match=r"no agent has done sing within 0\.1 s; nobody has claimed it"):
            await giving.assign(None, type="sing", timeout=0.1, durable=False)


@durable_or_not
async def test_what_an_agent_cannot_end_when_it_stops_another_does(app: StreamQ, *, durable: bool):
    giving, first, second = Agent("giving", app), Agent("first", app, grace=0), Agent("second", app)
    began = asyncio.Event()

    @first.takes("work")
    async def hang(_job: object) -> None:
        began.set()
        await asyncio.Event().wait()

    second.takes("work")(lambda _job: "second")
    async with running(giving, first):
        given = asyncio.create_task(giving.assign(None, type="work", timeout=20, durable=durable))
        await began.wait()
        await first.stop()
        async with running(second), asyncio.timeout(4):
            assert await given == "second"


@durable_or_not
async def test_what_takes_long_is_done_once(app: StreamQ, monkeypatch: pytest.MonkeyPatch, *, durable: bool):
    """Its lease or its claim is renewed while it goes on, from a thread: a blocked event loop does not lose it."""
    monkeypatch.setattr(taking, "CLAIM_SECONDS", 0.4)
    monkeypatch.setattr(life, "LEASE_SECONDS", 0.4)
    monkeypatch.setattr(assigning, "_OFFER_SECONDS", 0.1)
    giving, first, second = Agent("giving", app), Agent("first", app), Agent("second", app)
    begun: list[str] = []
    for agent in (first, second):

        @agent.takes("work")
        async def work(_job: object, name: str = agent.name) -> str:
            begun.append(name)
            time.sleep(1)  # noqa: ASYNC251 - it blocks the loop
            await asyncio.sleep(1)  # while the others look
            return name

    async with running(giving, first, second):
        who = await giving.assign(None, type="work", timeout=20, durable=durable)
    assert begun == [who]


@durable_or_not
async def test_what_a_killed_agent_had_begun_another_takes_over(
    app: StreamQ, marked: tuple[Path, Path], *, durable: bool
):
    """Within seconds; two processes have begun it, and one result comes."""
    marker, ready = marked
    giving = Agent("giving", app)
    with processes(app) as start:
        readers: dict[int, AgentProcess] = {}
        for _ in range(2):
            process = await asyncio.to_thread(start, "reader")
            readers[process.pid] = process
        async with running(giving):
            given = asyncio.create_task(giving.assign(Job(marker, ready), reply=Report, timeout=25, durable=durable))
            await until(lambda: starts(marker))
            [killed] = starts(marker)
            readers.pop(killed).kill()
            await until(lambda: len(starts(marker)) == 2)
            ready.touch()
            [left] = readers
            assert await given == Report(left)


async def test_a_name_is_claimed_by_one_of_many(app: StreamQ):
    many = [Agent(f"one-{number}", app) for number in range(20)]
    claims = await asyncio.gather(*(agent.claim("invoice:7", seconds=10) for agent in many))
    [claim] = [claim for claim in claims if claim is not None]
    assert await claim.renew()
    assert await claim.release()
    assert not await claim.renew()
    async with await many[0].claim("invoice:7", seconds=10):
        assert await many[1].claim("invoice:7", seconds=10) is None
        assert not await claim.release(), "it is another's by now"
        assert await many[1].claim("invoice:7", seconds=10) is None
    assert await many[1].claim("invoice:7", seconds=0.05)
    await until_claimed(many[2], "invoice:7")
    for wrong in ({"name": "a b"}, {"seconds": 0}):
        with pytest.raises(ConfigError):
            await many[0].claim(**{"name": "right", "seconds": 1, **wrong})


async def until_claimed(agent: Agent, name: str) -> None:
    """Wait until a claim of another has ended by itself."""
    async with asyncio.timeout(10):
        while (claim := await agent.claim(name, seconds=10)) is None:  # noqa: ASYNC110 - it looks at the server
            await asyncio.sleep(0.005)
    await claim.release()
