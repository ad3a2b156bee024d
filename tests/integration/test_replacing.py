"""Tasks that have a graph run in their place, or add to the group that they are in, while the flow goes on."""

from __future__ import annotations

import asyncio

import pytest

from streamq import State, TaskFailed, chord, group
from tests.apps.replacing import OTHER
from tests.workers import until

APP = "tests.apps.replacing:app"


@pytest.fixture
def tasks(load_app_at, server_url, start_worker, connection):
    """Give the module of tasks, with a worker for them; afterwards nothing is left to be done."""
    start_worker(APP, "--queues", f"default,{OTHER}")
    yield load_app_at("tests.apps.replacing", server_url)
    run = connection.client.execute_command

    def at_rest() -> bool:
        keys = [key for key in run("KEYS", "sq:*") if b":flow:" in key or b":task:" in key]
        return not run("KEYS", "sq:*:outbox") and all(run("PTTL", key) != -1 for key in keys)

    until(at_rest, why=f"left: {run('KEYS', '*')}")


@pytest.mark.usefixtures("any_server")
def test_what_replaces_a_task_ends_it(tasks):
    """By ``raise context.replace(...)``, or by returning a signature."""
    result = tasks.swap.delay(3)
    assert result.get(timeout=10) == 8
    assert result.status() is State.SUCCEEDED
    assert tasks.swap_in_thread.delay(3).get(timeout=10) == 8


@pytest.mark.usefixtures("any_server")
def test_a_flow_goes_on_with_what_replaces_its_task(tasks):
    """Wherever the task is: first, in the middle, on another queue than the flow, a member of a group."""
    assert (tasks.swap.s(3) | tasks.add.s(1) | tasks.swap.s() | tasks.add.s(5)).delay().get(timeout=10) == 25
    assert (tasks.add.s(1, 2) | tasks.spread_there.s() | tasks.add.s(100)).delay().get(timeout=10) == 106
    assert chord([tasks.swap.s(1), tasks.add.s(1, 1)], tasks.give.s()).delay().get(timeout=10) == [4, 2]


@pytest.mark.usefixtures("any_server")
def test_a_group_in_place_of_a_task_gives_its_list(tasks):
    assert (tasks.spread.s(4) | tasks.total.s()).delay().get(timeout=10) == 10
    assert (tasks.swap_for_nothing.s() | tasks.give.s()).delay().get(timeout=10) == []


def test_a_task_can_be_replaced_again_and_again(tasks):
    assert tasks.count_down.delay(30).get(timeout=20) == 465


def test_a_task_of_the_process_pool_can_be_replaced(tasks):
    assert (tasks.swap_in_process.s(3) | tasks.add.s(1)).delay().get(timeout=30) == 9


def test_what_replaces_a_task_can_fail(tasks):
    """Then so has the task, with the error of the one where it began."""
    with pytest.raises(TaskFailed, match="no tea"):
        tasks.swap_for_failure.delay().get(timeout=10)
    with pytest.raises(TaskFailed, match="no tea"):
        (tasks.swap_for_failure.s() | tasks.add.s(1)).delay().get(timeout=10)


def test_a_graph_that_cannot_be_run_fails_the_task(tasks):
    with pytest.raises(TaskFailed, match=r"FlowError: .*missing a required argument: 'b'"):
        tasks.swap_for_nonsense.delay().get(timeout=10)


@pytest.mark.usefixtures("any_server")
def test_a_member_can_add_to_its_group(tasks):
    """The values come after its own; the members of a group each by itself; whatever waits for the group has them."""
    flow = group(tasks.grow.s(3), tasks.add.s(1, 1)) | tasks.give.s()
    assert flow.delay().get(timeout=10) == [-1, 10, 11, 12, 100, 2]


def test_what_is_added_can_fail_the_group(tasks):
    """As a member of it would, by the policy of the group."""
    with pytest.raises(TaskFailed, match="no tea"):
        (group(tasks.grow.s(1, fails=True)) | tasks.give.s()).delay().get(timeout=10)
    collected = (group([tasks.grow.s(0, fails=True)], on_error="collect") | tasks.give.s()).delay().get(timeout=10)
    assert collected[:2] == [-1, 100]
    assert collected[2]["message"] == "no tea"


def test_what_an_attempt_adds_that_is_repeated_never_was(tasks):
    assert (group(tasks.grow_then_retry.s()) | tasks.give.s()).delay().get(timeout=10) == [-1, 102]


def test_only_a_member_of_a_group_can_add_to_it(tasks):
    for flow in (tasks.grow.s(1), tasks.add.s(1, 1) | tasks.grow.s()):
        with pytest.raises(TaskFailed, match=r"ConfigError: task .*grow is not a member of a group"):
            flow.delay().get(timeout=10)


def test_a_task_knows_its_place_in_its_flow(tasks):
    """Flow, outermost flow, those before it and after it; in a plain task there are none."""
    assert tasks.place.delay().get(timeout=10) == [None, None, [], [], {}]
    flow = (tasks.add.s(1, 1) | tasks.place.s()).delay()
    [flow_id, root_id, parents, children, _] = flow.get(timeout=10)
    assert flow_id == root_id == flow.id
    assert [one.rpartition(".")[0] for one in parents] == [flow.id]
    assert children == []


def test_what_replaces_a_task_belongs_to_it(tasks):
    """It is a flow under the id of the task; its root is the outermost flow, and its first parent the task."""
    result = tasks.swap_for_place.using(headers={"trace": "7"}, priority=9).delay()
    [flow_id, root_id, parents, children, headers] = result.get(timeout=10)
    assert (flow_id, root_id, parents) == (result.id, result.id, [result.id])
    assert [one.rpartition(".")[0] for one in children] == [result.id]
    assert headers == {"trace": "7"}
    outer = (tasks.swap_for_place.s() | tasks.give.s()).delay()
    [flow_id, root_id, parents, *_] = outer.get(timeout=10)
    assert root_id == outer.id
    assert flow_id.rpartition(".")[0] == outer.id
    assert parents == [flow_id]


def test_a_replaced_task_can_be_cancelled(tasks):
    """With all that runs in its place."""
    result = tasks.swap_for_long.delay()
    inner = tasks.app.result(f"{result.id}.1", queue="default")
    until(lambda: inner.status() is State.RUNNING)
    assert result.cancel()
    assert result.status() is State.CANCELLED
    until(lambda: inner.status() is State.CANCELLED)


async def test_events_say_where_a_task_is_in_its_flow(tasks):
    async with asyncio.timeout(10), tasks.app, tasks.app.events.listen(types=["task.*"]) as events:
        flow = await (tasks.add.s(1, 1) | tasks.give.s()).adelay()
        seen = {}
        async for event in events:
            seen[event.type, event.task.rpartition(".")[2]] = event
            if ("task.succeeded", "give") in seen:
                break
    first, last = seen["task.succeeded", "add"].id, seen["task.succeeded", "give"].id
    assert {event.flow_id for event in seen.values()} == {flow.id}
    assert {event.root_id for event in seen.values()} == {flow.id}
    for kind in ("task.queued", "task.started"):
        assert (seen[kind, "add"].parent_ids, seen[kind, "add"].child_ids) == ((), (last,))
        assert (seen[kind, "give"].parent_ids, seen[kind, "give"].child_ids) == ((first,), ())
