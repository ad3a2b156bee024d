"""What a run says waits for the one who writes it: in order, in bounds, and never for ever."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from types import SimpleNamespace

import pytest

from streamq.codec import encode_plain
from streamq.config import Settings
from streamq.context import DONE
from streamq.errors import BrokerReset, ResultEncodeError, ResultTooLarge
from streamq.lifecycle import Abandoned, Died, Succeeded
from streamq.message import Delivery, Message
from streamq.progress import Progress
from streamq.worker.committer import Committer
from streamq.worker.emitter import Emitter
from streamq.worker.holdings import Holdings, Run
from streamq.worker.metrics import Counters
from streamq.worker.outage import Outage
from streamq.worker.outbox import _FULL_BYTES, _FULL_CHUNKS, Bounds, Outbox
from tests.serving import until

BOUNDS = Bounds(100_000, 10_000_000)


@pytest.fixture
def ready():
    return []


@pytest.fixture
def outbox(ready):
    return Outbox(BOUNDS, lambda: ready.append(1))


def fill(outbox):
    for n in range(_FULL_CHUNKS - 1):
        assert outbox.emit(n) is DONE


# ---- what is put is taken


def test_chunks_are_taken_in_order(outbox, ready):
    """They stay until they are written; who writes is told once that there is something."""
    outbox.emit(1)
    outbox.emit("2")
    assert outbox.take() == (0, [b"1", b'"2"'], None)
    outbox.emit(3)
    assert outbox.written(1)
    assert outbox.take() == (1, [b'"2"', b"3"], None)
    assert len(ready) == 1
    assert not outbox.written(2)
    outbox.emit(4)
    assert len(ready) == 2
    assert outbox.take() == (3, [b"4"], None)


def test_a_value_is_encoded_at_once(outbox):
    """What becomes of it afterwards does not matter."""
    value = [1]
    outbox.emit(value)
    value.append(2)
    assert outbox.take().chunks == [b"[1]"]


def test_of_progress_the_last_counts_and_is_said_once(outbox, ready):
    outbox.say(Progress(0.1))
    outbox.say(Progress(0.2))
    assert ready
    assert outbox.take().progress == Progress(0.2)
    assert outbox.take().progress is None


async def test_what_is_taken_at_once_is_bounded(outbox):
    for _ in range(2 * _FULL_CHUNKS):
        outbox.add(b"1")
    assert len(outbox.take().chunks) == _FULL_CHUNKS
    outbox.written(_FULL_CHUNKS)
    outbox.written(_FULL_CHUNKS)
    for _ in range(4):
        outbox.add(b"x" * (_FULL_BYTES // 2))
    assert len(outbox.take().chunks) == 2


def test_what_cannot_be_emitted(ready):
    outbox = Outbox(Bounds(10, 100), lambda: ready.append(1))
    with pytest.raises(ResultTooLarge, match=r"11 bytes, over the limit of 10 \(max_result\)"):
        outbox.emit("x" * 9)
    with pytest.raises(ResultEncodeError, match="the emitted object"):
        outbox.emit(object())
    for _ in range(4):
        outbox.emit("x" * 7)
    with pytest.raises(ResultTooLarge, match=r"125 bytes, over the limit of 100 \(max_stream\)"):
        outbox.emit("x" * 7)
    assert len(outbox.take().chunks) == 4


# ---- back-pressure


async def test_an_async_task_waits_for_room(outbox):
    """Only while it is full; and its waiting can be cancelled."""
    fill(outbox)
    waiting, given_up = outbox.emit("full"), asyncio.ensure_future(outbox.emit("over"))
    given_up.cancel()
    outbox.take()
    outbox.written(1)
    await asyncio.sleep(0)
    assert not waiting.done(), "it is full again, by the one that was over"
    outbox.written(1)
    async with asyncio.timeout(5):
        await waiting
    outbox.written(1)
    assert outbox.emit("more") is DONE
    assert await DONE is None


async def test_a_thread_waits_for_room(outbox):
    fill(outbox)
    waiting = asyncio.create_task(asyncio.to_thread(outbox.emit, "full"))
    await until(lambda: outbox._waiting)
    assert not waiting.done()
    outbox.written(1)
    assert await waiting is DONE


@pytest.mark.parametrize("end", [Outbox.drop, lambda outbox: outbox.written(_FULL_CHUNKS)])
async def test_nobody_waits_for_ever(outbox, end):
    """What is written, or forgotten, makes room for all, in whatever thread they wait."""
    fill(outbox)
    waiting = [outbox.emit("full"), asyncio.create_task(asyncio.to_thread(outbox.emit, "over"))]
    await until(lambda: len(outbox._waiting) == 2)
    end(outbox)
    end(outbox)
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)


# ---- the end


def test_the_end_comes_when_all_is_written(outbox):
    ended = []
    outbox.emit(1)
    assert outbox.end(lambda: ended.append(1))
    assert outbox.emit(2) is DONE, "too late"
    assert outbox.take().chunks == [b"1"]
    assert not ended
    outbox.written(1)
    assert ended == [1]
    assert not outbox.end(lambda: ended.append(2))


def test_the_end_waits_for_a_progress_that_is_under_way(outbox):
    """Or the record of the task would keep the one before it."""
    ended = []
    outbox.say(Progress(1))
    outbox.take()
    assert outbox.end(lambda: ended.append(1))
    outbox.written(0)
    assert ended == [1]


def test_the_end_of_what_has_said_nothing(outbox):
    assert not outbox.end(lambda: None)


def test_an_exception_that_strikes_in_a_thread_holds_nothing_up(ready):
    """It may be raised after the chunk was put, and before who writes was told of it."""

    def tell():
        ready.append(1)
        if len(ready) == 1:
            raise TimeoutError

    outbox = Outbox(BOUNDS, tell)
    with pytest.raises(TimeoutError):
        outbox.emit(1)
    assert outbox.end(lambda: None)
    assert len(ready) == 2


def test_what_is_dropped_is_forgotten(outbox):
    ended = []
    outbox.emit(1)
    outbox.say(Progress(1))
    outbox.end(lambda: ended.append(1))
    outbox.drop()
    assert ended == [1]
    assert outbox.take() == (0, [], None)


def test_a_task_is_told_that_its_chunks_cannot_be_written(outbox):
    outbox.drop(BrokerReset("no stream"))
    outbox.drop()
    with pytest.raises(BrokerReset, match="no stream"):
        outbox.emit(1)


# ---- the outcome


@pytest.fixture
async def worker():
    """Give a run that is held, and what takes its chunks and its outcome; nobody is there to write."""
    holdings = Holdings()
    fleet = SimpleNamespace()
    emitter = Emitter(fleet, Outage(), print, settings=Settings("redis://x"))
    committer = Committer(fleet, holdings, Outage(), None, None, counters=Counters(), unknown_ttl=1)
    run = Run(Delivery(Message("1", "shop.buy", "q", b"[]"), "s", b"1-1", 0, 1), None, emitter.open)
    holdings.add(run)
    return SimpleNamespace(run=run, emitter=emitter, committer=committer, holdings=holdings)


async def test_an_outcome_waits(worker):
    run, committer = worker.run, worker.committer
    await run.emit(1)
    committer.put(run, Succeeded(b"1"))
    assert not committer._ready
    run.outbox.take()
    run.outbox.written(1)
    assert committer._ready == [(run, Succeeded(b"1"))]


async def test_without_chunks_it_does_not_wait(worker):
    worker.committer.put(worker.run, Succeeded(b"1"))
    assert worker.run.outbox is None
    assert worker.committer._ready


@pytest.mark.parametrize("outcome", [Abandoned(), Died("signal SIGKILL")])
async def test_a_run_that_will_be_run_again_does_not_wait(worker, outcome):
    """Its chunks would be void anyway."""
    await worker.run.emit(1)
    worker.committer.put(worker.run, outcome)
    assert worker.committer._ready == [(worker.run, outcome)]


async def test_an_outcome_whose_chunks_were_not_written_is_not_committed(worker, caplog):
    """The worker ends, or Redis refuses them: a stream with a hole must not look whole."""
    await worker.run.emit(1)
    worker.committer.put(worker.run, Succeeded(b"1"))
    worker.emitter.close()
    assert not worker.committer._ready
    assert not len(worker.holdings)
    assert "it will be run again: the worker has ended before" in caplog.text
    assert caplog.records[-1].levelno == logging.ERROR


async def test_what_is_emitted_after_the_end_of_the_worker_waits_for_nobody(worker):
    """A thread may go on, which cannot be ended."""
    worker.emitter.close()
    thread = threading.Thread(target=lambda: [worker.run.emit(n) for n in range(5)])
    thread.start()
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()
    await until(lambda: worker.run.outbox._is_closed)


async def test_a_run_that_emits_leaves_no_cycle(worker):
    """Else only the garbage collector would find it."""
    run, holdings = worker.run, worker.holdings
    await run.emit(1)
    worker.committer.put(run, Succeeded(b"1"))
    run.outbox.take()
    run.outbox.written(1)
    holdings.drop(run)
    worker.committer._ready.clear()
    worker.emitter._ready.clear()
    seen = weakref.ref(run.outbox)
    gc.disable()
    try:
        del run
        worker.run = None
        assert seen() is None
    finally:
        gc.enable()


async def test_one_outbox_for_all_threads(worker):
    """Two that emit for the first time at once have the same."""
    barrier = threading.Barrier(4)

    def emit(n):
        barrier.wait()
        worker.run.emit(n)

    await asyncio.gather(*(asyncio.to_thread(emit, n) for n in range(4)))
    assert sorted(worker.run.outbox.take().chunks) == [encode_plain(n) for n in range(4)]


def test_a_run_that_nobody_writes_for(outbox):
    run = Run(Delivery(Message("1", "shop.buy", "q", b"[]"), "s", b"1-1", 0, 1), None)
    assert run.emit(object()) is DONE
    run.progress(Progress(0.5))
    assert run.pass_on(b"1") is DONE
