"""Agents that tell and ask each other things."""

from __future__ import annotations

import asyncio
import threading

import pytest

from streamq import Agent, ConfigError, StreamQ, agents
from streamq._redis.hub import Kind
from streamq.agent import names
from streamq.channels.envelope import Envelope
from streamq.channels.gaps import Gap
from streamq.errors import ChannelError, RemoteError, RequestTimeout
from tests.agents import processes, running
from tests.apps.agents import Answer, Question, make
from tests.serving import job, serving, until


async def test_a_request_is_answered(app: StreamQ, any_server: str):
    """By a coroutine function on the loop, and by another function in a thread; the reply has the type asked for."""
    asking, answering = Agent("asking", app), make("answering", app)

    @answering.on("where")
    def where(message: Envelope[object]) -> list[object]:
        return [threading.current_thread().name.rpartition("_")[0], message.sender, message.payload]

    async with running(asking, answering):
        answer = await asking.request("answering", Question("why"), reply=Answer)
        assert isinstance(answer, Answer)
        assert answer.text == "WHY"
        found = await asking.request("answering", {"x": [1]}, type="where")
        assert found == ["streamq-agent", "asking", {"x": [1]}]
        many = (asking.request("answering", Question(str(n)), reply=Answer) for n in range(100))
        assert [answer.text for answer in await asyncio.gather(*many)] == [str(n) for n in range(100)]


async def test_the_error_of_a_handler_reaches_who_asked(app: StreamQ, caplog: pytest.LogCaptureFixture):
    asking, answering = Agent("asking", app), Agent("answering", app)

    @answering.on("fail")
    async def fail(_message: Envelope[object]) -> None:
        raise LookupError("no such thing")

    @answering.on("unencodable")
    def unencodable(_message: Envelope[object]) -> object:
        return object()

    @answering.on(Question)
    def question(_message: Envelope[Question]) -> None: ...

    async with running(asking, answering):
        with pytest.raises(RemoteError) as raised:
            await asking.request("answering", None, type="fail")
        assert (raised.value.agent, raised.value.type_name) == ("answering", "LookupError")
        assert raised.value.message == "no such thing"
        assert "in fail" in raised.value.traceback
        assert "message fail of asking failed" in caplog.text
        with pytest.raises(RemoteError, match="EncodeError"):
            await asking.request("answering", None, type="unencodable")
        with pytest.raises(RemoteError, match="agent answering has no handler for message nothing"):
            await asking.request("answering", None, type="nothing")
        with pytest.raises(RemoteError, match="message Question does not fit: field 'payload"):
            await asking.request("answering", {"texts": 1}, type="Question")


async def test_a_timeout_names_the_agent(app: StreamQ):
    """And says whether it is there; a reply that comes later is dropped, and no handler is left behind."""
    asking, slow = Agent("asking", app), Agent("slow", app)
    go_on, done = asyncio.Event(), asyncio.Event()

    @slow.on("wait")
    async def wait(_message: Envelope[object]) -> None:
        await go_on.wait()
        done.set()

    async with running(asking, slow):
        with pytest.raises(RequestTimeout, match=r"agent slow has not answered wait within 0.2 s; it is there"):
            await asking.request("slow", None, type="wait", timeout=0.2)
        with pytest.raises(RequestTimeout, match=r"agent absent has not answered Question .*; it is not there"):
            await asking.request("absent", Question("?"), timeout=0.1)
        go_on.set()
        await done.wait()
        assert await asking.request("slow", None, type="wait") is None


async def test_a_reply_that_does_not_fit_says_where(app: StreamQ):
    asking, answering = Agent("asking", app), make("answering", app)
    async with running(asking, answering):
        with pytest.raises(ChannelError, match=r"the reply of agent answering does not fit: field 'payload"):
            await asking.request("answering", Question("why"), reply=int)


async def test_what_is_sent_to_an_agent_that_is_away_arrives_later(app: StreamQ):
    """In order of sending, and once; requests that have waited too long are not handled."""
    sending, away = Agent("sending", app), Agent("away", app, concurrency=1)
    got: list[object] = []

    @away.on("note")
    async def note(message: Envelope[object]) -> None:
        got.append(message.payload)

    async with running(sending):
        for number in range(5):
            await sending.send("away", number, type="note")
        with pytest.raises(RequestTimeout):
            await sending.request("away", "late", type="note", timeout=0.05)
        await sending.send("away", 5, type="note")
        async with running(away):
            await until(lambda: len(got) >= 6)
        async with running(away):
            await sending.send("away", "last", type="note")
            await until(lambda: "last" in got)
    assert got == [0, 1, 2, 3, 4, 5, "last"]


async def test_all_hear_a_broadcast_but_the_sender(app: StreamQ):
    heard: list[str] = []
    every = [Agent(name, app) for name in ("one", "two", "three")]
    for agent in every:
        agent.on(Question)(lambda message, name=agent.name: heard.append(f"{name}: {message.payload.text}"))
    async with running(*every):
        await every[0].broadcast(Question("all"))
        await until(lambda: len(heard) >= 2)
        await every[1].broadcast(Question("again"))
        await until(lambda: len(heard) >= 4)
    assert sorted(heard) == ["one: again", "three: again", "three: all", "two: all"]


async def test_what_agents_publish_can_be_followed(app: StreamQ):
    heard: list[tuple[str, str]] = []
    publishing, following = Agent("publishing", app), Agent("following", app)
    following.follow("agent:*:events")

    @following.on(Question)
    async def hear(message: Envelope[Question]) -> None:
        heard.append((message.channel, message.payload.text))

    async with running(publishing, following):
        await following.publish(Question("its own"))
        await publishing.publish(Question("news"))
        await until(lambda: heard)
    assert heard == [("agent:publishing:events", "news")]


async def test_a_reply_survives_a_lost_connection(app: StreamQ, connection):
    """The subscription of all agents is killed while a request is being handled."""
    asking, slow = Agent("asking", app), Agent("slow", app)
    began, go_on = asyncio.Event(), asyncio.Event()

    @slow.on("wait")
    async def wait(_message: Envelope[object]) -> str:
        began.set()
        await go_on.wait()
        return "done"

    async with running(asking, slow):
        asked = asyncio.create_task(asking.request("slow", None, type="wait", timeout=20))
        await began.wait()
        assert connection.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") >= 1
        go_on.set()
        assert await asked == "done"


async def test_what_is_subscribed_over_a_dead_connection_does_not_end_listening(app: StreamQ, connection):
    """Who subscribes may find out before the thread that reads does."""
    channel, others = app.channel("x"), [app.channel("y").listen() for _ in range(20)]
    async with channel.listen(gaps=False) as listener, asyncio.timeout(20):
        for _ in range(20):
            while not connection.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub"):  # noqa: ASYNC110 - as below
                await asyncio.sleep(0.001)
            for other in others:
                app.broadcast.reach.hub.subscribe(Kind.CHANNEL, "sq:channel:y", other._buffer)
                app.broadcast.reach.hub.unsubscribe(Kind.CHANNEL, "sq:channel:y", other._buffer)
        while (await channel.publish(1)).heard == 0:  # noqa: ASYNC110 - it looks at the server
            await asyncio.sleep(0.01)
        assert (await anext(listener)).payload == 1


async def test_a_gap_in_what_all_hear_is_told(app: StreamQ, connection):
    gaps: list[Gap] = []
    agent = Agent("hearing", app)
    agent.on(Gap)(gaps.append)
    async with running(agent):
        connection.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: gaps)
        assert agent.gaps == 1
    assert gaps[0].reason == "reconnected"


async def test_what_kills_its_process_is_dropped_at_last(app: StreamQ, connection):
    """A message is handled again by the next process, but not for ever; who has asked is told."""
    asking = Agent("asking", app)
    inbox = app.channel(names.inbox("mortal"), durable=True)
    async with running(asking):
        asked = asyncio.create_task(asking.request("mortal", None, type="die", timeout=60))
        await until(lambda: connection.client.execute_command("EXISTS", "sq:channel:{agent:mortal:inbox}:log"))
        for _ in range(4):  # as those do who die under it, but more quickly
            async with inbox.group("agent", auto_ack=False, lease=0.1) as group:
                message = await anext(group)
                group._held.entries.clear()
        async with running(make("mortal", app)):
            with pytest.raises(RemoteError, match="WorkerDied: message die was dropped"):
                await asked
    assert message.deliveries == 4


async def test_what_was_begun_when_an_agent_stops_is_given_back(app: StreamQ):
    """Another instance has it at once, and it counts as handed over once."""
    got: list[int] = []
    sending = Agent("sending", app)
    began = asyncio.Event()
    first, second = Agent("same", app, grace=0.1), Agent("same", app)

    @first.on("work")
    async def hang(_message: Envelope[object]) -> None:
        began.set()
        await asyncio.Event().wait()

    @second.on("work")
    async def work(message: Envelope[object]) -> None:
        got.append(message.deliveries)

    async with running(sending, first):
        await sending.send("same", None, type="work")
        await began.wait()
        await first.stop()
        async with running(second):
            await until(lambda: got)
    assert got == [1]


async def test_handlers_run_a_bounded_number_at_a_time(app: StreamQ):
    sending, busy = Agent("sending", app), Agent("busy", app, concurrency=2)
    now, most, done = 0, 0, 0

    @busy.on("work")
    async def work(_message: Envelope[object]) -> None:
        nonlocal now, most, done
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0)
        now, done = now - 1, done + 1

    async with running(sending, busy):
        for _ in range(20):
            await sending.send("busy", None, type="work")
        await until(lambda: done == 20)
    assert most <= 2


async def test_handlers_enqueue_tasks_and_tasks_publish(basic, server_url: str):
    """An agent has a task done, which publishes what it does."""
    app: StreamQ = basic.app
    asking, agent = Agent("asking", app), Agent("enqueuing", app)
    news: list[object] = []
    asking.follow("tasks:news")

    @asking.on("news")
    async def hear(message: Envelope[object]) -> None:
        news.append(message.payload)

    @app.task(name="tests.publishing")
    async def publishing(x: int) -> int:
        await app.channel("tasks:news").publish(x, type="news")
        return x + 1

    @agent.on("enqueue")
    async def enqueue(message: Envelope[int]) -> int:
        return await (await publishing.adelay(message.payload)).aget(timeout=10)

    async with serving(job(server_url, basic)), running(asking, agent):
        assert await asking.request("enqueuing", 41, type="enqueue", timeout=10) == 42
        await until(lambda: news)
    assert news == [41]
    await app.aclose()


async def test_an_agent_of_another_process_answers_and_ends_at_a_sigterm(app: StreamQ):
    asking = Agent("asking", app)
    with processes(app) as start:
        process = await asyncio.to_thread(start, "answering")
        async with running(asking):
            answer = await asking.request("answering", Question("who"), reply=Answer)
            assert answer == Answer("WHO", process.pid)
            assert await asyncio.to_thread(process.stop) == 0
            with pytest.raises(RequestTimeout, match="it is not there"):
                await asking.request("answering", Question("who"), timeout=0.1)


async def test_agents_are_where_events_are(server_url: str):
    """They need no other server."""
    async with StreamQ("redis://localhost:1/0", events_url=server_url) as app:
        asking = Agent("asking", app)
        async with running(asking, make("answering", app)):
            assert await asking.request("answering", Question("why"), reply=Answer)
            assert await asking.claim("name", seconds=1)
            assert len(await agents(app)) == 2


async def test_what_cannot_be_used_is_refused(app: StreamQ):
    for wrong in ({"name": "a:b"}, {"concurrency": 0}, {"grace": -1}, {"capabilities": ("a b",)}):
        with pytest.raises(ConfigError):
            Agent(**{"name": "right", "app": app, **wrong})
    agent = make("right", app)
    for kind in (Question, "die"):
        with pytest.raises(ConfigError, match="have a handler already"):
            agent.on(kind)(print)
    with pytest.raises(ConfigError, match="by their class, or by the name"):
        agent.on(list[int])(print)
    with pytest.raises(ChannelError, match="agent right is not running"):
        await agent.request("other", 1)
    async with running(agent):
        with pytest.raises(ConfigError, match="agent right is running"):
            agent.on("more")
        with pytest.raises(ConfigError, match="agent right is running"):
            await agent.start()
        with pytest.raises(ConfigError, match="agent name"):
            await agent.send("o:ther", 1)
