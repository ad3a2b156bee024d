"""Values of calls: complete, partial, immutable, with options and callbacks; and calls for many items."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from streamq import FlowError, Partial, Signature, StreamQ, by, group
from streamq.context import context_of
from streamq.errors import ArgumentError, ConfigError, EncodeError, PayloadError, PayloadTooLarge
from streamq.message import Delivery
from streamq.sending import read_steering
from streamq.tasks import find_task


@pytest.fixture
def app():
    return StreamQ("redis://nowhere", max_payload=1000)


@pytest.fixture
def add(app):
    def add(x: int, y: int, *, style: str = "") -> int:
        return x + y + len(style)

    return app.task(name="add")(add)


# ---- arguments


@pytest.mark.parametrize(
    ("args", "kwargs", "tail"),
    [
        ((), {}, b"]"),
        ((4,), {}, b",4]"),
        ((4,), {"style": "x"}, b',4],"style":"x"}'),
        ((), {"y": 4, "style": "ü"}, '],"y":4,"style":"ü"}'.encode()),
    ],
)
def test_a_partial_call_is_what_follows_its_first_arguments(add, args, kwargs, tail):
    partial = add.s(*args, **kwargs)
    assert isinstance(partial, Partial)
    assert partial.tail == tail


@pytest.mark.parametrize(
    ("args", "kwargs", "whole", "tail"),
    [
        ((1, 2), {}, b"[1,2]", b",1,2]"),
        ((1, 2), {"style": "x"}, b'{"x":1,"y":2,"style":"x"}', b',1,2],"style":"x"}'),
        ((), {"x": 1, "y": 2}, b'{"x":1,"y":2}', b'],"x":1,"y":2}'),
    ],
)
def test_a_complete_call_can_also_follow_others(add, args, kwargs, whole, tail):
    """Where the function takes more, as one with defaults does; it was encoded when it was made."""
    signature = add.s(*args, **kwargs)
    assert isinstance(signature, Signature)
    assert (signature.message.args, signature.tail) == (whole, tail)
    assert add.si(*args, **kwargs).message.args == whole


def test_arguments_are_encoded_when_the_call_is_made(app):
    def total(numbers: list[int], more: list[int]) -> int:
        return sum(numbers + more)

    more = [1]
    partial = app.task(total).s(more)
    more.append(2)
    assert partial.tail == b",[1]]"


@pytest.mark.parametrize(
    ("args", "kwargs"), [((1, 2, 3), {}), ((1,), {"z": 2}), ((1, 2), {"x": 3}), ((), {"style": "x", "z": 1})]
)
def test_what_no_first_arguments_make_a_call_is_refused_at_once(add, args, kwargs):
    with pytest.raises(TypeError, match=r"add\(\) "):
        add.s(*args, **kwargs)


@pytest.mark.parametrize("args", [(), (1,)])
def test_an_immutable_call_lacks_nothing(add, args):
    with pytest.raises(TypeError, match=r"add\(\) missing a required argument"):
        add.si(*args)


def test_what_cannot_be_encoded_is_named(add):
    with pytest.raises(EncodeError, match=r"add\(\): argument 1 cannot be sent"):
        add.s(object())
    with pytest.raises(EncodeError, match=r"add\(\): argument 'style' cannot be sent"):
        add.s(style=object())


def test_a_partial_call_has_the_limit_of_others(add):
    with pytest.raises(PayloadTooLarge, match=r"add\(\): the arguments have 10\d\d bytes"):
        add.s("x" * 1000)


def test_a_partial_call_cannot_be_enqueued_by_itself(app, add):
    partial = add.s(4)
    for enqueue in (lambda: app.enqueue_many([partial]), partial.to_message, lambda: partial.message):
        with pytest.raises(TypeError, match=r"add\(\) missing a required argument: 'y': this call is partial"):
            enqueue()
    with app.transaction() as batch, pytest.raises(TypeError, match="this call is partial"):
        batch.enqueue(partial)


def test_missing_arguments_can_be_given_later(add):
    assert add.s(4, style="x").completed((3,)).message.args == b'{"*":[3,4],"style":"x"}'
    assert add.s(4).completed((3,)).message.args == b"[3,4]"
    with pytest.raises(TypeError, match=r"add\(\) missing a required argument: 'y'"):
        add.s().completed((1,))
    with pytest.raises(TypeError, match="is immutable"):
        add.si(1, 2).completed((1,))


def test_an_error_of_a_key_is_no_missing_argument(app):
    def broken(call):
        raise TypeError("of the key")

    with pytest.raises(TypeError, match="of the key"):
        app.task(ordering_key=broken)(lambda x, y=0: x + y).s(1)


# ---- options


def test_options_make_a_new_value(add):
    plain = add.s(1, 2)
    slow = plain.set(queue="slow", countdown=5)
    assert (slow.message.queue, slow.message.delay_ms, slow.message.args) == ("slow", 5000, b"[1,2]")
    assert (plain.message.queue, plain.message.delay_ms) == ("default", 0)
    assert slow.set(priority=9).message.queue == "slow", "what was chosen before stays"
    assert add.using(queue="x").s(1, 2).set(priority=9).message.queue == "x"
    assert add.s(4).set(queue="slow").caller.queue == "slow"
    assert plain.set(task_id="17").to_message().id == "17"


def test_one_time_takes_the_place_of_another(add):
    at = add.s(1, 2).set(countdown=5).set(eta=datetime(2031, 1, 1, tzinfo=UTC))
    assert at.message.delay_ms < 0
    with pytest.raises(ConfigError, match="not both"):
        add.s(1, 2).set(countdown=5, eta=datetime(2031, 1, 1, tzinfo=UTC))


def test_terms_are_made_of_the_arguments(app):
    """Also if they were chosen after the call was made."""

    def mail(user: str, text: str) -> None:
        assert user != text

    task = app.task(mail)
    assert task.s("u", "t").set(unique=by("user")).message.terms.lock is not None
    assert app.task(name="m2", ordering_key="user")(mail).s("u", text="t").set(queue="x").message.terms.order == "u"


@pytest.mark.parametrize("options", [{"queue": "a b"}, {"priority": 10}, {"headers": {"x": 1}}, {"countdown": -1}])
def test_options_that_cannot_be_used_are_refused_at_once(add, options):
    with pytest.raises(ConfigError):
        add.s(1, 2).set(**options)
    with pytest.raises(ConfigError):
        group(add.s(1, 2)).set(**options)
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        add.s(1, 2).set(colour="red")
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        group(add.s(1, 2)).set(colour="red")


def test_headers_travel_with_the_message(add):
    headers = {"trace": "ü"}
    message = add.using(headers=headers).s(1, 2).message
    headers["trace"] = "changed"
    assert read_steering(message.options).headers == {"trace": "ü"}
    assert add.using(headers={}).s(1, 2).message.options == b""


def test_a_run_reads_its_headers_and_cannot_change_them(add):
    message = add.using(headers={"trace": "1"}).s(1, 2).message
    context = context_of(Delivery(message, "", b"", fence=0, enqueued_ms=0), None)
    assert context.headers == {"trace": "1"}
    with pytest.raises(TypeError):
        context.headers["trace"] = "2"
    assert context_of(Delivery(add.s(1, 2).message, "", b"", fence=0, enqueued_ms=0), None).headers == {}
    assert hash(context)


@pytest.mark.parametrize("headers", [{"x": 1}, {1: "x"}, "x", [("x", "y")], {"x": "y" * 8192}, {"x": "\ud800"}])
def test_headers_are_texts_and_few(add, headers):
    with pytest.raises(ConfigError, match="headers"):
        add.using(headers=headers)


def test_a_durability_is_for_one_enqueue(app, add):
    """A call that is to be enqueued with others has none of its own."""
    chosen = add.s(1, 2).set(durability="fsync")
    with pytest.raises(ConfigError, match="durability"):
        app.enqueue_many([chosen])


# ---- callbacks


def test_a_call_with_callbacks_is_no_single_message(app, add):
    called = add.s(1, 2).on_success(add.s(3))
    with pytest.raises(FlowError, match="has callbacks"):
        app.enqueue_many([called])
    with pytest.raises(FlowError, match="not a single call"):
        app.enqueue_many([called | add.s(1)])
    assert add.s(1, 2).successes == ()


@pytest.mark.parametrize("what", [7, None, "add"])
def test_a_callback_is_a_call(add, what):
    with pytest.raises(FlowError, match=r"on_error\(\) needs a signature"):
        add.s(1, 2).on_error(what)
    with pytest.raises(FlowError, match=r"on_success\(\) needs a signature.*say \.s\(\)"):
        add.s(1, 2).on_success(add)


# ---- many items


def run_items(app, message):
    task = find_task(app.tasks, message.task)
    (calls,), _ = task.call_codec.decode(message.args)
    value = task.run(*(("context",) if task.options.bind else ()), calls)
    return asyncio.run(value) if task.is_async else value


def test_one_call_runs_over_all_items(app):
    """In order, each validated as the arguments of a call."""

    @app.task(name="plain", queue="slow", timeout=3)
    def plain(x: int, y: int = 1) -> int:
        return x * 10 + y

    @app.task(name="bound", bind=True)
    async def bound(context, x: int) -> str:
        return f"{context}{x}"

    call = plain.map(range(3))
    assert (call.message.task, call.message.queue, call.message.args) == ("plain:map", "slow", b"[[0,1,2]]")
    assert run_items(app, call.message) == [1, 11, 21]
    assert run_items(app, plain.starmap([(1, 2), [3]]).message) == [12, 31]
    assert run_items(app, bound.map(["7", 8]).message) == ["context7", "context8"]
    assert run_items(app, plain.map([]).message) == []
    companion = find_task(app.tasks, "plain:map")
    assert (companion.options.timeout, companion.broker) == (3, app.broker)
    assert companion.result_codec.decode(b"[1,2]") == [1, 2]


def test_names_that_lead_to_no_task(app, add):
    assert find_task(app.tasks, "add") is add
    for name in ("add:mop", "sub:map", "add:map:map", "sub", ":", "add:"):
        assert find_task(app.tasks, name) is None


def test_items_that_are_no_arguments_are_refused_at_once(add):
    with pytest.raises(TypeError, match=r"add\(\) missing a required argument: 'y', for item 1"):
        add.map([1])
    with pytest.raises(TypeError, match="for item 2"):
        add.starmap([(1, 2), (1, 2, 3)])
    with pytest.raises(TypeError, match="needs a tuple of arguments, not 'ab', for item 1"):
        add.starmap(["ab"])
    with pytest.raises(TypeError, match="an iterable of items"):
        add.starmap(3)
    with pytest.raises(EncodeError, match=r"'y'.*in item 1"):
        add.starmap([(1, object())])
    with pytest.raises(PayloadTooLarge, match="add:starmap"):
        add.starmap([(1, "x" * 600), (2, "x" * 600)])


@pytest.mark.parametrize("data", [b"[]", b"[3]", b"{}", b"[[3]]", b"[[[1,2,3]]]", b'[[["x",2]]]', b"nope"])
def test_stored_items_that_do_not_fit(app, add, data):
    with pytest.raises(ArgumentError, match="add"):
        find_task(app.tasks, "add:starmap").call_codec.decode(data)


def test_what_is_about_single_calls_has_no_map(app):
    def yields(x: int):
        yield x

    def one(x: int) -> int:
        return x

    for task, why in (
        (app.task(yields), "yields"),
        (app.task(name="u", unique=by("x"))(one), "unique"),
        (app.task(name="o", ordering_key="x")(one), "ordering_key"),
    ):
        with pytest.raises(ConfigError, match=why):
            task.map([1])
        assert find_task(app.tasks, f"{task.name}:map") is None


@pytest.mark.parametrize("make", [list, iter], ids=["list", "iterator"])
def test_chunks_are_a_group_of_such_calls(app, make):
    def one(x: int) -> int:
        return x

    chunks = app.task(name="one")(one).chunks(make(range(7)), 3)
    assert [call.message.args for call in chunks.members] == [b"[[0,1,2]]", b"[[3,4,5]]", b"[[6]]"]


@pytest.mark.parametrize("size", [0, -1, 1.5, "3", True])
def test_chunks_have_a_size(app, size):
    def one(x: int) -> int:
        return x

    with pytest.raises(ConfigError, match="chunks need a size"):
        app.task(one).chunks([1], size)


def test_flow_errors_are_payload_errors():
    assert issubclass(FlowError, PayloadError)
