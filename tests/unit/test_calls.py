"""Every call keeps to one slot of a Redis Cluster, and every script to the keys it was given."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import pytest
from redis.crc import key_slot

from streamq._redis import scripts
from streamq._redis.keys import Keys
from streamq._redis.scripts import Call
from streamq.broker import (
    agents,
    batch,
    calls,
    cancels,
    census,
    channels,
    chunks,
    diagnosis,
    durability,
    event_log,
    flow_census,
    flow_reads,
    flow_retry,
    flows,
    letters,
    moving,
    pausing,
    reads,
    schedules,
    server,
    turns,
)
from streamq.lifecycle import Park, State
from streamq.limits import Limit, rule_of
from streamq.message import Delivery, Lock, Malformed, Message, Share, Terms
from streamq.nodes import Chunk, FlowPart, node_id
from streamq.progress import Progress
from streamq.sending import with_flow

KEYS = Keys("sq", durable_events=True)
QUEUE = KEYS.queue("orders")
# Ids are the user's, and may hold what looks like another hash tag.
IDS = ["1", "{x}", "}{", "a:{b}:c", "~" * 200]
MESSAGES = [Message(task_id, "shop.buy", QUEUE.name, b"[]", delay) for delay, task_id in enumerate(IDS)]
DELIVERIES = [Delivery(message, QUEUE.ready, b"1-%d" % n, n, 1) for n, message in enumerate(MESSAGES)]
SETTLEMENTS = [calls.Settlement(delivery, State.SUCCEEDED, b"1") for delivery in DELIVERIES]
DUE = schedules.DueSchedule("nightly", 1000, b"{}", None)
RULE = rule_of(Limit(rate="100/m", concurrency=5, name="openai"))
STAKES = [turns.Stake(turns.limit_member("openai", key), RULE, 2.5) for key in ("", *IDS)]
MEMBERS = [*(stake.member for stake in STAKES), *map(turns.order_member, IDS)]
CHANNEL = KEYS.channel("orders")
KEPT = [channels.Retention(), channels.Retention(None, None), channels.Retention(1, 0.001)]
HOME = flows.Home(QUEUE, KEYS.done, 1000)
CHUNK = Chunk([("0", b"{}"), ("start", b"{}")], [(0, "w"), (5, "ww")])
PLANS = [
    flows.Plan(CHUNK, is_small, "add | mul", 0, 3, roots)
    for is_small in (False, True)
    for roots in ([], [(1, 5), (2, 9)])
]
# Of flows of this queue, with and without nodes that may follow, and of those of others.
PARTS = [FlowPart(home=QUEUE.name, next=((8, 5), (9, 0))), FlowPart(home=QUEUE.name), FlowPart(home="other")]
NODE_SETTLEMENTS = [
    calls.Settlement(
        delivery._replace(
            message=delivery.message._replace(id=node_id(delivery.message.id, 7), options=with_flow(b"", part))
        ),
        State.SUCCEEDED,
        b"1",
    )
    for delivery in DELIVERIES
    for part in PARTS
]
END = {"done": KEYS.done, "worker": "w", "ttl_ms": 1000}

REVIVALS = [
    flow_retry.Revival([], []),
    flow_retry.Revival([0, 1], [flow_retry.Waiting(2, [0, 1], is_strict=True)]),
]

# For each function that builds a call: the calls it builds, with all kinds of arguments.
SCRIPT_CALLS: dict[str, Sequence[Call[Any]]] = {
    "enqueue": [*(calls.enqueue(QUEUE, MESSAGES, level) for level in (0, 5, 9)), calls.enqueue(QUEUE, [])],
    "due": [calls.due(QUEUE, 10)],
    "promote": [calls.promote(QUEUE, IDS)],
    "finish": [
        calls.finish(QUEUE, stream, SETTLEMENTS, done=KEYS.done, worker="w", ttl_ms=1000)
        for stream in QUEUE.all_streams
    ],
    "bury": [
        *(calls.bury(QUEUE, delivery, "why", b"{}", **END) for delivery in DELIVERIES),
        *(
            calls.bury(QUEUE, Malformed(QUEUE.name, stream, b"1-1", "why", task_id), "why", b"{}", **END)
            for stream in QUEUE.all_streams
            for task_id in (None, *IDS)
        ),
    ],
    "give_back": [
        calls.give_back(QUEUE, stream, calls.Owner("w", died, 3, b"{}"), DELIVERIES, done=KEYS.done, ttl_ms=1000)
        for stream in QUEUE.all_streams
        for died in ("", "signal SIGKILL")
    ],
    "park": [
        calls.park(QUEUE, stream, [(one, Park(1.5, "why", 2, error)) for one in DELIVERIES], worker="w")
        for stream in QUEUE.all_streams
        for error in (b"", b"{}")
    ],
    "renew": [calls.renew(stream, "w", [b"1-1", b"1-2"]) for stream in QUEUE.all_streams],
    "retire": [calls.retire(stream, "w") for stream in QUEUE.all_streams],
    "watch": [calls.watch(QUEUE, task_id, "client") for task_id in IDS],
    "look": [calls.look(QUEUE, task_id) for task_id in IDS],
    "forget": [calls.forget(QUEUE, task_id) for task_id in IDS],
    "emit": [
        chunks.emit(QUEUE, delivery, 3, some, done=KEYS.done, ttl_ms=1000)
        for delivery in DELIVERIES
        for some in ([], [b"1", b"2"])
    ],
    "read_chunks": [chunks.read_chunks(QUEUE, task_id, "client", chunks.Place(2, 17)) for task_id in IDS],
    "progress": [chunks.progress(QUEUE, task_id, Progress(0.5), fence) for task_id in IDS for fence in (None, 2)],
    "forbidden": [diagnosis.forbidden(KEYS, ["orders", "mail"]), diagnosis.forbidden(KEYS, [])],
    "page": [letters.letters(QUEUE, b"-", b"1-1"), moving.entries(QUEUE, QUEUE.ready, b"0-0", b"9-9")],
    "redrive": [
        letters.redrive(QUEUE, [(b"1-%d" % n, task_id) for n, task_id in enumerate(IDS)], reset=reset)
        for reset in (False, True)
    ],
    "cancel": [
        cancels.cancel(QUEUE, [], done=KEYS.done, ttl_ms=1000),
        *(
            cancels.cancel(
                QUEUE, [cancels.Place(one, stream) for one in IDS], done=KEYS.done, ttl_ms=1000, running=running
            )
            for stream, _ in QUEUE.named_streams
            for running in (False, True)
        ),
    ],
    "survey": [cancels.survey(stream, b"-", b"1-1") for stream in QUEUE.all_streams],
    "brief": [cancels.brief(QUEUE, IDS)],
    "measure": [reads.measure(QUEUE)],
    "held": [reads.held(QUEUE, MEMBERS), reads.held(QUEUE, [])],
    "pause": [pausing.pause(QUEUE)],
    "depart": [moving.depart(QUEUE, stream, "other", DELIVERIES) for stream in QUEUE.all_streams],
    "depart_later": [moving.depart_later(QUEUE, "other", IDS)],
    "departing": [moving.departing(QUEUE, IDS)],
    "arrive": [moving.arrive(QUEUE, "other", [(task_id, b"1", [b"state", b"delayed"]) for task_id in IDS])],
    "forward": [moving.forward(QUEUE, [(task_id, arrived) for task_id in IDS]) for arrived in (False, True)],
    "due_schedules": [schedules.due_schedules(QUEUE, 0, 10)],
    "fire": [
        schedules.fire(KEYS, QUEUE, DUE, MESSAGES, next_ms=2000, last="1000"),
        schedules.fire(KEYS, QUEUE, DUE, [], next_ms=2000, last=""),
    ],
    "define_schedule": [schedules.define_schedule(QUEUE, "nightly", b"{}", 1000, since) for since in (None, 500)],
    "read_schedules": [schedules.read_schedules(QUEUE, ["nightly", "hourly"]), schedules.read_schedules(QUEUE, [])],
    "resume_schedule": [schedules.resume_schedule(QUEUE, "nightly", 1000)],
    "remove_schedule": [
        schedules.remove_schedule(QUEUE, "nightly", declaration)
        for declaration in (None, schedules.Declaration(b"1 2", 2))
    ],
    "admit": [
        turns.admit(QUEUE, stream, [(one, STAKES[:number]) for number, one in enumerate(DELIVERIES)])
        for stream in QUEUE.all_streams
    ],
    "visit": [turns.visit(QUEUE, MEMBERS, 10)],
    "turn": [turns.turn(QUEUE, [turns.Visit(member, IDS, IDS[1:]) for member in MEMBERS])],
    "settle_weight": [turns.settle_weight(QUEUE, DELIVERIES[0], stake, 7.5) for stake in STAKES],
    "flow_add": [
        flows.add(QUEUE, one, CHUNK, is_first=is_first, fence=fence)
        for one in IDS
        for is_first in (False, True)
        for fence in (None, 3)
    ],
    "flow_start": [flows.start(HOME, one, plan) for one in IDS for plan in PLANS],
    "become": [
        flows.become(HOME, delivery, plan, result)
        for delivery in DELIVERIES
        for plan in PLANS
        for result in (None, b"1")
    ],
    "finish_flow": [flows.finish(HOME, stream, NODE_SETTLEMENTS, worker="w") for stream in QUEUE.all_streams],
    "flow_told": [
        flows.told(HOME, [flows.End(node_id(one, 7), State.DEAD, b"{}", more) for one in IDS for more in (b"", b"1,2")])
    ],
    "flow_step": [flows.step(HOME, one, sent, swept) for one in IDS for sent, swept in (([], -1), ([1, 2], 7))],
    "flow_let": [flows.let_go(QUEUE, IDS, 1000)],
    "flow_ended": [flow_reads.ended(QUEUE, IDS)],
    "flow_watch": [
        *(flow_reads.watch_end(QUEUE, one, "client") for one in IDS),
        *(flow_reads.watch_nodes(QUEUE, one, client, 3, 7) for one in IDS for client in ("", "client")),
    ],
    "flow_tasks": [flow_reads.tasks(QUEUE, one, [0, 1, 2]) for one in IDS],
    "flow_values": [flow_reads.values(QUEUE, one, [0, 1, 2]) for one in IDS],
    "glance": [flow_census.glance(QUEUE, IDS, ["state", "label"])],
    "flow_again": [flow_retry.again(QUEUE, IDS, 1000)],
    "flow_retry": [flow_retry.retry(HOME, one, "ffkw", revival) for one in IDS for revival in REVIVALS],
    "create_group": [calls.create_group(stream) for stream in QUEUE.all_streams],
    "announce": [calls.announce(log, [("sq:events:orders:shop.buy:started", b"{}")]) for log in (None, QUEUE.log)],
}
# The keys of a channel are in the slot of its name. Groups, members and sessions are words of the user's.
CHANNEL_CALLS: dict[str, Sequence[Call[Any]]] = {
    "channel_append": [
        channels.append(CHANNEL, b"{}", session, 7, retention, sharded=sharded)
        for session in IDS
        for retention in KEPT
        for sharded in (False, True)
    ],
    "channel_fetch": [
        channels.fetch(CHANNEL, group, "w", count=10, start="0", retention=retention)
        for group in IDS
        for retention in KEPT
    ],
    "channel_claim": [channels.claim(CHANNEL, group, "w", lease_ms=1000, cursor="0-0", count=10) for group in IDS],
    "channel_ack": [channels.ack(CHANNEL, group, "w", ["1-1", "1-2"][:some]) for group in IDS for some in (0, 2)],
    "channel_release": [
        channels.release(CHANNEL, group, "w", ["1-1", "1-2"][:some], 1000) for group in IDS for some in (0, 2)
    ],
}
SCRIPT_CALLS |= CHANNEL_CALLS
# The names of all queues are in a set that is no queue's.
REGISTER = calls.register_queues(KEYS, ["a", "b"])
# The stated exception: a transaction takes messages of several queues; a cluster refuses those of several slots.
OTHERS = [message._replace(queue=f"orders.{number}") for number, message in enumerate(MESSAGES)]
LOCKED = [message._replace(terms=Terms(Lock("shop.buy:1a", "running", 1000))) for message in MESSAGES]
FAIR = [message._replace(terms=Terms(share=Share("a:{b}", 2.5))) for message in MESSAGES]
ORDERED = [message._replace(terms=Terms(order="a:{b}")) for message in MESSAGES]
SEEN = batch.Put(set(), {}, {position: f"5:{{x}}:{message.id}" for position, message in enumerate(LOCKED)}, {})
SEVERAL_QUEUES: dict[str, Sequence[Call[Any]]] = {
    "enqueue_all": [
        *(batch.enqueue_all(KEYS, messages) for messages in (MESSAGES, OTHERS, [])),
        *(batch.enqueue_all(KEYS, LOCKED, seen) for seen in (None, SEEN)),
        batch.enqueue_all(KEYS, ORDERED),
        batch.enqueue_all(KEYS, FAIR),
    ],
}
# What agents need is in no queue; no worker needs it.
AGENT_CALLS: dict[str, Sequence[Call[Any]]] = {
    "presence_beat": [agents.beat(KEYS, "agent:presence:events", "planner:1", b"{}", 4000)],
    "presence_leave": [agents.leave(KEYS, "agent:presence:events", "planner:1")],
    "presence_list": [agents.present(KEYS, "agent:presence:events")],
    "claim_take": [agents.take_claim(KEYS, "invoice:7", "planner/1", 1000)],
    "claim_renew": [agents.renew_claim(KEYS, "invoice:7", "planner/1", 1000)],
    "claim_release": [agents.release_claim(KEYS, "invoice:7", "planner/1")],
}
OF_AGENTS = {"beat", "leave", "present", "take_claim", "renew_claim", "release_claim"}  # build them
ALL_SCRIPT_CALLS = SCRIPT_CALLS | SEVERAL_QUEUES | AGENT_CALLS | {"register_queues": [REGISTER]}
# The keys of a plain command are where the command has them.
PLAIN_CALLS: dict[str, tuple[Call[Any], Callable[[Sequence[Any]], Sequence[Any]]]] = {
    "fetch": (
        calls.fetch(dict.fromkeys(QUEUE.all_streams, QUEUE.name), "w", 10, 1000),
        lambda words: words[words.index("STREAMS") + 1 : -len(QUEUE.all_streams)],
    ),
    "held_by": (calls.held_by(QUEUE, QUEUE.ready, "w", 10), lambda words: words[-2:-1]),
    "claim": (calls.claim(QUEUE, QUEUE.ready, "w", lease_ms=1000, cursor=b"0-0", count=10), lambda words: words[1:2]),
    "consumers": (calls.consumers(QUEUE.ready), lambda words: words[2:3]),
    "queue_names": (calls.queue_names(KEYS), lambda words: words[1:2]),
    "client_id": (server.client_id(), lambda _: ()),
    "unblock": (server.unblock(7), lambda _: ()),
    "listeners": (server.listeners(KEYS.beacon), lambda _: ()),
    "server_info": (server.server_info(), lambda _: ()),
    "resume": (pausing.resume(QUEUE), lambda words: words[1:2]),
    "last_delivered": (moving.last_delivered(QUEUE.ready), lambda words: words[2:3]),
    "members": (moving.members(QUEUE.moving), lambda words: words[1:2]),
    "count": (moving.count(QUEUE.delayed), lambda words: words[1:2]),
    "rooms": (reads.rooms(QUEUE), lambda words: words[1:2]),
    "now": (reads.now(), lambda _: ()),
    "waiting": (turns.waiting(QUEUE, MEMBERS[-1], 10), lambda words: words[1:2]),
    "info": (diagnosis.info(), lambda _: ()),
    "config": (diagnosis.config(), lambda _: ()),
    "noted_flows": (flows.noted(QUEUE, ["1", "2"]), lambda words: words[1:2]),
    "outbox": (flows.outbox(QUEUE, 1000), lambda words: words[1:2]),
    "results": (flow_reads.results(QUEUE, "1", ["+", "+7"]), lambda words: words[1:2]),
    "states": (flow_census.states(QUEUE, "1", 0), lambda words: words[1:2]),
    "index": (flow_census.index(QUEUE, 0), lambda words: words[1:2]),
    "specs": (flow_reads.specs(QUEUE, "1", ["0", "start"]), lambda words: words[1:2]),
    "ability": (durability.ability("fsync"), lambda _: ()),
    "fsync_policy": (durability.fsync_policy(), lambda _: ()),
    "confirmation": (durability.confirmation("replica"), lambda _: ()),
    "scan": (cancels.scan(QUEUE.delayed, b"0"), lambda words: words[1:2]),
    "newest": (reads.newest(QUEUE.dead), lambda words: words[1:2]),
    "event_page": (event_log.event_page(QUEUE.log, b"0"), lambda words: words[1:2]),
    "log_length": (event_log.log_length(QUEUE.log), lambda words: words[1:2]),
    "log_begin": (event_log.log_begin(QUEUE.log), lambda words: words[1:2]),
    "schedule_names": (schedules.schedule_names(QUEUE), lambda words: words[1:2]),
    "pause_schedule": (schedules.pause_schedule(QUEUE, "nightly"), lambda words: words[1:2]),
    "subscribed": (census.subscribed(KEYS, sharded=True), lambda _: ()),
    "subscribers": (census.subscribers(["sq:channel:orders"], sharded=True), lambda _: ()),
    "noted": (census.noted(KEYS), lambda words: words[1:2]),
    "strike": (census.strike(KEYS, "orders"), lambda words: words[1:2]),
    "is_kept": (census.is_kept(KEYS.channel("orders")), lambda words: words[1:2]),
    "time_left": (census.time_left(KEYS.channel("orders")), lambda words: words[1:2]),
    "length": (census.length(KEYS.channel("orders")), lambda words: words[1:2]),
    "numbers": (census.numbers(KEYS.channel("orders")), lambda words: words[1:2]),
    "groups": (census.groups(KEYS.channel("orders")), lambda words: words[2:3]),
    "channel_publish": (channels.publish(CHANNEL, b"{}", sharded=True), lambda words: words[1:2]),
    "channel_page": (channels.page(CHANNEL, "(1-1"), lambda words: words[1:2]),
    "channel_end_of": (channels.end_of(CHANNEL, newest=True), lambda words: words[1:2]),
    "channel_note": (channels.note(KEYS, "orders"), lambda words: words[1:2]),
    "claim_holder": (agents.claim_holder(KEYS, "invoice:7"), lambda words: words[1:2]),
    "purge": (letters.purge(QUEUE, [b"1-1", b"1-2"]), lambda words: words[1:2]),
}


def keys_of(call: Call[Any]) -> list[str]:
    """Return the keys that a script call declares."""
    number = call.words[2]
    return list(call.words[3 : 3 + number])


def slots(keys: Sequence[str]) -> set[int]:
    return {key_slot(key.encode()) for key in keys}


def _named(module: Any, name: str) -> str:
    """Name the script that a function calls, if the two have not the same name."""
    if module is channels:
        return f"channel_{name}"
    of_flows = {"add": "flow_add", "start": "flow_start", "finish": "finish_flow", "told": "flow_told"}
    of_flows |= {"step": "flow_step", "let_go": "flow_let", "ended": "flow_ended", "values": "flow_values"}
    of_flows |= {"watch_end": "flow_watch", "watch_nodes": "flow_watch", "tasks": "flow_tasks", "noted": "noted_flows"}
    of_flows |= {"again": "flow_again", "retry": "flow_retry"}
    return of_flows.get(name, name) if module in (flows, flow_reads, flow_retry) else name


def test_every_function_that_builds_a_call_is_looked_at():
    """A new one has to be added above, with all kinds of arguments that it takes."""
    functions = {
        _named(module, name): str(function.__annotations__.get("return", ""))
        for module in (
            agents,
            batch,
            calls,
            cancels,
            census,
            channels,
            chunks,
            diagnosis,
            durability,
            event_log,
            flow_census,
            flow_reads,
            flow_retry,
            flows,
            letters,
            moving,
            pausing,
            reads,
            schedules,
            server,
            turns,
        )
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }
    building = {name for name, returned in functions.items() if returned.startswith("Call[")}
    by_page = {"letters", "entries"}  # their script is that of `reads.page`
    assert building == {*ALL_SCRIPT_CALLS, *PLAIN_CALLS, *by_page, *OF_AGENTS} - {*AGENT_CALLS}


@pytest.mark.parametrize("name", SCRIPT_CALLS)
def test_a_script_touches_one_slot(name):
    """All keys of a script call are of one queue, and hash to the slot of its name."""
    for call in SCRIPT_CALLS[name]:
        keys = keys_of(call)
        own = CHANNEL.log.removesuffix("log") if name in CHANNEL_CALLS else "sq:{orders}:"
        assert all(isinstance(key, str) and key.startswith(own) for key in keys)
        assert slots(keys) <= {key_slot(b"orders")}


@pytest.mark.parametrize("name", AGENT_CALLS)
def test_a_script_of_agents_touches_one_slot(name):
    for call in AGENT_CALLS[name]:
        keys = keys_of(call)
        assert all(key.startswith(("sq:agents:{presence}:", "sq:claim:")) for key in keys)
        assert len(slots(keys)) == 1


def test_a_transaction_touches_the_keys_of_its_messages_alone():
    """Four of each message's queue, all in the slot of that queue; with one queue it is one slot, as ever."""
    one_queue, several, nothing, *locked, _, _ = SEVERAL_QUEUES["enqueue_all"]
    assert slots(keys_of(one_queue)) == {key_slot(b"orders")}
    assert keys_of(nothing) == []
    *keys, last = keys_of(several)
    assert last == KEYS.queue(OTHERS[0].queue).log
    assert len(keys) == 4 * len(OTHERS)
    for message, *four in zip(OTHERS, keys[::4], keys[1::4], keys[2::4], keys[3::4], strict=True):
        queue = KEYS.queue(message.queue)
        assert four == [queue.ready, queue.delayed, queue.record(message.id), queue.log]
        assert slots(four) == {key_slot(message.queue.encode())}
    for call in locked:
        assert len(keys_of(call)) == 8 * len(LOCKED) + 1
        assert slots(keys_of(call)) == {key_slot(b"orders")}


@pytest.mark.parametrize("name", ALL_SCRIPT_CALLS)
def test_a_script_that_makes_events_has_the_log_as_its_last_key(name):
    """No other has it. Where no events are kept it has its first key once more; see `tests/lua`."""
    of_schedules = 3 if name == "fire" else 0  # come after all of those that enqueue
    makes_events = name == "fire" or "--@include events" in source(name)
    for call in ALL_SCRIPT_CALLS[name]:
        keys = keys_of(call)[: -of_schedules or None]
        if keys and name != "announce":
            assert (keys[-1].endswith(":events")) == makes_events


@pytest.mark.parametrize("name", ALL_SCRIPT_CALLS)
def test_a_script_call_can_be_sent_with_its_text(name):
    """By its digest or by its text: the server sees the same script with the same keys and arguments."""
    for call in ALL_SCRIPT_CALLS[name]:
        script = scripts.load(name)
        assert call.words[:2] == ("EVALSHA", script.digest)
        assert script.digest == hashlib.sha1(script.text.encode()).hexdigest()  # noqa: S324 - as servers name it
        assert call.with_text == ("EVAL", script.text, *call.words[2:])
        assert all(type(word) in {str, bytes, int} for word in call.words)


@pytest.mark.parametrize(("call", "find_keys"), PLAIN_CALLS.values(), ids=PLAIN_CALLS)
def test_a_plain_command_touches_one_slot(call, find_keys):
    keys = find_keys(list(call.words))
    assert all(key.startswith("sq:") for key in keys)
    assert len(slots(keys)) == min(1, len(keys))


def test_no_call_uses_what_loses_tasks_or_takes_long():
    every = [call for some in ALL_SCRIPT_CALLS.values() for call in some] + [call for call, _ in PLAIN_CALLS.values()]
    never = {"NOACK", "FORCE", "MAXLEN", "MINID", "XTRIM", "KEYS", "SCAN"}
    assert not [call for call in every if never & set(map(str, call.words))]


def test_the_doctor_asks_for_every_command():
    """All that workers and producers run, but not what only those run who look at queues and dead letters."""
    [asked, _] = SCRIPT_CALLS["forbidden"]
    of_operators = {"page", "redrive", "survey", "brief", "measure", "held", "pause", "depart", "depart_later"}
    of_operators |= {"read_schedules", "remove_schedule", "resume_schedule", "glance", "flow_again", "flow_retry"}
    # Nor what only channels and agents need: the doctor guards workers, which use none.
    asked_for = {*WHOLE} - of_operators - {*CHANNEL_CALLS, *AGENT_CALLS}
    in_scripts = {split(words)[0].strip("'") for name in asked_for for words in _CALL.findall(code(name))}
    sent = {call.words[0] for name, (call, _) in PLAIN_CALLS.items() if hasattr(calls, name) or hasattr(server, name)}
    needed = in_scripts | sent - {"INFO", "SMEMBERS"} | {"EVALSHA", "SUBSCRIBE"}
    assert {json.loads(words)[0] for words in asked.words[3:]} == needed


def test_queues_with_similar_names_share_nothing():
    """No key of one queue or namespace is one of another."""
    every = [
        key
        for keys in (Keys(name, durable_events=True) for name in ("sq", "sq2", "sq.a"))
        for name in ("a", "b", "a.b", "queues", "done", "events", "task")
        for queue in [keys.queue(name)]
        for key in (
            *queue.all_streams,
            queue.delayed,
            queue.dead,
            queue.paused,
            queue.moving,
            *queue.timetable,
            queue.record("1"),
            queue.log,
            queue.chunks("1"),
            keys.queues,
            keys.worker_log,
        )
        if key not in (keys.queues, keys.worker_log) or name == "a"
    ]
    assert len(every) == len(set(every))


# ---- the scripts themselves

FOLDER = scripts._FOLDER
SCRIPTS = sorted(file.name.removesuffix(".lua") for file in FOLDER.iterdir() if file.name.endswith(".lua"))
FRAGMENTS = [name for name in SCRIPTS if name.startswith("_")]
WHOLE = [name for name in SCRIPTS if not name.startswith("_")]

_CALL = re.compile(r"redis\.p?call\(\s*([^()]*(?:\([^()]*\)[^()]*)*)")
_FROM_KEYS = re.compile(
    r"KEYS\[\w+(?: \+ \w+)?\]"
    r"|[\w.]+ == '\w+' and KEYS\[\d\] or KEYS\[\d \+ \([\w.]+ or \d\)\]"
    r"|KEYS\[first \+ \(tonumber\(place\) or 0\)\]"
    r"|KEYS\[#KEYS\] ~= KEYS\[1\] and KEYS\[#KEYS\] or nil"
    r"|log and KEYS\[last\]"
    r"|unpack\(flow\.keys\)"  # which are seven in a row of KEYS
)
_IS_KEY = re.compile(r"[^({]*KEYS\[|unpack\(flow\.keys\)")
_KEYLESS = {"TIME", "PUBSUB", "PUBLISH", "publish"}  # the last one a variable: PUBLISH or SPUBLISH
_KEY_SECOND = {"XGROUP", "XINFO"}
_KEY_FIRST = {
    "DEL", "EXISTS", "HDEL",
    "HEXISTS", "HGET", "HGETALL", "HINCRBY", "HMGET", "HSET", "SADD", "PEXPIRE", "TYPE", "XACK", "XADD", "XCLAIM",
    "PTTL", "XAUTOCLAIM", "XREVRANGE", "XTRIM",
    "GET", "HKEYS", "HLEN", "HVALS", "PERSIST", "SET", "XDEL", "XLEN", "XPENDING", "XRANGE", "ZADD",
    "ZCARD", "ZRANGE", "ZRANGEBYSCORE", "ZREM", "ZSCORE",
    "GETRANGE", "HSTRLEN", "LINDEX", "LLEN", "LPOP", "LRANGE", "LREM", "LSET", "RPUSH", "SETRANGE",
    "ZREMRANGEBYSCORE",
}  # fmt: skip


def source(name: str) -> str:
    return (FOLDER / f"{name}.lua").read_text("utf-8")


def code(name: str) -> str:
    """Return a script, whole, without its comments, and without brackets that are text."""
    return re.sub(r"--.*", "", scripts.load(name).text).replace("'('", "'<'")


def split(words: str) -> list[str]:
    """Split at the commas that stand in no brackets."""
    parts, depth = [""], 0
    for character in words:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def keys_in(text: str) -> set[str]:
    """Return the variables that hold a key; fail if one of them is ever given anything else.

    Those of a shared function are among them: its callers give it keys, see below.
    """
    taken = {
        name
        for function, number in SHARED.items()
        for words in re.findall(rf"local function {function}\((.*?)\)", text)
        for name in split(words)[:number]
    }
    assigned: dict[str, list[str]] = {}
    for names, values in re.findall(r"^\s*(?:local )?([\w., ]+?) = (.+)$", text, re.MULTILINE):
        parts = split(values)
        for name, value in zip_longest(split(names), parts, fillvalue=parts[-1]):
            assigned.setdefault(name, []).append(value)
    held = {name for name, values in assigned.items() if any(_IS_KEY.match(value) for value in values)}
    for name in held:
        assert all(_FROM_KEYS.fullmatch(value) for value in assigned[name]), f"{name}: {assigned[name]}"
    return held | taken


def test_every_script_is_called():
    assert set(WHOLE) == set(ALL_SCRIPT_CALLS)


@pytest.mark.parametrize("name", WHOLE)
def test_a_script_uses_the_keys_it_was_given(name):
    """Whatever stands where a command has its key was taken from KEYS as it is, and never put together."""
    text = code(name)
    held = keys_in(text)
    commands = _CALL.findall(text)
    assert len(commands) == text.count("redis.call(") + text.count("redis.pcall(")
    for words in map(split, commands):
        command = words[0].strip("'")
        if command in _KEYLESS:
            continue
        assert command in {*_KEY_FIRST, *_KEY_SECOND, "XREADGROUP"}, f"say where the key of {command} stands"
        place = words.index("'STREAMS'") + 1 if command == "XREADGROUP" else 2 if command in _KEY_SECOND else 1
        key = words[place]
        assert key in held or re.fullmatch(r"KEYS\[\w+\]|flow\.keys\[n\]|unpack\(flow\.keys\)", key), f"{command} {key}"


# How many keys the functions of scripts take, which come first.
SHARED = {"settle": 1, "put": 3, "is_free": 1, "redrive": 1, "is_there": 1, "holds": 3, "find_holder": 4, "write": 2}
SHARED |= {"line_up": 5, "share": 6, "write_held": 1}
SHARED |= {"stow": 1, "unstow": 1, "refusal": 1, "units_woken": 1, "begin": 3, "hold": 3, "wake": 3, "wake_all": 3}
SHARED |= {"leave": 2, "is_of_flow": 1, "note_flow": 1, "write_part": 2}
SHARED |= {"free_place": 2, "known": 1, "read_rule": 1, "keep": 1}
SHARED |= {"note": 1, "replace": 2, "put_off": 1, "page": 1, "remove": 1, "open": 1}


@pytest.mark.parametrize("name", WHOLE)
def test_a_shared_function_is_given_a_key_of_the_script(name):
    """What the functions call ``record``, or another key, is what their callers have from KEYS."""
    text = code(name)
    for words in re.findall(r"^(?!.*function).*\b(?:settle|write_dead)\((.*)\)", text, re.MULTILINE):
        assert split(words)[0] in keys_in(text)
    for function, number in SHARED.items():
        for words in re.findall(rf"^(?!.*function).*(?<!\.)\b{function}\((.*)\)", text, re.MULTILINE):
            assert set(split(words)[:number]) <= keys_in(text)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_short_and_says_what_it_takes(name):
    """First the kind, then what it does, its KEYS and its ARGV, each if it uses them."""
    lines = source(name).splitlines()
    assert len(lines) < 80
    assert max(map(len, lines)) <= 120
    if name in WHOLE:
        assert lines.pop(0).startswith("#!lua")
    header = "\n".join(lines[: next(n for n, line in enumerate(lines) if not line.startswith("-- "))])
    assert header, "no header"
    if name in WHOLE:
        assert "-- KEYS: " in header
        assert ("-- ARGV: " in header) == ("ARGV" in code(name))


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_uses_what_loses_tasks_or_takes_long(name):
    never = ["XTRIM", "MAXLEN", "MINID", "NOACK", "FORCE", "'KEYS'", "'SCAN'", "loadstring"]
    if name == "_keep":  # events are no tasks
        never.remove("MAXLEN")
    if name == "channel_append":  # a channel keeps so much as was asked for; its log holds no tasks
        never = [word for word in never if word not in ("XTRIM", "MAXLEN", "MINID")]
    assert not [word for word in never if word in source(name)]


@pytest.mark.parametrize("name", WHOLE)
def test_only_what_makes_work_may_be_refused_when_memory_is_full(name):
    """What ends, returns or frees has to go on; what only reads writes nothing. What is emitted can wait."""
    flags = source(name).splitlines()[0].removeprefix("#!lua")
    makes_work = name in {"enqueue", "enqueue_all", "redrive", "fire", "define_schedule", "resume_schedule"}
    makes_work |= name in {"flow_add", "flow_start", "flow_retry"}
    makes_work |= name in {"depart", "depart_later", "arrive", "emit", "progress", "channel_append", "claim_take"}
    assert flags in ({""} if makes_work else {" flags=allow-oom", " flags=no-writes"})
