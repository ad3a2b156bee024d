"""What tasks emit comes to all readers in order, each chunk once, and of the run that counts alone."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
import time
from dataclasses import replace
from datetime import date

import pytest

from streamq import (
    BrokerUnavailable,
    Chunk,
    ChunksLost,
    ConfigError,
    ResultDecodeError,
    ResultTimeout,
    State,
    StreamQ,
    TaskCancelled,
    TaskFailed,
    UnknownTaskId,
)
from streamq.progress import Progress
from streamq.worker import outbox
from tests.proxy import Fault, Proxy
from tests.serving import job_of, serving, until
from tests.workers import Worker, starts
from tests.workers import until as wait_until

APP = "tests.apps.streaming:app"

# The exception that is raised in a thread may strike in the tracer of the coverage, whose lock then stays taken.
pytestmark = pytest.mark.no_cover


@pytest.fixture
async def streaming(load_app_at, server_url):
    module = load_app_at("tests.apps.streaming", server_url)
    yield module
    await module.app.aclose()


@pytest.fixture
def work(streaming, server_url):
    """Give a worker on the test's loop."""

    def serve(url=server_url, **options):
        settings = replace(streaming.app.settings, url=url)
        return serving(job_of(settings, APP, streaming.app.tasks, "w-1", **{"lease": 60.0, **options}))

    return serve


@pytest.fixture
def said(tmp_path):
    """Give a file, and a function that reads the words in it."""
    path = tmp_path / "said"
    path.touch()

    def read() -> list[str]:
        return path.read_text().splitlines()

    read.path = path
    return read


async def values(result, after=None):
    return [chunk.value async for chunk in result.stream(after=after, timeout=10)]


def chunks_key(result):
    return f"sq:{{default}}:chunks:{result.id}"


# ---- what is emitted is read


@pytest.mark.parametrize(
    ("name", "returned"),
    [
        *((name, None) for name in ("count", "count_on_the_loop_of_a_process")),
        *((name, "1500 in all") for name in ("count_in_thread", "count_in_process")),
        *((name, "1500 in all") for name in ("emit", "emit_in_thread", "emit_in_process")),
    ],
)
async def test_whatever_emits_is_read_in_order(any_server, streaming, work, name, returned):
    """Generators and those that emit, on the loop, in threads and in processes; more than fits in one page or frame."""
    task = getattr(streaming, name)
    async with work(pool_processes=1):
        result, empty = await task.adelay(1500), await task.adelay(0)
        chunks = [chunk async for chunk in result.stream(timeout=10)]
        assert [chunk.value for chunk in chunks] == list(range(1500))
        assert chunks[-1] == Chunk(id="1-1499", value=1499, attempt=1, delivery=1, index=1499)
        assert await values(empty) == []
        assert await result.aget(5) == returned


async def test_a_reader_goes_on_where_it_or_another_was(any_server, streaming, work):
    """In its own loop, or by the id of a chunk, with nothing but the task's id at hand; in a thread or on a loop."""
    async with work():
        result = await streaming.count.adelay(10)
        stream = result.stream(timeout=10)
        async for chunk in stream:
            if chunk.index == 3:
                break
        assert [chunk.value async for chunk in stream] == [4, 5, 6, 7, 8, 9]
        assert [chunk.value async for chunk in stream] == []
        assert (stream.delivery, stream.is_void) == (1, False)
        assert await values(streaming.app.result(result.id), after=chunk.id) == [4, 5, 6, 7, 8, 9]

        def in_a_thread():
            other = StreamQ(streaming.app.settings.url)
            with other:
                return [chunk.value for chunk in other.result(result.id).stream(after=chunk.id, timeout=10)]

        assert await asyncio.to_thread(in_a_thread) == [4, 5, 6, 7, 8, 9]
        assert await values(result, after="1-9") == []
        for wrong in ("", "7", "1-", "a-b", "-1-1", 7):
            with pytest.raises(ConfigError, match="id of a chunk"):
                result.stream(after=wrong)


async def test_many_readers_of_one_stream(any_server, streaming, work, said):
    """All have all of it, those on a loop and those in threads, from the first chunk on, whenever they come."""
    async with work():
        result = await streaming.endless.adelay(said.path)
        firsts = [anext(result.stream(timeout=10)) for _ in range(3)]
        assert [chunk.value for chunk in await asyncio.gather(*firsts)] == [0, 0, 0]

        async def some():
            stream = result.stream(timeout=10)
            return [(await anext(stream)).value for _ in range(30)]

        def some_in_a_thread():
            stream = result.stream(timeout=10)
            return [next(stream).value for _ in range(30)]

        found = await asyncio.gather(*(some() for _ in range(3)), *(asyncio.to_thread(some_in_a_thread) for _ in "123"))
        assert found == [list(range(30))] * 6
        await result.acancel()


async def test_chunks_come_while_the_task_runs(any_server, streaming, work, marked):
    """Not only at its end; a reader that waits is woken at once, and not by its look every second."""
    marker, ready = marked
    async with work():
        result = await streaming.until_file.adelay(marker, ready)
        stream = result.stream(timeout=10)
        assert [(await anext(stream)).value for _ in range(2)] == ["1a", "1b"]
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        began = time.monotonic()
        ready.touch()
        assert (await waiting).value == "1c"
        assert time.monotonic() - began < 0.9
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_chunks_are_what_the_annotation_says(streaming, work):
    """Without one they are plain JSON."""
    async with work():
        assert await values(await streaming.days.adelay()) == [date(2030, 1, 1), date(2030, 1, 2)]
        assert await values(streaming.app.result((await streaming.days.adelay()).id)) == ["2030-01-01", "2030-01-02"]
        assert await values(await streaming.untyped.adelay()) == ["2030-01-01"]
        with pytest.raises(ResultDecodeError, match=r"a chunk of .*mistyped does not fit"):
            await values(await streaming.mistyped.adelay())


async def test_a_task_that_was_moved_is_read_where_it_is(any_server, streaming, work):
    """Its result knows only the queue where it was enqueued."""
    result = await streaming.count.using(queue="old").adelay(3)
    await streaming.app.queues.amove("old", "default")
    assert await result.aprogress(0.5)
    async with work():
        assert await values(result) == [0, 1, 2]
        assert await values(streaming.app.result(result.id), after="1-0") == [0, 1, 2], "it is another delivery"
        assert (await result.arecord()).progress == Progress(0.5)
        assert await result.aforget()
        with pytest.raises(UnknownTaskId):
            await values(result)


async def test_a_plain_call_gives_the_generator(streaming):
    """Nothing is enqueued, and nothing emitted."""
    assert [n async for n in streaming.count(3)] == [0, 1, 2]
    assert list(streaming.count_in_thread(3)) == [0, 1, 2]
    assert await streaming.emit(3) == "3 in all"


# ---- the end


@pytest.mark.parametrize("late", [False, True])
async def test_a_failure_comes_after_all_chunks(any_server, streaming, work, late):
    """To a reader that waited as to one that comes after the end; and again, should it ask again."""
    async with work():
        result = await streaming.fail.adelay(3)
        if late:
            await until(lambda: result.status().ended)
        stream = result.stream(timeout=10)
        assert [(await anext(stream)).value for _ in range(3)] == [0, 1, 2]
        with pytest.raises(TaskFailed, match="no more"):
            await anext(stream)
        with pytest.raises(TaskFailed, match="no more"):
            await anext(stream)
        with pytest.raises(TaskFailed, match="no more"):
            await asyncio.to_thread(list, result.stream())


async def test_cancellation_closes_the_generator(any_server, streaming, work, said):
    """A reader has what came before, and then the same error as who waits for the result."""
    async with work():
        for task in (streaming.endless, streaming.endless_in_thread):
            result = await task.adelay(said.path)
            stream = result.stream(timeout=10)
            assert [(await anext(stream)).value for _ in range(4)] == [0, 1, 2, 3]
            assert await result.acancel()
            with pytest.raises(TaskCancelled):
                _ = [chunk async for chunk in stream]
            await until(lambda: said()[-1] == "closed")
    assert said().count("closed") == 2


@pytest.mark.parametrize("name", ["limited", "limited_in_thread", "limited_in_process"])
async def test_a_time_limit_closes_the_generator(streaming, work, said, name):
    async with work(pool_processes=1):
        result = await getattr(streaming, name).adelay(said.path)
        stream = result.stream(timeout=10)
        assert (await anext(stream)).value == 0
        with pytest.raises(TaskFailed, match="ran longer than its timeout"):
            await anext(stream)
        assert said()[0] == "began"
        assert said()[-1] == "closed"


async def test_a_stream_of_no_task(streaming):
    for result in (streaming.app.result("17"), streaming.app.result("17", queue="default")):
        with pytest.raises(UnknownTaskId):
            await values(result)
        with pytest.raises(UnknownTaskId):
            await asyncio.to_thread(list, result.stream())


async def test_nothing_comes_for_too_long(streaming):
    """The time counts from the chunk before; the reader can go on."""
    result = await streaming.count.adelay(1)
    with pytest.raises(ResultTimeout, match=r"nothing new came from task .* for 0\.05 s"):
        await anext(result.stream(timeout=0.05))
    with pytest.raises(ResultTimeout):
        await asyncio.to_thread(next, result.stream(timeout=0.05))
    await result.acancel()


# ---- another run begins anew


async def test_a_retry_starts_clean(any_server, streaming, work):
    """The chunks of the attempt that failed are void; a reader sees by the delivery that they are."""
    async with work():
        result = await streaming.flaky.adelay(2)
        stream = result.stream(timeout=10)
        first = [await anext(stream) for _ in range(3)]
        assert [(one.value, one.attempt, one.delivery, one.index) for one in first] == [
            (f"1:{n}", 1, 1, n) for n in range(3)
        ]
        streaming.read.add(result.id)
        rest = [chunk async for chunk in stream]
        assert [(one.value, one.attempt, one.delivery, one.index) for one in rest] == [
            (f"2:{n}", 2, 2, n) for n in range(2)
        ]
        assert await values(result) == ["2:0", "2:1"]
        assert await values(result, after=first[1].id) == ["2:0", "2:1"]
        assert await values(result, after=rest[0].id) == ["2:1"]


async def test_a_retry_that_emits_nothing(any_server, streaming, work):
    """The reader can tell that all it was given is void; who comes later is given nothing."""
    async with work():
        result = await streaming.flaky.adelay(0)
        stream = result.stream(timeout=10)
        chunks = [await anext(stream) for _ in range(3)]
        assert not stream.is_void
        streaming.read.add(result.id)
        assert [chunk async for chunk in stream] == []
        assert stream.is_void
        assert stream.delivery == 2 > chunks[-1].delivery
        late, resumed = result.stream(timeout=10), result.stream(after=chunks[-1].id, timeout=10)
        for other in (late, resumed):
            assert [chunk async for chunk in other] == []
            assert other.delivery == 2
        assert (late.is_void, resumed.is_void) == (False, True)


def test_a_killed_worker(any_server, streaming, start_worker, marked):
    """The task is run again, and its reader sees a new delivery from index 0, of the same attempt."""
    marker, ready = marked
    worker = start_worker(APP)
    result = streaming.until_file.delay(marker, ready)
    stream = result.stream(timeout=10)
    assert [next(stream).value for _ in range(2)] == ["1a", "1b"]
    wait_until(lambda: starts(marker))
    os.kill(worker.children[0], signal.SIGKILL)
    again = [next(stream) for _ in range(2)]
    assert [(one.value, one.attempt, one.delivery, one.index) for one in again] == [("2a", 1, 2, 0), ("2b", 1, 2, 1)]
    ready.touch()
    assert [chunk.value for chunk in stream] == ["2c"]
    assert [chunk.value for chunk in result.stream(after="1-1")] == ["2a", "2b", "2c"]
    assert result.record().deaths == 1


async def test_a_run_that_has_lost_its_lease_emits_in_vain(any_server, streaming, work, said, connection):
    """It is told as soon as it tries; nothing of it mixes with what the next run emits."""
    async with work():
        result = await streaming.endless.adelay(said.path)
        stream = result.stream(timeout=10)
        assert (await anext(stream)).value == 0
        record = f"sq:{{default}}:task:{result.id}"
        connection.client.execute_command("HINCRBY", record, "fence", 1)  # as whoever takes it over does
        await until(lambda: "closed" in said())
        assert said()[:3] == ["began", "CancelledError", "closed"]
        while (chunk := await anext(stream)).delivery == 1:
            pass
        assert chunk.index == 0
        found = connection.client.execute_command("XRANGE", chunks_key(result), "-", "+")
        assert {entry.partition(b"-")[0].decode() for entry, _ in found} == {str(chunk.delivery)}
        assert await result.acancel()


# ---- bounds


@pytest.mark.parametrize(
    ("name", "args", "error"),
    [
        ("chunk_of", (100_000,), "the chunk has 100002 bytes, over the limit of 100000"),
        ("too_many", (50_000,), r"all chunks have \d+ bytes, over the limit of 2000000 \(max_stream\)"),
        ("unencodable", (), "the emitted object cannot be stored as JSON"),
    ],
)
async def test_what_cannot_be_emitted_fails_the_task(streaming, work, name, args, error):
    async with work():
        result = await getattr(streaming, name).adelay(*args)
        with pytest.raises(TaskFailed, match=error):
            await values(result)


@pytest.mark.parametrize("name", ["too_large", "too_large_in_thread"])
async def test_a_generator_is_closed_before_its_task_ends(streaming, work, caplog, name):
    """Also if what it has yielded cannot be emitted; and not whenever it happens to be forgotten."""
    caplog.set_level(logging.INFO)
    async with work():
        result = await getattr(streaming, name).adelay()
        with pytest.raises(TaskFailed, match="the chunk has 200002 bytes"):
            await values(result)
    assert caplog.text.index("it was closed") < caplog.text.index(f"{name} failed")


async def test_the_stream_has_a_time_to_live(streaming, work, connection):
    """An hour at least; and what has expired before it was read is an error, and not silence."""
    run = connection.client.execute_command
    async with work():
        result = await streaming.count.adelay(1000)
        stream = result.stream(timeout=10)
        assert (await anext(stream)).value == 0
        await until(lambda: result.status().ended)
        assert 3_500_000 < run("PTTL", chunks_key(result)) <= 3_600_000
        run("XDEL", chunks_key(result), *(f"1-{n}" for n in range(600, 605)))
        with pytest.raises(ChunksLost, match="the chunks 600 to 604 are not there any more"):
            await values(result, after="1-590")
        found = [(await anext(stream)).value for _ in range(499)]
        with pytest.raises(ChunksLost):
            found += [chunk.value async for chunk in stream]
        found += [chunk.value async for chunk in stream]
        assert found[-1] == 999, "it goes on after them"
        run("DEL", chunks_key(result))
        with pytest.raises(ChunksLost, match="the chunks 0 to 999 are"):
            await values(result)
        assert await values(result, after="1-999") == []


async def test_forget_takes_the_chunks_along(any_server, streaming, work, connection):
    async with work():
        result = await streaming.count.adelay(3)
        assert await values(result) == [0, 1, 2]
        assert connection.client.execute_command("EXISTS", chunks_key(result))
        assert await result.aforget()
        assert not connection.client.execute_command("EXISTS", chunks_key(result))
        with pytest.raises(UnknownTaskId):
            await values(result)


@pytest.mark.parametrize("name", ["flood", "flood_in_thread"])
async def test_who_emits_faster_than_redis_takes_it_has_to_wait(streaming, work, server_url, said, name):
    """No more than the buffer is held; what waits for room can be cancelled. Other tasks go on."""
    with Proxy(server_url) as proxy:
        slow = proxy.strike("emit", Fault.DELAY, nth=2, seconds=None)
        async with work(proxy.url):
            result = await getattr(streaming, name).adelay(said.path)
            await until(lambda: slow.struck)
            [run] = [one for one in _runs() if one.outbox is not None and one.delivery.message.id == result.id]
            await until(lambda: run.outbox._is_full)
            held = run.outbox._bytes
            assert await (await streaming.emit.adelay(0)).aget(5) == "0 in all"
            assert run.outbox._bytes == held < outbox._FULL_BYTES + 2000
            await result.acancel()
            await until(lambda: said()[-1] == "closed")
            slow.release()


def _runs():
    import gc  # noqa: PLC0415

    from streamq.worker.holdings import Run  # noqa: PLC0415

    return [one for one in gc.get_objects() if isinstance(one, Run)]


# ---- Redis is away


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
async def test_a_lost_call_loses_and_doubles_nothing(any_server, streaming, work, server_url, fault):
    with Proxy(server_url) as proxy:
        strikes = [proxy.strike("emit", fault, nth=nth) for nth in (1, 2, 4)]
        async with work(proxy.url):
            result = await streaming.count.adelay(5000)
            assert await values(result) == list(range(5000))
        assert all(strike.struck for strike in strikes)


async def test_an_outcome_waits_for_its_chunks(any_server, streaming, work, server_url):
    """It is committed after all chunks are written, so that no reader can take the stream for complete before."""
    with Proxy(server_url) as proxy:
        slow = proxy.strike("emit", Fault.DELAY, seconds=None)
        async with work(proxy.url):
            result = await streaming.emit.adelay(3)
            await until(lambda: slow.struck)
            other = await streaming.emit.adelay(0)
            assert await other.aget(5) == "0 in all"
            assert await result.astatus() is State.RUNNING
            slow.release()
            assert await result.aget(5) == "3 in all"
        assert proxy.names.index("emit") < max(n for n, name in enumerate(proxy.names) if name == "finish")


def test_a_server_that_is_killed_and_comes_back(private_server, load_app_at, tmp_path):
    """No chunk is lost or comes twice, and the reader goes on, though it may have to ask again."""
    server = private_server("--appendfsync", "always")
    url = f"redis://127.0.0.1:{server.port}/0"
    streaming = load_app_at("tests.apps.streaming", url)
    worker = Worker(APP, url, "--lease", "60")
    file = tmp_path / "said"
    try:
        result = streaming.endless.delay(file)
        stream, found = result.stream(timeout=20), []
        while len(found) < 20:
            found.append(next(stream).value)
        server.kill()
        threading.Timer(0.5, server.start).start()
        while len(found) < 100:
            try:
                found.append(next(stream).value)
            except BrokerUnavailable:
                continue
        assert found == list(range(100))
        assert result.cancel()
    finally:
        worker.stop()


async def test_memory_is_full(streaming, work, connection, caplog, said):
    """What is emitted waits until there is room; then it goes on."""
    run = connection.client.execute_command
    async with work():
        result = await streaming.endless.adelay(said.path)
        stream = result.stream(timeout=10)
        await anext(stream)
        run("CONFIG", "SET", "maxmemory", 1)
        try:
            await until(lambda: "what tasks emit waits" in caplog.text)
        finally:
            run("CONFIG", "SET", "maxmemory", 0)
        last = run("HGET", f"sq:{{default}}:task:{result.id}", "chunk")
        await until(lambda: run("HGET", f"sq:{{default}}:task:{result.id}", "chunk") != last)
        assert [(await anext(stream)).index for _ in range(50)] == list(range(1, 51))
        assert caplog.text.count("what tasks emit waits") == 1
        await result.acancel()


async def test_what_cannot_be_written_is_no_success(streaming, work, connection, caplog, said):
    """The task is told, and its outcome is not committed: a stream with a hole must not look whole."""
    run = connection.client.execute_command
    async with work():
        result = await streaming.endless.adelay(said.path)
        await anext(result.stream(timeout=10))
        run("DEL", chunks_key(result))
        run("SET", chunks_key(result), "by hand", "EX", 60)
        await until(lambda: "closed" in said())
        assert said()[1] == "GeneratorExit"
        assert "cannot write what task" in caplog.text
        await until(lambda: "endless failed: BrokerReset" in caplog.text)
        assert not result.status().ended
        await result.acancel()


# ---- progress


async def test_progress_of_a_run(any_server, streaming, work, tmp_path, connection):
    """The last that is said counts, and stays when the task has ended; listeners hear of it."""
    pubsub = connection.client.pubsub()
    pubsub.subscribe("sq:events:listening")
    pubsub.psubscribe("sq:events:default:tests.apps.streaming.advance:progress")
    async with work():
        result = await streaming.advance.adelay(tmp_path / "file")
        await until(lambda: result.record().progress == Progress(0.25, "a quarter"))
        assert await result.aprogress(0.3, "from anywhere")
        assert (await result.arecord()).progress == Progress(0.3, "from anywhere")
        (tmp_path / "file").touch()
        await result.aget(5)
        assert result.record().progress == Progress(1.0, "x" * 1000)
        assert result.progress(0.5) is False
        assert streaming.app.result("17").progress(0.5) is False
        assert await streaming.app.result("17", queue="default").aprogress(0.5) is False
        told = []
        await until(lambda: (told.append(pubsub.get_message(timeout=0.1)) or told[-1]) is None and len(told) > 3)
        events = [json.loads(one["data"]) for one in told if one and one["type"] == "pmessage"]
        assert (events[0]["fraction"], events[0]["text"]) == (0.25, "a quarter")
        assert (events[1]["fraction"], events[1]["text"]) == (0.3, "from anywhere")
        assert events[-1]["fraction"] == 1
    pubsub.close()


async def test_progress_of_a_process(streaming, work):
    async with work(pool_processes=1):
        result = await streaming.advance_in_process.adelay()
        await result.aget(10)
        assert result.record().progress == Progress(0.5, "half")


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), "half", True, None])
def test_what_is_no_fraction(streaming, fraction):
    with pytest.raises(ConfigError, match="fraction from 0 to 1"):
        streaming.app.result("17").progress(fraction)


async def test_a_progress_is_no_reason_to_wait(streaming, work, server_url):
    """It is lost if Redis does not take it, and the task ends all the same."""
    with Proxy(server_url) as proxy:
        strike = proxy.strike("progress", Fault.BEFORE)
        async with work(proxy.url):
            result = await streaming.advance.adelay("/")
            assert await result.aget(5) is None
        assert strike.struck
