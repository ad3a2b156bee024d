"""Tasks that fail, hang, kill and are killed.

``$STREAMQ_URL`` says which server, ``$MAX_DEATHS`` the deaths, ``$DURABLE_EVENTS`` that events are kept.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from tenacity import retry_if_result, stop_after_attempt, wait_fixed

from streamq import Context, Retry, StreamQ, current


@asynccontextmanager
async def lifespan(_app: StreamQ) -> AsyncIterator[int]:
    async with asyncio.TaskGroup():  # must be entered and left in one asyncio task
        yield os.getpid()
    logging.getLogger("tests").info("lifespan left")


app = StreamQ(
    lifespan=lifespan,
    max_deaths=int(os.environ.get("MAX_DEATHS", "3")),
    max_result=1000,
    durable_events="DURABLE_EVENTS" in os.environ,
)
VARIABLE: ContextVar[int] = ContextVar("variable", default=0)


class Busy(Exception):
    retry_after = 0.3


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("there is no text")


def quickly(attempts: int, **parts: object) -> Retry:
    return Retry(stop=stop_after_attempt(attempts), wait=wait_fixed(0.05), **parts)


def mark(marker: Path) -> None:
    with marker.open("a") as out:
        out.write(f"{os.getpid()}\n")


# ---- retries


@app.task(retry=quickly(3), bind=True)
async def succeed_at(context: Context, attempt: int) -> int:
    if context.attempt < attempt:
        raise OSError(f"attempt {context.attempt}")
    return context.attempt


@app.task(retry=quickly(3), bind=True)
def succeed_at_in_thread(context: Context, attempt: int) -> int:
    return succeed_at_in_process.function(context, attempt)


@app.task(retry=quickly(3), bind=True, pool="process")
def succeed_at_in_process(context: Context, attempt: int) -> int:
    if context.attempt < attempt:
        raise OSError(f"attempt {context.attempt}")
    return context.attempt


@app.task(retry=quickly(3, retry=retry_if_result(lambda result: result < 2)), bind=True)
async def until_content(context: Context) -> int:
    return context.attempt


@app.task(retry=3, retry_on=(OSError,), discard_on=(FileNotFoundError,))
def picky(kind: str) -> None:
    raise {"file": FileNotFoundError, "value": ValueError}[kind]("as asked")


@app.task(bind=True)
async def ask(context: Context) -> int:
    try:
        if context.attempt == 1:
            raise OSError("no net")  # noqa: TRY301 - so that it is being handled
    except OSError:
        context.retry(countdown=0.1)
    return context.attempt


@app.task(bind=True)
def reject(context: Context) -> None:
    context.reject("no such customer")


@app.task(retry=quickly(2), bind=True)
async def busy(context: Context) -> int:
    if context.attempt == 1:
        raise Busy
    return context.attempt


@app.task(retry=Retry(wait=wait_fixed(1.5)), bind=True)
async def fail_first(context: Context) -> list[int]:
    if context.attempt == 1:
        raise OSError("no net")
    return [context.attempt, context.deliveries, context.deaths]


@app.task(retry=quickly(5))
async def unencodable(marker: Path) -> object:
    mark(marker)
    return object()


@app.task(retry=quickly(3), bind=True)
async def when_ready(context: Context, marker: Path, ready: Path, attempts: int) -> int:
    mark(marker)
    while not ready.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(0.01)
    if context.attempt < attempts:
        raise OSError(f"attempt {context.attempt}")
    return context.attempt


@app.task
async def unreadable() -> None:
    raise Unreadable


@app.task
def unreadable_in_thread() -> None:
    raise Unreadable


# ---- in processes


@app.task(pool="process")
def pid() -> int:
    return os.getpid()


@app.task(pool="process", bind=True)
async def about(context: Context) -> dict[str, object]:
    assert current().id == context.id
    logging.getLogger("shop").warning("from user code")
    return {"pid": os.getpid(), "state": context.state, "attempt": context.attempt, "fence": context.fence}


@app.task(pool="process")
def run_a_loop() -> int:
    return asyncio.run(asyncio.sleep(0, 5))


@app.task(pool="process")
def remember() -> int:
    before = VARIABLE.get()
    VARIABLE.set(before + 1)
    return before


@app.task(pool="process", timeout=0.2)
def sleep_too_long() -> None:
    time.sleep(30)


@app.task(pool="process", timeout=0.2)
async def await_too_long() -> None:
    await asyncio.sleep(30)


@app.task(pool="process", timeout=0.2)
def handle_its_limit() -> str:
    try:
        time.sleep(30)
    except Exception as error:  # noqa: BLE001 - as users do
        return type(error).__name__
    return "none"


@app.task(pool="process", hard_timeout=0.3)
def ignore_everything_limited(marker: Path) -> None:
    ignore_everything.function(marker)


@app.task(pool="process")
def ignore_everything(marker: Path) -> None:
    mark(marker)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        with suppress(BaseException):
            time.sleep(100)


@app.task(pool="process")
def block_in_c() -> None:
    re.match(r"(a+)+$", "a" * 40 + "b")  # some hours, with the interpreter's lock


@app.task(pool="process")
def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(pool="process")
def exit_at_once(code: int) -> None:
    os._exit(code)


@app.task(pool="process")
def leave() -> None:
    sys.exit(3)


@app.task(pool="process")
def interrupt() -> None:
    raise KeyboardInterrupt


@app.task(pool="process")
def unreadable_in_process() -> None:
    raise Unreadable


@app.task(pool="process")
def print_much() -> int:
    sys.stdout.write("x" * 100 * 1024 + "\n")
    sys.stderr.write("y" * 100 * 1024 + "\n")
    return 1


@app.task(pool="process")
def close_all_files() -> None:
    os.closerange(0, 256)


@app.task(pool="process")
def fork_and_return() -> str:
    return "child" if os.fork() == 0 else "parent"


@app.task(pool="process")
async def fork_and_return_async() -> str:
    return "child" if os.fork() == 0 else "parent"


@app.task(pool="process")
def leave_a_child_and_die(marker: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(5,))
    child.start()
    marker.write_text(str(child.pid))
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(pool="process")
async def cancel_all() -> None:
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(30)


@app.task(pool="process")
def allocate(mib: int) -> int:
    return len(bytearray(mib * 1024 * 1024)) // mib


@app.task(pool="process")
def large(size: int) -> int:
    return "x" * size


@app.task(pool="process", bind=True)
def until_lost(context: Context) -> bool:
    deadline = time.monotonic() + 5
    while not context.lease_lost and time.monotonic() < deadline:
        time.sleep(0.01)
    return context.lease_lost


@app.task(pool="process")
def until_file(marker: Path, ready: Path) -> list[int]:
    mark(marker)
    while not ready.exists():
        time.sleep(0.01)
    return [current().attempt, current().deliveries, current().deaths]


# ---- poison, and those who stand around


@app.task
async def poison(how: str) -> None:
    _crash(how)


@app.task
def poison_in_thread(how: str) -> None:
    _crash(how)


def _crash(how: str) -> None:
    if how == "exit":
        os._exit(7)
    if how == "segv":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
async def innocent(marker: Path, ready: Path) -> int:
    mark(marker)
    while not ready.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(0.01)
    return current().deaths


@app.task
def innocent_in_thread(marker: Path, ready: Path) -> int:
    mark(marker)
    while not ready.exists():
        time.sleep(0.01)
    return asyncio.run(asyncio.sleep(0, current().deaths))


@app.task
def fork_in_thread(marker: Path, ready: Path) -> int:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
    child.start()
    mark(marker)
    while not ready.exists():
        time.sleep(0.01)
    child.kill()
    child.join()
    return current().deliveries
