"""Functions become tasks, tasks become messages; what cannot be used is refused where it is written."""

from __future__ import annotations

import importlib
import inspect
import math
import re
import runpy
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from datetime import UTC, datetime
from types import ModuleType, SimpleNamespace
from typing import Any
from uuid import RFC_4122, UUID

import pytest

import streamq
from streamq import Context, NoCurrentTask, StreamQ, Task, current, decorator
from streamq.broker.producer import new_task_id
from streamq.codec import encode_plain
from streamq.errors import (
    ConfigError,
    EncodeError,
    PayloadTooLarge,
    ResultDecodeError,
    RetryRequested,
    TaskNameClash,
    TaskRejected,
)
from streamq.naming import default_name
from streamq.tasks import AsyncStreamTask, AsyncTask, StreamTask, SyncTask


def add(x: int, y: int = 0) -> int:
    """Add."""
    return x + y


async def aadd(x: int, y: int = 0) -> int:
    return x + y


@pytest.fixture
def shared(monkeypatch):
    """Begin without a current app, and leave no shared tasks."""
    before = dict(decorator.shared_tasks)
    monkeypatch.setattr("streamq.latest._current", [])
    yield decorator.shared_tasks
    decorator.shared_tasks.clear()
    decorator.shared_tasks.update(before)


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Write modules that can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    written = []

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        written.append(name)
        return str(tmp_path / f"{name}.py")

    yield write
    for name in written:
        sys.modules.pop(name, None)


# ---- ids


def test_an_id_is_a_uuid_of_version_7():
    """48 bits of time in ms, then version, variant and 74 random bits (RFC 9562)."""
    before = time.time_ns() // 1_000_000
    ids = [new_task_id() for _ in range(500)]
    after = time.time_ns() // 1_000_000
    for text in ids:
        value = UUID(text)
        assert str(value) == text
        assert (value.version, value.variant) == (7, RFC_4122)
        assert before <= value.int >> 80 <= after


def test_ids_are_different_and_in_the_order_of_time():
    """The random bits tell apart what falls into one ms; later ms sort later."""
    ids = [new_task_id() for _ in range(2000)]
    assert len(set(ids)) == len(ids)
    assert [text[:13] for text in ids] == sorted(text[:13] for text in ids)
    random_bits = [UUID(text).int & (1 << 62) - 1 for text in ids]
    for bit in range(62):
        assert 800 < sum(bits >> bit & 1 for bits in random_bits) < 1200


# ---- names


def test_a_task_is_named_by_module_and_function(app):
    assert app.task(add).name == f"{__name__}.add"
    assert app.task(name="shop.add")(aadd).name == "shop.add"
    assert repr(app.tasks["shop.add"]) == "<task shop.add>"


@pytest.mark.parametrize(
    ("main", "name"),
    [
        ({"__spec__": SimpleNamespace(name="shop.tasks"), "__file__": "/srv/shop/tasks.py"}, "shop.tasks.add"),
        ({"__spec__": None, "__file__": "/srv/shop/tasks.py"}, "tasks.add"),
        ({"__spec__": None}, "__main__.add"),
    ],
    ids=["python -m shop.tasks", "python shop/tasks.py", "python"],
)
def test_a_script_names_tasks_as_a_worker_will(monkeypatch, main, name):
    """What runs as ``__main__`` is imported by the worker under another name, which is the one that counts."""
    module = ModuleType("__main__")
    vars(module).update(main)
    monkeypatch.setitem(sys.modules, "__main__", module)
    function = type(add)(add.__code__, {"__name__": "__main__"}, "add")
    assert default_name(function) == name


def test_a_script_that_is_run_can_be_imported_too(write_module):
    """Run and imported, a file defines the same tasks."""
    path = write_module(
        "shop_script",
        "from streamq import StreamQ\napp = StreamQ('redis://x')\n@app.task\ndef buy(): ...\n",
    )
    imported = importlib.import_module("shop_script")
    assert list(imported.app.tasks) == ["shop_script.buy"]
    ran = runpy.run_path(path, run_name="shop_script")
    assert list(ran["app"].tasks) == ["shop_script.buy"]


@pytest.mark.parametrize("name", ["a b", "a:b", "a*", "a?", "[a]", "{a}", "a\n", "\udc80"])
def test_a_task_name_without_a_meaning_elsewhere(app, name):
    """What separates parts of channels, or is a pattern there, is refused."""
    with pytest.raises(ConfigError, match="task name"):
        app.task(name=name)(add)


def test_two_functions_cannot_have_one_name(app):
    """The message says where the other one is."""
    app.task(name="shop.add")(add)
    with pytest.raises(TaskNameClash, match=rf"shop\.add.*{re.escape(__file__)}:{add.__code__.co_firstlineno}"):
        app.task(name="shop.add")(aadd)
    assert app.tasks["shop.add"].function is add


def test_the_same_function_can_be_registered_again(write_module):
    """A module that is imported twice, or reloaded, takes its own place."""
    write_module("shop_again", "from streamq import task\n@task\ndef buy(): ...\n")
    first = importlib.import_module("shop_again")
    assert importlib.reload(first).buy is decorator.shared_tasks["shop_again.buy"]
    del sys.modules["shop_again"]
    assert importlib.import_module("shop_again").buy is decorator.shared_tasks.pop("shop_again.buy")


def wrapped(function):
    def inner(*args):
        return function(*args)

    return inner


def test_functions_under_one_decorator_are_told_apart(app):
    """A decorator without functools.wraps gives all its functions one name: one must not take another's place."""
    app.task(wrapped(add))
    with pytest.raises(TaskNameClash):
        app.task(wrapped(aadd))


def test_a_function_that_calls_itself_can_be_registered_again(app):
    """It stands in its own closure."""

    def count_down(n: int) -> int:
        return count_down(n - 1) if n else 0

    app.task(count_down)
    assert app.tasks[app.task(count_down).name].function is count_down


@pytest.mark.parametrize("what", [print, int, len, SimpleNamespace(), None, "add"], ids=repr)
def test_only_functions_are_tasks(app, what):
    with pytest.raises(ConfigError, match="needs a function"):
        app.task()(what)


# ---- options


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"queue": "a:b"}, "queue name"),
        ({"queue": ""}, "queue name"),
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"timeout": -1}, "timeout must be more than 0"),
        ({"timeout": math.nan}, "timeout must be more than 0"),
        ({"timeout": math.inf}, "timeout must be more than 0 seconds, at most a year, not inf"),
        ({"timeout": "5"}, "timeout must be more than 0 seconds, at most a year, not '5'"),
        ({"timeout": True}, "timeout must be more than 0"),
        ({"hard_timeout": 0}, "hard_timeout must be more than 0"),
        ({"hard_timeout": 10**9}, "hard_timeout must be more than 0 seconds, at most a year"),
        ({"timeout": 2, "hard_timeout": 2}, "hard_timeout must be more than timeout"),
        ({"pool": "thread"}, "pool must be 'process' or None, not 'thread'"),
        ({"retry": 0}, "1 or more, not 0"),
        ({"retry_on": OSError}, "retry_on must be a tuple"),
        ({"discard_on": (OSError,)}, "need retry"),
        ({"raises": ("ValueError",)}, "raises must be exception classes"),
        ({"raises": (int,)}, "raises must be exception classes"),
        ({"raises": (ValueError("x"),)}, "raises must be exception classes"),
    ],
)
def test_an_option_that_cannot_be_used(app, options, what):
    """The error comes at the decorator, and nothing is registered."""
    with pytest.raises(ConfigError, match=what):
        app.task(**options)(add)
    assert __name__ + ".add" not in app.tasks


def test_the_kind_of_a_function_is_kept(app):
    """The task looks like the function it was."""
    assert isinstance(app.task(add), SyncTask)
    assert isinstance(app.task(queue="slow")(aadd), AsyncTask)
    assert app.tasks[f"{__name__}.aadd"].queue == "slow"
    assert app.task(add).__doc__ == "Add."
    assert app.task(add).__wrapped__ is add


async def each(number: int) -> AsyncGenerator[int, None]:
    for n in range(number):
        yield n


def each_in_thread(number: int) -> Generator[int, None, str]:
    yield from range(number)
    return "all"


async def test_a_generator_is_a_task(app):
    """A plain call gives the generator itself; bound, it has a context in which emitting does nothing."""
    on_loop, in_thread = app.task(each), app.task(timeout=3)(each_in_thread)
    assert isinstance(on_loop, AsyncStreamTask)
    assert isinstance(in_thread, StreamTask)
    assert (on_loop.is_async, in_thread.is_async) == (True, False)
    assert [n async for n in on_loop(3)] == list(in_thread(3)) == [0, 1, 2]

    @app.task(bind=True)
    async def bound(context: Context) -> AsyncGenerator[int, None]:
        await context.emit(object())
        context.progress(0.5)
        yield context.deliveries

    assert [n async for n in bound()] == [0]


@pytest.mark.parametrize(
    ("annotation", "chunk", "result"),
    [
        (Iterator[int], 1, "as it is"),
        (Iterable[int], 1, "as it is"),
        (Generator[int, None, bool], 1, True),
        (Generator[int, None, None], 1, None),
        (Any, "as it is", "as it is"),
        (list[int], "as it is", "as it is"),
        (inspect.Signature.empty, "as it is", "as it is"),
    ],
    ids=str,
)
def test_chunks_have_the_type_that_is_yielded(app, annotation, chunk, result):
    """And the result that which is returned in the end, as far as the annotation tells it."""

    def function():
        yield

    if annotation is not inspect.Signature.empty:
        function.__annotations__["return"] = annotation
    codec = app.task(function).result_codec
    assert codec.chunks.decode(encode_plain(chunk)) == chunk
    assert codec.decode(encode_plain(result)) == result
    if chunk == 1:
        with pytest.raises(ResultDecodeError, match=r"a chunk of .* does not fit"):
            codec.chunks.decode(b'"none"')


@pytest.mark.parametrize("annotation", [AsyncIterator[int], AsyncIterable[int], AsyncGenerator[int, None]], ids=str)
def test_chunks_of_an_async_generator(app, annotation):
    async def function():
        yield

    function.__annotations__["return"] = annotation
    codec = app.task(function).result_codec
    assert codec.decode(b"null") is None
    with pytest.raises(ResultDecodeError):
        codec.chunks.decode(b'"none"')


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"queue": "a:b"}, "queue name"),
        ({"task_id": ""}, "task id"),
        ({"task_id": "a b"}, "task id"),
        ({"task_id": 17}, "task id"),
        ({"countdown": -0.1}, "countdown"),
        ({"countdown": math.nan}, "countdown"),
        ({"countdown": math.inf}, "countdown"),
    ],
)
def test_an_option_of_a_call_that_cannot_be_used(app, options, what):
    with pytest.raises(ConfigError, match=what):
        app.task(add).using(**options)


def test_options_of_a_call(app):
    """What is not said stays as the task has it; the task itself is not changed."""
    task = app.task(queue="slow")(add)
    plain = task.s(1).message
    assert (plain.task, plain.queue, plain.args, plain.delay_ms) == (task.name, "slow", b"[1]", 0)
    assert plain.id == "", "each enqueue makes a new one"
    chosen = task.using(queue="fast", task_id="17", countdown=1.5).s(1, y=2).message
    assert chosen[:5] == ("17", task.name, "fast", b'{"x":1,"y":2}', 1500)
    assert task.using(countdown=0).s(1).message.delay_ms == 0
    assert task.s(1).message.queue == "slow"


# ---- calls


def test_a_call_that_cannot_be_sent_fails_at_once(app):
    """Before anything is sent: the arguments are checked and encoded, and none of this needs a server."""
    task = app.task(add)
    with pytest.raises(TypeError, match=r"test_task_definitions\.add\(\) missing a required argument: 'x'"):
        task.delay()
    with pytest.raises(EncodeError, match="'y'"):
        task.delay(1, object())
    with pytest.raises(EncodeError):
        task.apply_async((object(),))


async def test_an_async_call_that_cannot_be_sent_fails_at_once(app):
    task = app.task(add)
    with pytest.raises(TypeError, match="missing a required argument"):
        await task.adelay()
    with pytest.raises(EncodeError):
        await task.aapply_async((object(),))


def test_arguments_over_the_limit_are_not_sent():
    """The limit counts encoded bytes; what has just that many may pass."""
    task = StreamQ("redis://x", max_payload=10).task(add)
    assert task.s("x" * 6).message.args == b'["xxxxxx"]'
    with pytest.raises(PayloadTooLarge, match=r"add\(\).* 11 bytes, over the limit of 10 \(max_payload\)"):
        task.s("x" * 7)
    with pytest.raises(PayloadTooLarge):
        task.delay("ü" * 4)


def test_a_signature_makes_a_new_id_each_time(app):
    """A value of a call can be enqueued many times; with an id of its own it is one task."""
    signature = app.task(add).s(1)
    ids = {signature.to_message().id for _ in range(10)}
    assert len(ids) == 10
    assert signature.to_message()._replace(id="") == signature.message._replace(id="")
    own = app.tasks[f"{__name__}.add"].using(task_id="17").s(1)
    assert {own.to_message().id for _ in range(3)} == {"17"}


def test_a_signature_holds_the_arguments_of_its_making(app):
    """What the caller changes afterwards is not sent."""
    items = [1]
    signature = app.task(add).s(items)
    items.append(2)
    assert signature.message.args == b"[[1]]"


def test_a_result_has_the_id_and_the_queue_of_its_message(app):
    signature = app.task(add).using(queue="slow", task_id="17").s(1)
    result = signature.to_result(signature.to_message(), app.broker)
    assert (result.id, result.queue) == ("17", "slow")
    assert app.result("18", queue="fast").queue == "fast"
    assert "broker" not in repr(result)


# ---- plain calls


async def test_a_plain_call_runs_the_function_here(app):
    """A task can be called like the function it was, and an async one awaited; nothing is enqueued."""
    assert app.task(add)(2, y=3) == 5
    assert await app.task(aadd)(2, y=3) == 5


async def test_a_plain_call_of_a_bound_task_has_a_context(app):
    """It was never delivered, and says so."""

    @app.task(bind=True, queue="slow")
    def bound(context: Context, x: int) -> tuple[Context, int]:
        return context, x

    @app.task(bind=True)
    async def abound(context: Context) -> Context:
        return context

    context, x = bound(7)
    assert x == 7
    assert (context.name, context.queue) == (f"{__name__}.bound", "slow")
    assert (context.attempt, context.deliveries, context.state) == (1, 0, None)
    assert abs((context.enqueued_at - datetime.now(UTC)).total_seconds()) < 5
    assert UUID(context.id).version == 7
    assert (await abound()).id != context.id


def test_a_plain_call_can_ask_and_reject(app):
    """Nobody is there to run it again or to bury it: the caller gets the exception."""

    @app.task(bind=True)
    def ask(context: Context, what: str) -> None:
        if what == "retry":
            context.retry(countdown=2, reason="busy")
        context.reject("no such customer")

    with pytest.raises(RetryRequested, match="busy") as raised:
        ask("retry")
    assert raised.value.countdown == 2
    with pytest.raises(TaskRejected, match="no such customer"):
        ask("reject")


def test_a_context_has_what_stores_of_ones_own_need(app):
    """A key that stays the same for a task, and a fence; without a worker no lease can be lost."""

    @app.task(bind=True, queue="slow")
    def look(context: Context) -> Context:
        return context

    context = look()
    assert context.idempotency_key == f"slow:{context.id}"
    assert (context.fence, context.deaths, context.lease_lost) == (0, 0, False)


@pytest.mark.parametrize("countdown", [-1, math.nan, math.inf, "5", True])
def test_a_countdown_that_cannot_be_used(app, countdown):
    """It must not be taken for an exception that asks for a retry."""

    @app.task(bind=True)
    def ask(context: Context) -> None:
        context.retry(countdown=countdown)

    with pytest.raises(ConfigError, match="countdown must be 0 or more seconds"):
        ask()


def test_outside_a_task_there_is_no_context():
    with pytest.raises(NoCurrentTask, match="outside a running task"):
        current()


# ---- tasks without an app, and tasks of other modules


def test_a_shared_task_needs_an_app_when_it_is_called(shared):
    """Defining and calling it here needs none; enqueueing says what is missing."""
    task = streamq.task(add)
    assert task(1, 2) == 3
    with pytest.raises(ConfigError, match="there is no app yet"):
        task.delay(1)
    app = StreamQ("redis://x")
    assert task.broker is app.broker
    assert task.s(1).message.task == task.name


def test_shared_tasks_go_through_the_app_that_was_made_last(shared):
    """Unless another one is made the current one."""
    task = streamq.task(queue="slow")(add)
    first, second = StreamQ("redis://first"), StreamQ("redis://second")
    assert task.broker is second.broker
    first.make_current()
    assert task.broker is first.broker
    assert task.queue == "slow"


def test_an_app_has_its_own_and_the_shared_tasks(shared, app):
    """Tasks of another app are not among them."""
    own, ours = app.task(add), streamq.task(aadd)
    other = StreamQ("redis://x")
    assert app.tasks[own.name] is own
    assert app.tasks[ours.name] is ours is other.tasks[ours.name]
    assert own.name not in other.tasks
    assert all(isinstance(task, Task) for task in app.tasks.values())


def test_a_shared_task_cannot_take_the_name_of_an_own_one(shared, app):
    app.task(name="shop.add")(add)
    streamq.task(name="shop.add")(aadd)
    with pytest.raises(TaskNameClash, match=r"shop\.add"):
        _ = app.tasks


def test_the_modules_of_include_are_imported_for_the_tasks(shared, write_module):
    """They are imported when tasks are asked for, not when the app is made: they may import the app."""
    write_module("shop_more", "from streamq import task\n@task\ndef greet(name: str): ...\n")
    app = StreamQ("redis://x", include=["shop_more"])
    assert "shop_more" not in sys.modules
    assert "shop_more.greet" in app.tasks
    assert StreamQ("redis://x", include="shop_more").include == ("shop_more",)
    with pytest.raises(ModuleNotFoundError, match="shop_nowhere"):
        _ = StreamQ("redis://x", include=["shop_nowhere"]).tasks
