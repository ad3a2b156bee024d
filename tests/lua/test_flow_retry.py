"""flow_again and flow_retry: what has failed of a flow runs again, once, and what has succeeded stays."""

from __future__ import annotations

import random

import pytest

from streamq import Flow, StreamQ, chain, chord, group
from streamq.broker import calls, cancels, flow_retry, flows, letters
from streamq.broker.flow_census import read_graph
from streamq.broker.flowing import carry
from streamq.errors import FlowError, UnknownTaskId
from streamq.lifecycle import State
from tests.flow_bench import ERROR, TTL_MS, FlowBench


@pytest.fixture
def app(any_server, server_url):
    with StreamQ(server_url) as opened:
        yield opened


@pytest.fixture
def bench(app):
    return FlowBench(app)


@pytest.fixture
def step(app):
    @app.task
    def step(*values: object) -> int:
        return len(values)

    return step


@pytest.fixture
def elsewhere(app):
    @app.task(queue="other")
    def elsewhere(*values: object) -> int:
        return len(values)

    return elsewhere


def fails_at(*nodes):
    return lambda task_id: task_id.rpartition(".")[2] in nodes


def start(canvas):
    return canvas.set(task_id="f").delay().id


def test_a_chain_goes_on_where_it_failed(bench, step):
    start(chain(step.s(), step.s(), step.s()))
    bench.work(fails=fails_at("1"))
    assert (bench.states("f"), bench.took()) == ("kfs", ["1", "2"])
    assert bench.record("f")["state"] == "failed"
    assert bench.retry("f") == 1
    record = bench.record("f")
    assert (record["state"], record["left"], "error" in record, "ended" in record) == ("running", "2", False, False)
    assert bench.redis("PTTL", bench.keys.queue("default").record("f")) == -1
    assert bench.states("f") == "wrs"
    bench.work()
    assert (bench.states("f"), bench.took()) == ("sss", ["0", "1"])
    assert (bench.record("f")["state"], bench.record("f")["left"]) == ("succeeded", "0")
    assert bench.retry("f") == 0


def test_a_new_run_has_a_raised_fence_and_counts_from_one(bench, step):
    start(chain(step.s(), step.s()))
    (old,) = bench.fetch()
    bench.end(old, State.FAILED, ERROR)
    bench.retry("f")
    (new,) = bench.fetch()
    assert (new.message.id, new.fence, new.attempt) == ("f.1", 1, 1)
    assert not bench.end(old)
    assert bench.end(new)
    assert bench.record("f.1")["state"] == "succeeded"
    bench.work()


def test_the_record_of_a_new_run_stays_until_it_ends(bench, step):
    start(chain(step.s(), step.s()))
    bench.work(fails=fails_at("1"))
    key = bench.keys.queue("default").record("f.1")
    assert bench.redis("PTTL", key) > 0
    bench.retry("f")
    assert bench.redis("PTTL", key) == -1
    bench.work()
    assert bench.redis("PTTL", key) > 0


def test_of_a_group_only_the_failed_members_run_again(bench, step):
    start(chord([step.s(n) for n in range(5)], step.s()))
    bench.work(fails=fails_at("3", "5"))
    assert bench.states("f") == "kksfsfs"
    bench.took()
    assert bench.retry("f") == 2
    assert bench.states("f") == "wwsrsrs"
    bench.work()
    assert (bench.took(), bench.record("f")["state"]) == (["0", "3", "5"], "succeeded")


def test_a_flow_can_be_retried_while_other_parts_of_it_run(bench, step):
    """What ends after the retry counts once, as what ended before it."""
    start(chord([step.s(n) for n in range(3)], step.s()))
    one, two, three = bench.fetch()
    bench.end(one, State.FAILED, ERROR)
    assert bench.record("f")["state"] == "failed"
    bench.end(two)
    assert bench.retry("f") == 1
    bench.end(three)
    assert bench.states("f").count("w") == 2
    bench.work()
    assert bench.states("f") == "sssss"
    assert bench.record("f")["left"] == "0"


def test_a_plan_that_is_late_is_refused(bench, step):
    """Another node has failed since: the join would wait for it in vain."""
    start(chord([step.s(n) for n in range(3)], step.s()))
    one, two, three = bench.fetch()
    bench.end(one, State.FAILED, ERROR)
    queue = bench.keys.queue("default")
    graph = bench.do(read_graph(queue, "f", 5))
    states = bench.states("f")
    plan = flow_retry.plan(states, graph, flow_retry.find_failed(states, graph, 0), set(), is_cancelled=False)
    bench.end(two, State.FAILED, ERROR)
    before = bench.record("f"), bench.states("f")
    assert bench.broker.sync.run(flow_retry.retry(bench.home(), "f", states, plan)) is False
    assert (bench.record("f"), bench.states("f")) == before
    assert bench.retry("f") == 2
    bench.end(three)
    bench.work()
    assert bench.record("f")["state"] == "succeeded"


def test_a_plan_is_carried_out_once(bench, step):
    """Two retry at the same time: the second is refused, and finds nothing to do."""
    start(chain(step.s(), step.s()))
    bench.work(fails=fails_at("1"))
    states = bench.states("f")
    graph = bench.do(read_graph(bench.keys.queue("default"), "f", 2))
    plan = flow_retry.plan(states, graph, [1], set(), is_cancelled=False)
    assert bench.retry("f") == 1
    assert bench.broker.sync.run(flow_retry.retry(bench.home(), "f", states, plan)) is False
    assert len(bench.fetch()) == 1


def test_what_was_begun_is_carried_on_by_others(bench, step, elsewhere):
    """Whoever retried is gone after each step; calling again, or the outbox, does the rest."""
    start(chain(elsewhere.s(), step.s()))
    bench.work("other", "default", fails=fails_at("1"))
    states = bench.states("f", "other")
    graph = bench.do(read_graph(bench.keys.queue("other"), "f", 2))
    run = bench.broker.sync.run
    assert run(flow_retry.again(bench.keys.queue("other"), ["f.1"], TTL_MS)) == ["free"]
    assert run(flow_retry.again(bench.keys.queue("other"), ["f.1"], TTL_MS)) == ["free"]
    assert bench.record("f.1", "other") == {"fence": "1"}
    plan = flow_retry.plan(states, graph, [1], set(), is_cancelled=False)
    assert run(flow_retry.retry(bench.home("other"), "f", states, plan)) is True
    assert bench.fetch("other") == []
    assert bench.redis("ZRANGE", bench.keys.queue("other").outbox, 0, -1) == [b"flow:f"]
    bench.do(carry(bench.keys, [("other", "flow:f")], TTL_MS))
    bench.do(carry(bench.keys, [("other", "flow:f")], TTL_MS))
    bench.work("other", "default")
    assert bench.states("f", "other") == "ss"


def test_a_task_on_another_queue_runs_again(bench, step, elsewhere):
    start(chain(step.s(), elsewhere.s(), step.s()))
    bench.work("default", "other", fails=fails_at("1"))
    assert bench.states("f") == "kfs"
    bench.took()
    assert bench.retry("f") == 1
    bench.work("default", "other")
    assert (bench.states("f"), bench.took()) == ("sss", ["0", "1"])


def test_a_cancelled_flow_goes_on(bench, step):
    start(chain(step.s(), group(step.s(), step.s()), step.s()))
    (first,) = bench.fetch()
    bench.end(first)
    one, two = bench.fetch()
    bench.end(one)
    bench.cancel("f")
    assert sorted(bench.states("f")) == [*"ckkss"]
    assert not bench.end(two)
    assert bench.retry("f") == 1
    bench.work()
    assert bench.states("f") == "sssss"
    assert (bench.record("f")["state"], bench.record("f")["left"]) == ("succeeded", "0")


def test_failures_that_were_collected_are_left_alone_if_what_comes_after_has_taken_them(bench, step):
    start(chord([step.s(1), step.s(2)], step.s(), on_error="collect"))
    bench.work(fails=fails_at("2"))
    assert bench.record("f")["state"] == "succeeded"
    assert bench.retry("f") == 0


def test_collected_failures_run_again_if_what_comes_after_has_failed(bench, step):
    start(chord([step.s(1), step.s(2)], step.s(), on_error="collect"))
    bench.work(fails=fails_at("2", "0"))
    assert bench.states("f") == "fsfs"
    bench.took()
    assert bench.retry("f") == 2
    assert bench.states("f") == "wwrs"
    bench.work()
    assert (bench.states("f"), bench.took()) == ("ssss", ["0", "2"])


def test_collected_failures_that_are_the_value_run_again(bench, step):
    start(group([step.s(1), step.s(2)], on_error="collect"))
    bench.work(fails=fails_at("2"))
    assert bench.record("f")["state"] == "succeeded"
    assert bench.retry("f") == 1
    assert bench.record("f")["state"] == "running"
    bench.work()
    assert bench.states("f") == "sss"
    assert bench.record("f")["state"] == "succeeded"


def test_an_error_callback_that_has_run_stays(bench, step):
    start(chain(step.s(), step.s()).on_error(step.s("sorry")))
    bench.work(fails=fails_at("2"))
    assert (bench.states("f"), bench.took()) == ("ksf", ["1", "2"])
    assert bench.retry("f") == 1
    bench.work()
    assert (bench.states("f"), bench.took()) == ("sss", ["0", "2"])


def test_an_error_callback_that_was_not_needed_may_be_needed_yet(bench, step):
    """It was left out because a group went on with its failures; these are tried again."""
    start(group([step.s(1), step.s(2)], on_error="collect").on_error(step.s("sorry")))
    bench.work(fails=fails_at("2"))
    states = bench.states("f")
    assert "o" in states
    assert bench.retry("f") == 1
    assert bench.states("f")[states.index("o")] == "w"
    bench.work()
    assert bench.states("f") == states.replace("f", "s")


def test_a_callback_of_success_gets_its_chance(bench, step):
    start(chain(step.s(), step.s()).on_success(step.s("well")))
    bench.work(fails=fails_at("2"))
    assert bench.states("f") == "kkf"
    bench.retry("f")
    bench.work()
    assert bench.states("f") == "sss"


def test_it_may_fail_again_and_be_retried_again(bench, step):
    start(chain(step.s(), step.s()))
    for _ in range(3):
        bench.work(fails=fails_at("1"))
        assert bench.states("f") == "kf"
        assert bench.record("f")["state"] == "failed"
        assert bench.retry("f") == 1
    (last,) = bench.fetch()
    assert last.fence == 3
    bench.end(last)
    bench.work()


def test_those_who_wait_are_woken_by_the_end_of_the_retry(bench, step):
    start(chain(step.s(), step.s()))
    bench.work(fails=fails_at("1"))
    bench.retry("f")
    bench.broker.sync.run(calls.watch(bench.keys.queue("default"), "f", "c-1"))
    pubsub = bench.broker.sync.client.pubsub()
    pubsub.subscribe("sq:done:c-1")
    assert pubsub.get_message(timeout=5)["type"] == "subscribe"
    bench.work()
    assert pubsub.get_message(timeout=5)["data"] == b"f"
    pubsub.close()


def test_a_task_whose_queue_has_still_to_tell_how_it_ended(bench, step, elsewhere):
    """That is told first: else the flow would wait for it for ever."""
    start(chain(step.s(), elsewhere.s()))
    bench.work()
    (delivery,) = bench.fetch("other")
    settlement = calls.Settlement(delivery, State.FAILED, ERROR)
    bench.broker.sync.run(flows.finish(bench.home("other"), delivery.stream, [settlement], worker="w-1"))
    assert bench.broker.sync.run(flow_retry.again(bench.keys.queue("other"), ["f.0"], TTL_MS)) == ["untold"]
    assert bench.record("f.0", "other")["state"] == "failed"
    bench.do(carry(bench.keys, [("other", "end:f.0")], TTL_MS))
    assert bench.retry("f") == 1
    bench.work("other")
    assert bench.states("f") == "ss"


def test_what_runs_or_has_succeeded_is_not_reset(bench, step):
    start(group(step.s(), step.s()))
    one, two = bench.fetch()
    bench.end(one)
    queue = bench.keys.queue("default")
    said = bench.broker.sync.run(flow_retry.again(queue, [one.message.id, two.message.id, "none"], TTL_MS))
    assert said == ["succeeded", "queued", "free"]
    bench.end(two)


def test_a_flow_that_is_not_there(bench):
    with pytest.raises(UnknownTaskId, match="there is no flow nothing"):
        bench.retry("nothing")


def test_a_cancelled_flow_of_which_nothing_had_begun(bench, step):
    """What waited for its time, or for what comes before, does so again."""
    start(chain(step.s(), group(step.s(), step.s()), step.s()))
    bench.cancel("f")
    assert bench.record("f")["state"] == "cancelled"
    assert bench.retry("f") == 1
    bench.work()
    assert bench.states("f") == "sssss"
    assert bench.record("f")["left"] == "0"


def test_what_was_still_to_be_told_when_a_flow_was_cancelled(bench, step):
    """The first has ended, and some of the many that follow have not heard of it."""
    start(chain(step.s(), group([step.s(n) for n in range(100)]), step.s()))
    (first,) = bench.fetch()
    settlement = calls.Settlement(first, State.SUCCEEDED, b"1")
    bench.broker.sync.run(flows.finish(bench.home(), first.stream, [settlement], worker="w-1"))
    assert bench.states("f").count("w") > 50
    bench.cancel("f")
    assert bench.retry("f") > 0
    bench.work()
    assert bench.states("f") == "s" * 103
    assert bench.record("f")["state"] == "succeeded"


def test_a_flow_whose_side_branch_has_failed_keeps_its_value(bench, step):
    start(chain(step.s(), step.s()).on_success(step.s("well")))
    bench.work(fails=fails_at("1"))
    assert (bench.states("f"), bench.record("f")["state"]) == ("sfs", "succeeded")
    assert bench.retry("f") == 1
    assert (bench.record("f")["state"], bench.record("f")["result"]) == ("succeeded", "1")
    bench.work()
    assert bench.states("f") == "sss"


def test_many_failed_members_run_again(bench, step):
    start(chord([step.s(n) for n in range(1000)], step.s()))
    bench.work(fails=lambda task_id: task_id[-1] in "123")
    failed = bench.states("f").count("f")
    assert failed == 300
    bench.took()
    assert bench.retry("f") == failed
    bench.work()
    assert bench.states("f") == "s" * 1002
    assert len(bench.took()) == failed + 1


def test_a_dead_task_runs_again_and_its_letter_cannot(bench, step):
    """The letter stays; redriving it would run the task twice."""
    start(chain(step.s(), step.s()))
    queue = bench.keys.queue("default")
    run = bench.broker.sync.run
    (delivery,) = bench.fetch()
    assert run(calls.bury(queue, delivery, "why", ERROR, done=bench.keys.done, worker="w-1", ttl_ms=TTL_MS))
    bench.do(carry(bench.keys, [("default", "end:f.1")], TTL_MS))
    assert bench.states("f") == "kd"
    assert bench.retry("f") == 1
    (letter,) = run(letters.letters(queue, b"-", b"+"))
    assert run(letters.redrive(queue, [(letter.entry, "f.1")], reset=False)) == letters.Redriven(0, 1)
    bench.work()
    assert bench.states("f") == "ss"


def test_a_task_that_was_cancelled_alone_runs_again(bench, step):
    start(chain(step.s(), step.s()))
    bench.do(cancels.cancel_one(bench.keys, "default", "f.1", TTL_MS))
    bench.do(carry(bench.keys, [("default", "end:f.1")], TTL_MS))
    assert bench.states("f") == "kc"
    assert bench.retry("f") == 1
    bench.work()
    assert bench.states("f") == "ss"


def test_a_task_whose_record_has_expired_runs_again(bench, step):
    start(chain(step.s(), step.s()))
    bench.work(fails=fails_at("1"))
    bench.redis("DEL", bench.keys.queue("default").record("f.1"))
    assert bench.retry("f") == 1
    bench.work()
    assert bench.states("f") == "ss"


@pytest.fixture(params=["default", "other"])
def queue_of_part(request):
    return request.param


@pytest.fixture
def part(request, queue_of_part, step, elsewhere):
    """Give a task that will become a flow, on the queue of its flow or on another."""
    return step if queue_of_part == "default" else elsewhere


def test_a_task_that_has_become_a_flow_goes_on_where_that_failed(bench, step, part, queue_of_part):
    start(chain(step.s(), part.s(), step.s()))
    bench.becomes["f.1"] = chain(step.s(), step.s())
    bench.work("default", "other", fails=lambda task_id: task_id == "f.1.0")
    assert bench.states("f") == "kfs"
    assert bench.states("f.1", queue_of_part) == "fs"
    bench.ran.clear()
    assert bench.retry("f") == 1
    assert bench.states("f") == "wrs"
    bench.work("default", "other")
    assert bench.ran == ["f.1.0", "f.0"]
    assert bench.states("f") == "sss"
    assert bench.record("f")["state"] == "succeeded"


def test_whoever_retries_is_gone_before_the_outer_flow_is_changed(bench, step, part, queue_of_part):
    """The inner one goes on and ends, which the outer one does not care for; calling again tells it."""
    start(chain(part.s(), step.s()) if queue_of_part == "default" else chain(step.s(), part.s(), step.s()))
    bench.becomes["f.1"] = chain(step.s(), step.s())
    bench.work("default", "other", fails=lambda task_id: task_id == "f.1.0")
    keys, default = bench.keys, bench.keys.queue("default")
    graph = bench.do(read_graph(default, "f", len(bench.states("f"))))
    assert bench.do(flow_retry._make_room(keys, bench.home(), "f", graph, [1])) == ({1}, 1)
    bench.work("default", "other")
    assert bench.states("f.1", queue_of_part) == "ss"
    assert bench.states("f")[1] == "f"
    bench.retry("f")
    bench.work("default", "other")
    assert set(bench.states("f")) == {"s"}


def test_a_part_of_a_flow_is_retried_with_the_whole(bench, step, part, queue_of_part):
    start(chain(step.s(), part.s(), step.s()))
    bench.becomes["f.1"] = chain(step.s(), step.s())
    bench.work("default", "other", fails=lambda task_id: task_id == "f.1.0")
    with pytest.raises(FlowError, match=r"f\.1 is a part of the flow f: retry that"):
        bench.retry("f.1", queue_of_part)


SHAPES = [
    lambda s: chain(s(), group(chain(s(), s()), s(), group(s(), s())), s(), s()),
    lambda s: chain(group([s() for _ in range(4)], on_error="collect"), s(), group(s(), s()), group(s(), s())),
    lambda s: chain(s(), chord([s(), s()], s(), on_error="continue"), s()).on_error(chain(s(), s())),
]


def diamond(s):
    flow = Flow()
    a, b = flow.add(s()), flow.add(s())
    c = flow.add(s(), after=[a, b])
    d = flow.add(chain(s(), s()), after=[b])
    flow.add(s(), after=[c, d])
    flow.add(s(), after=[a, c])
    return flow


SHAPES.append(diamond)


@pytest.mark.parametrize("shape", range(len(SHAPES)))
@pytest.mark.parametrize("seed", range(8))
def test_whatever_fails_the_flow_gets_to_its_end(bench, step, elsewhere, shape, seed):
    """Tasks fail at random, and flows are cancelled and retried at any moment; in the end all has succeeded."""
    chance = random.Random(seed)  # noqa: S311 - a test
    start(SHAPES[shape](lambda: chance.choice([step, step, elsewhere]).s()))
    home = "default" if bench.redis("EXISTS", bench.keys.queue("default").record("f")) else "other"
    for _ in range(30):
        held = [one for name in ("default", "other") for one in bench.fetch(name)]
        chance.shuffle(held)
        for one in held:
            bench.end(one, *((State.FAILED, ERROR) if chance.random() < 0.3 else ()))
            if chance.random() < 0.1:
                bench.cancel("f", home)
            if chance.random() < 0.2:
                bench.retry("f", home)
    for _ in range(5):
        bench.work("default", "other")
        bench.retry("f", home)
    bench.work("default", "other")
    assert set(bench.states("f", home)) <= {"s", "o", "f"}
    assert bench.record("f", home)["state"] == "succeeded"
    assert bench.record("f", home)["left"] == "0"
    assert bench.redis("ZCARD", bench.keys.queue(home).outbox) == 0
