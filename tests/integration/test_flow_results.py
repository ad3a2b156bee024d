"""What callers get of flows: values, errors, states, progress, and members as they end."""

from __future__ import annotations

import json
import threading
import time
from decimal import Decimal

import pytest

from streamq import (
    Failure,
    Flow,
    FlowProgress,
    FlowResult,
    GroupResult,
    NodeStatus,
    ResultTimeout,
    State,
    StreamQ,
    TaskCancelled,
    TaskFailed,
    UnknownTaskId,
    chain,
    chord,
    group,
)
from streamq._redis.subscriptions import Doorbell
from tests.workers import until


@pytest.fixture
def tasks(load_app_at, server_url):
    return load_app_at("tests.apps.outcomes", server_url)


@pytest.fixture
def worker(tasks, start_worker):
    return start_worker("tests.apps.outcomes", "--queues", "default,elsewhere")


def test_values_have_the_types_of_the_functions(any_server, tasks, worker):
    """Of a chain that of the last task; of groups lists, also within one another."""
    add, mul, item = tasks.add, tasks.mul, tasks.item
    assert (add.s(2, 2) | mul.s(4)).delay().get(timeout=10) == 16
    assert (add.s(1, 2) | item.si("tea")).delay().get(timeout=10) == tasks.Item(name="tea", price=Decimal("1.50"))
    mixed = group(item.s("tea"), add.s(1, 2), group(item.s("milk"), mul.s(2, 3)), group()).delay()
    tea, three, [milk, six], nothing = mixed.get(timeout=10)
    assert [tea.name, milk.name] == ["tea", "milk"]
    assert (tea.price, three, six, nothing) == (Decimal("1.50"), 3, 6, [])
    assert group().delay().get(timeout=10) == []
    assert chord([add.s(1, 1), add.s(2, 2)], tasks.total.s()).delay().get(timeout=10) == 6


async def test_the_async_forms_do_the_same(any_server, tasks, worker):
    result = await group(tasks.add.s(n, n) for n in range(3)).adelay()
    assert await result.aget(timeout=10) == [0, 2, 4]
    assert await result.astatus() is State.SUCCEEDED
    assert (await result.aprogress()).fraction == 1
    assert len(await result.anodes()) == 4
    assert [one.index async for one in result.as_completed(timeout=10)] == [0, 1, 2]
    assert [await one.aget(timeout=10) for one in await result.aresults()] == [0, 2, 4]
    assert await result.results[1].astatus() is State.SUCCEEDED
    assert await result.acancel() is False
    assert await result.aforget() is True
    assert await result.astatus() is State.UNKNOWN
    await tasks.app.aclose()


def test_a_signature_with_callbacks_is_a_flow(tasks, worker):
    """Without them it is a task, as ever."""
    assert not isinstance(tasks.add.s(1, 2).delay(), FlowResult)
    result = tasks.fail.s("no tea").on_error(tasks.note.s()).delay()
    assert isinstance(result, FlowResult)
    with pytest.raises(TaskFailed, match="no tea"):
        result.get(timeout=10)
    assert [one.get(timeout=10) for one in result.as_completed(timeout=10) if one.status() is State.SUCCEEDED] == [
        "no tea"
    ]


def test_the_error_is_that_of_the_task_where_it_began(any_server, tasks, worker):
    """It names that task, and the way from there to the end."""
    result = (tasks.fail.s("no tea") | group(tasks.add.s(1), tasks.add.s(2)) | tasks.total.s()).delay()
    with pytest.raises(TaskFailed) as caught:
        result.get(timeout=10)
    failed = next(node for node in result.nodes() if node.task.endswith("fail"))
    assert caught.value.task_id == failed.task_id
    assert caught.value.type_name == "ValueError"
    assert [name.rpartition(".")[2] for name in caught.value.path] == ["fail", "add", "group", "total"]
    line = str(caught.value).splitlines()[0]
    assert line == f"ValueError: no tea (task {failed.task_id}; fail -> add -> group -> total)"
    assert result.status() is State.FAILED


def test_errors_that_a_task_declares_come_as_themselves(any_server, tasks, worker):
    result = chain(tasks.buy.s("tea"), tasks.item.s()).delay()
    with pytest.raises(tasks.OutOfStock, match="tea") as caught:
        result.get(timeout=10)
    assert caught.value.__cause__.path[0].endswith("buy")
    members = group(tasks.buy.s("milk"), tasks.fail.s("no")).delay()
    with pytest.raises(tasks.OutOfStock, match="milk"):
        members.results[0].get(timeout=10)
    with pytest.raises(TaskFailed, match="no"):
        members.results[1].get(timeout=10)


def test_members_that_have_failed_are_in_the_list_or_left_out(any_server, tasks, worker):
    members = [tasks.add.s(1, 1), tasks.fail.s("no tea"), tasks.fail.s("no") | tasks.item.s(), tasks.add.s(2, 2)]
    two, failure, upstream, four = group(members, on_error="collect").delay().get(timeout=10)
    assert (two, four) == (2, 4)
    assert isinstance(failure, Failure)
    assert (failure.type, failure.message) == ("ValueError", "no tea")
    assert failure.task.endswith("fail")
    assert (upstream.message, upstream.task) == ("no", failure.task)
    assert group(members, on_error="continue").delay().get(timeout=10) == [2, 4]


def test_large_values_are_read_in_parts(any_server, tasks, worker):
    texts = group(tasks.long_text.s(300_000) for _ in range(8)).delay().get(timeout=20)
    assert [len(text) for text in texts] == [300_000] * 8


def test_each_part_shows_how_it_stands(any_server, tasks, worker, tmp_path):
    """What waits, what runs, what has ended; whether a task runs only if that is asked for."""
    ready = tmp_path / "ready"
    result = (tasks.until_there.s(ready, 1) | group(tasks.add.s(1), tasks.far.s())).on_error(tasks.note.s()).delay()
    name = tasks.until_there.name
    [first] = [node for node in result.nodes() if node.task == name]
    assert first == NodeStatus(first.node, f"{result.id}.{first.node}", name, State.QUEUED, "default", result.id)
    until(lambda: State.RUNNING in {node.state for node in result.nodes(live=True)})
    states = {node.task.rpartition(".")[2]: (node.state, node.queue) for node in result.nodes(live=True)}
    assert states == {
        "until_there": (State.RUNNING, "default"),
        "add": (State.WAITING, "default"),
        "far": (State.WAITING, "elsewhere"),
        "": (State.WAITING, "default"),
        "note": (State.WAITING, "default"),
    }
    assert result.progress() == FlowProgress(total=5, ended=0, succeeded=0, failed=0)
    assert result.status() is State.RUNNING
    with pytest.raises(ResultTimeout, match=f"flow {result.id} is at 0 of 5, and has not ended after 0.1 s"):
        result.get(timeout=0.1)
    ready.touch()
    assert result.get(timeout=10) == [2, -1]
    until(lambda: result.progress().fraction == 1)
    assert result.progress() == FlowProgress(total=5, ended=5, succeeded=4, failed=0)
    assert {node.state for node in result.nodes() if node.task.endswith("note")} == {State.SKIPPED}
    [group_node] = [node for node in result.nodes() if not node.task]
    assert group_node.task_id is None


def test_nodes_say_what_is_before_and_after_them(tasks, worker):
    flow = (group(tasks.add.s(1, 1), tasks.add.s(2, 2)) | tasks.total.s()).delay()
    flow.get(timeout=10)
    first, second, last = sorted((node for node in flow.nodes() if node.task_id), key=lambda node: node.task)
    assert first.child_ids == second.child_ids == (last.task_id,)
    assert last.parent_ids == (first.task_id, second.task_id)
    assert {node.root_id for node in flow.nodes()} == {flow.id}


def test_what_could_not_run_has_failed(tasks, worker):
    result = (tasks.fail.s("no") | tasks.add.s(1)).delay()
    with pytest.raises(TaskFailed):
        result.get(timeout=10)
    assert [node.state for node in result.nodes()] == [State.FAILED] * 2
    assert result.progress() == FlowProgress(total=2, ended=2, succeeded=0, failed=2)


def test_members_come_as_they_end(any_server, tasks, worker, tmp_path):
    """Each once, whatever their order; their values are there."""
    gates = [tmp_path / f"gate-{number}" for number in range(3)]
    result = group(tasks.until_there.s(gate, number) for number, gate in enumerate(gates)).delay()
    assert isinstance(result, GroupResult)
    assert len(result.results) == 3
    come = result.as_completed(timeout=10)
    for number in (2, 0, 1):
        gates[number].touch()
        one = next(come)
        assert (one.index, one.get(timeout=0)) == (number, number)
        assert one.id == result.results[number].id
    assert list(come) == []
    assert [one.index for one in result.as_completed(timeout=1)] == [0, 1, 2]
    assert result.progress() == FlowProgress(total=3, ended=3, succeeded=3, failed=0)


def test_waiting_for_members_has_an_end(tasks, tmp_path):
    """Without a worker nothing ends; the loop can be followed by another."""
    result = group(tasks.add.s(1, 1), tasks.add.s(2, 2)).delay()
    come = result.as_completed(timeout=0.05)
    with pytest.raises(ResultTimeout, match="0 of 2 have ended"):
        next(come)
    with pytest.raises(ResultTimeout):
        result.results[0].get(timeout=0.05)
    result.cancel()
    assert len(list(come)) == 2


def test_all_tasks_of_a_flow_come_as_they_end(any_server, tasks, worker):
    """Groups have no task, and callbacks that were not needed none that ran."""
    flow = Flow()
    first = flow.add(tasks.add.s(1, 2).on_error(tasks.note.s()))
    flow.add(group(tasks.mul.s(2), tasks.mul.s(3)), after=[first])
    result = flow.delay()
    names = {node.node: node.task.rpartition(".")[2] for node in result.nodes()}
    found = [(names[one.node], one.get(timeout=10)) for one in result.as_completed(timeout=10)]
    assert found[0] == ("add", 3)
    assert sorted(found[1:]) == [("mul", 6), ("mul", 9)]


def test_members_can_be_groups_and_chains(any_server, tasks, worker):
    result = group(group(tasks.add.s(1, 1), tasks.item.s("tea")), tasks.add.s(1, 2) | tasks.mul.s(2)).delay()
    assert [len(result.results), result.results[1].get(timeout=10), result.results[-1].index] == [2, 6, 1]
    two, tea = result.results[0].get(timeout=10)
    assert (two, tea.name) == (2, "tea")
    assert [one.index for one in result.results[::-1]] == [1, 0]
    with pytest.raises(IndexError):
        result.results[2]


def test_a_flow_is_cancelled_with_all_that_belongs_to_it(any_server, tasks, worker, tmp_path):
    """Also what runs, and what is on other queues; what comes after it never runs."""
    never = tmp_path / "never"
    waiting = tasks.until_there.s(never)
    result = (group(waiting, waiting.set(queue="elsewhere"), waiting.set(countdown=60)) | tasks.total.s()).delay()
    until(lambda: [node.state for node in result.nodes(live=True)].count(State.RUNNING) == 2)
    assert result.cancel() is True
    with pytest.raises(TaskCancelled):
        result.get(timeout=10)
    assert {node.state for node in result.nodes(live=True)} == {State.CANCELLED}
    assert {tasks.app.result(node.task_id).status() for node in result.nodes() if node.task.endswith("there")} == {
        State.CANCELLED
    }
    assert result.cancel() is True
    assert result.progress().failed == 5


def test_what_has_ended_cannot_be_cancelled(tasks, worker):
    result = chain(tasks.add.s(1, 2)).delay()
    assert result.get(timeout=10) == 3
    assert result.cancel() is False
    assert tasks.app.flow("no-such-flow").cancel() is False


def test_nothing_is_left_of_what_is_forgotten(any_server, tasks, worker, connection):
    """Of one that has not ended as soon as it has."""
    result = (group(tasks.add.s(1, 2), tasks.add.s(3, 4)) | tasks.total.s()).delay()
    assert result.get(timeout=10) == 10
    assert result.forget() is True
    keys = connection.client.execute_command("KEYS", f"*{result.id}*")
    assert {key.rpartition(b".")[0].rpartition(b":")[2].decode() for key in keys} <= {result.id}
    assert result.forget() is False
    with pytest.raises(UnknownTaskId):
        result.get(timeout=1)
    with pytest.raises(UnknownTaskId):
        result.nodes()


def test_one_that_runs_is_forgotten_when_it_has_ended(any_server, tasks, worker, connection, tmp_path):
    ready = tmp_path / "ready"
    result = chain(tasks.until_there.s(ready, 1), tasks.add.s(2)).delay()
    assert result.forget() is True
    assert result.status() is State.RUNNING
    ready.touch()
    until(lambda: result.status() is State.UNKNOWN)
    assert not connection.client.execute_command("KEYS", f"*flow:{result.id}*")


def test_another_process_finds_it_by_its_id(any_server, tasks, worker):
    """With types that are made from annotations unknown; also as if it were a task."""
    result = group(tasks.item.s("tea"), tasks.fail.s("no"), on_error="collect").delay()
    known = json.loads(result.to_json())
    assert known == {"id": result.id, "queue": "default"}
    with StreamQ(tasks.app.settings.url) as app:
        for found in (app.flow(known["id"], queue=known["queue"]), app.flow(result.id)):
            tea, failure = found.get(timeout=10)
            assert tea == {"name": "tea", "price": "1.50"}
            assert isinstance(failure, Failure)
            assert found.queue == "default"
        tea, failure = app.result(result.id).get(timeout=10)
        assert (tea["name"], failure["message"]) == ("tea", "no")
        assert app.result(result.results[0].id).get(timeout=10) == tea
        one = (tasks.add.s(1, 2) | tasks.mul.s(3)).delay()
        assert app.result(one.id).get(timeout=10) == app.flow(one.id).get(timeout=10) == 9


def test_a_task_is_no_flow(tasks, worker):
    single = tasks.add.delay(1, 2)
    assert single.get(timeout=10) == 3
    with pytest.raises(UnknownTaskId, match="is no flow"):
        tasks.app.flow(single.id).nodes()
    with pytest.raises(UnknownTaskId, match="there is no flow"):
        tasks.app.flow("none").progress()


def test_an_id_that_is_known_gives_the_flow_that_is_there(any_server, tasks, worker):
    first = group(tasks.add.s(1, 2), tasks.add.s(3, 4)).set(task_id="mine").delay()
    again = group(tasks.add.s(1, 2), tasks.add.s(3, 4)).set(task_id="mine").delay()
    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.get(timeout=10) == first.get(timeout=10) == [3, 7]
    assert [one.get(timeout=10) for one in again.results] == [3, 7]


def test_a_member_outlives_its_flow(any_server, tasks, worker):
    """When nothing is left of the flow its own record tells its value."""
    result = group(tasks.item.s("tea"), tasks.add.s(1, 1)).delay()
    result.get(timeout=10)
    result.forget()
    assert result.results[0].get(timeout=10).name == "tea"
    assert result.results[1].status() is State.SUCCEEDED


@pytest.mark.parametrize("wait", [lambda result: result.get(timeout=10), lambda result: result.results[0].get(10)])
def test_a_lost_notification_costs_a_second_at_most(tasks, worker, tmp_path, monkeypatch, wait):
    """Only what is stored is believed; who is not told looks again."""
    monkeypatch.setattr(Doorbell, "take", lambda *_: None)
    ready = tmp_path / "ready"
    result = group(tasks.until_there.s(ready, 7)).delay()
    timer = threading.Timer(0.2, ready.touch)
    timer.start()
    began = time.monotonic()
    assert wait(result) in ([7], 7)
    assert time.monotonic() - began < 5
    assert [one.get(timeout=10) for one in result.as_completed(timeout=10)] == [7]
    timer.join()


def test_many_members_are_looked_at_together(tasks, worker, monkeypatch):
    """However many there are, Redis is asked now and then, and once a hundred values; one by one, once for each."""
    result = group(tasks.add.s(n, n) for n in range(1000)).delay()
    sent = []
    run = type(tasks.app.broker.sync).run
    monkeypatch.setattr(type(tasks.app.broker.sync), "run", lambda self, call: (sent.append(call), run(self, call))[1])
    assert sorted(one.get() for one in result.as_completed(timeout=20)) == [2 * n for n in range(1000)]
    assert len(sent) < 250
    sent.clear()
    assert [one.get() for one in result.results] == [2 * n for n in range(1000)]
    assert len(sent) == 1000


def test_a_flow_that_a_task_has_become_is_a_part_of_its_own(any_server, tasks, worker, tmp_path):
    """It is found by the id of the task, and cancelled with the flow that it is in."""
    ready = tmp_path / "ready"
    result = (tasks.hold.s(ready) | tasks.total.s()).delay()
    [task_id] = [node.task_id for node in result.nodes() if node.task.endswith("hold")]
    within = tasks.app.flow(task_id)
    until(lambda: within.status() is State.RUNNING and within.nodes())
    until(lambda: [node.state for node in within.nodes(live=True)].count(State.RUNNING) == 3)
    other = (tasks.hold.s(tmp_path / "never") | tasks.total.s()).delay()
    [other_id] = [node.task_id for node in other.nodes() if node.task.endswith("hold")]
    until(lambda: tasks.app.result(other_id).record().out is not None)
    assert other.cancel() is True
    assert {node.state for node in tasks.app.flow(other_id).nodes(live=True)} == {State.CANCELLED}
    ready.touch()
    assert result.get(timeout=10) == 3
    assert within.get(timeout=10) == tasks.app.result(task_id).get(timeout=10) == [0, 1, 2]
