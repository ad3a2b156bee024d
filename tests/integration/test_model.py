"""The scripts, called in any order by any number of workers, against a plain model of what they promise.

Workers fetch, finish, retry, put back, bury and hand back; they die, stall, and come back with what is no longer
theirs; tasks of two priorities are cancelled, or wait in line for others; dead letters are redriven and purged; replies
get lost, so that calls are sent twice. After each step everything in Redis is compared with the model; and at the end
workers that do all there is to do leave nothing behind.

A long run, with other examples each time:

    STREAMQ_MODEL_EXAMPLES=10000 pytest tests/integration/test_model.py --timeout 0
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from hypothesis.stateful import run_state_machine_as_test as play

from streamq._redis.connections import SyncConnection
from streamq._redis.keys import GROUP, Keys
from streamq._redis.scripts import Call
from streamq.broker import batch, calls, cancels, letters, turns
from streamq.broker.records import stored_error
from streamq.errors import TaskCancelled
from streamq.lifecycle import Park, State
from streamq.message import Delivery, Malformed, Message, Terms
from streamq.sending import Steering, level_of

KEYS = Keys("sq")
QUEUE = KEYS.queue("q")
STREAMS = (QUEUE.returned, QUEUE.levels[9], QUEUE.ready)
NAMES = dict(zip(STREAMS, ("returned", "9", ""), strict=True))  # as records have them
LINE = turns.order_member("k")
RULE, _, PLACES, ROOM = QUEUE.room(LINE)
CANCELLED = stored_error(TaskCancelled, "it was cancelled")
ERROR = b'{"type":"E","message":"","args":[],"traceback":""}'
TOLD: Any = {"done": KEYS.done, "ttl_ms": 3_600_000}
END: Any = {**TOLD, "worker": "w"}
IDS = ("a", "b", "c")
EXAMPLES = int(os.environ.get("STREAMQ_MODEL_EXAMPLES", "0"))

ids = st.sampled_from(IDS)
workers = st.sampled_from(["w-1", "w-2"])
streams = st.sampled_from(STREAMS)
levels = st.sampled_from([5, 5, 9])
caps = st.integers(1, 3)  # of deaths
positions = st.sets(st.integers(0, 3), min_size=1)
twice = st.sampled_from([False, False, False, True])  # the reply to the first got lost


class Content(NamedTuple):
    """What an entry or a dead letter says: whose message it is (None: it is none), and what it went through."""

    task_id: str | None
    fence: int = 0
    attempt: int = 1
    deaths: int = 0
    level: int = 5


@dataclass
class Entry:
    """An entry of a stream, and who has it (None: nobody yet)."""

    content: Content
    owner: str | None = None


@dataclass
class Record:
    """What is stored of a task; `place` is its stream and entry, while it has one, and `last` the one it had last.

    What it went through its message says too, wherever that is.
    """

    state: State
    place: tuple[str, bytes] | None = None
    last: tuple[str, bytes] | None = None
    fence: int = 0
    attempt: int = 1
    deaths: int = 0
    level: int = 5
    in_line: bool = False
    failure: bytes = b""
    body: bytes = b""
    due: bool = False
    forget: bool = False
    waiters: list[str] = field(default_factory=list)


@dataclass
class Model:
    """What should be in Redis."""

    records: dict[str, Record] = field(default_factory=dict)
    entries: dict[str, dict[bytes, Entry]] = field(default_factory=lambda: {stream: {} for stream in STREAMS})
    dead: list[Content] = field(default_factory=list)
    room: list[str] = field(default_factory=list)  # who waits in line
    placed: set[str] = field(default_factory=set)  # the first in line, or who was it, if nobody has looked since
    has_rule: bool = False
    is_listed: bool = False

    def has(self, state: State) -> bool:
        return any(record.state is state for record in self.records.values())

    @property
    def has_room(self) -> bool:
        return len(self.records) < len(IDS)

    @property
    def has_garbage(self) -> bool:
        return any(not entry.content.task_id for entries in self.entries.values() for entry in entries.values())

    @property
    def is_any_waiting(self) -> bool:
        return any(entry.owner is None for entries in self.entries.values() for entry in entries.values())

    @property
    def is_any_held(self) -> bool:
        return any(entry.owner for entries in self.entries.values() for entry in entries.values())

    def held(self, stream: str, owner: str) -> list[bytes]:
        return [key for key, entry in self.entries[stream].items() if entry.owner == owner]

    def is_current(self, delivery: Delivery) -> bool:
        """Whether a delivery is the last one of its task: what it leads to counts."""
        record = self.records.get(delivery.message.id)
        return record is not None and record.place == (delivery.stream, delivery.entry)

    def is_refused(self, delivery: Delivery) -> bool:
        """Whether a worker is told that its outcome is; that of a commit whose reply got lost is not."""
        record = self.records.get(delivery.message.id)
        if record is None:
            return False
        return record.fence != delivery.fence or record.last not in (None, (delivery.stream, delivery.entry))

    def content(self, task_id: str) -> Content:
        record = self.records[task_id]
        return Content(task_id, record.fence, record.attempt, record.deaths, record.level)

    def keeps_its_place(self, task_id: str) -> bool:
        """Whether somebody who had the first place in line has a right to it; not who waits for it, as a new task."""
        record = self.records.get(task_id)
        return record is not None and not record.state.ended and record.state is not State.HELD

    def verdict(self, task_id: str, name: str, *, running: bool) -> bool | str:
        """What comes of cancelling a task whose message is said to be in the stream of this name."""
        record = self.records.get(task_id)
        if record is None or record.state.ended:
            return record is not None and record.state is State.CANCELLED
        stream, key = record.place or ("", b"")
        if stream and NAMES[stream] != name:
            return NAMES[stream]
        return running or not stream or self.entries[stream][key].owner is None

    def settle(self, task_id: str, state: State, body: bytes) -> None:
        record = self.records[task_id]
        stream, key = record.place or ("", b"")
        if stream:
            del self.entries[stream][key]
        record.state, record.body, record.place = state, body, None
        if record.forget:
            del self.records[task_id]


class Machine(RuleBasedStateMachine):
    """Workers and callers of one queue."""

    connection: SyncConnection
    deliveries = Bundle("deliveries")
    garbage = Bundle("garbage")

    @initialize(target=deliveries, fetched=st.sets(ids), worker=workers)
    def begin(self, fetched, worker):
        self.model = Model()
        self.bodies = 0
        self.redis = self.connection.client.execute_command
        self.redis("FLUSHALL")
        for stream in STREAMS:
            self.connection.run(calls.create_group(stream))
        for task_id in sorted(fetched):
            self.enqueue(task_id, delay_ms=0, level=5, twice=False)
        return self.fetch(worker, len(fetched) or 1)

    def send(self, call: Call[Any], twice: bool = False) -> Any:  # noqa: FBT001, FBT002 - a drawn value
        reply = self.connection.run(call)
        if twice:
            self.connection.run(call)
        return reply

    def add(self, stream: str, task_id: str) -> None:
        """Note that a script has written an entry; the record says which."""
        record = self.model.records[task_id]
        key = self.redis("HGET", QUEUE.record(task_id), "entry")
        record.state, record.place = State.QUEUED, (stream, key)
        record.last = record.place
        self.model.entries[stream][key] = Entry(self.model.content(task_id))

    def give_back(self, stream: str, owner: calls.Owner, some: list[Delivery], twice: bool) -> None:  # noqa: FBT001
        """Give back what its owner has; that under which too many have died becomes dead letters."""
        model = self.model
        found = self.send(calls.give_back(QUEUE, stream, owner, some, **TOLD), twice)
        given = buried = 0
        for key in [one.entry for one in some if one.entry in model.held(stream, owner.consumer)]:
            task_id = model.entries[stream][key].content.task_id
            assert task_id is not None
            record = model.records[task_id]
            record.deaths += owner.died != ""
            if owner.died and record.deaths >= owner.max_deaths:
                buried += 1
                model.dead.append(model.content(task_id)._replace(fence=record.fence + 1))
                model.settle(task_id, State.DEAD, owner.error)
            else:
                given += 1
                del model.entries[stream][key]
                record.fence += 1
                self.add(QUEUE.returned, task_id)
        assert found == (given, buried)

    # ---- callers

    @precondition(lambda self: self.model.has_room)
    @rule(task_id=ids, delay_ms=st.sampled_from([0, 0, 3_600_000]), level=levels, twice=twice)
    def enqueue(self, task_id, delay_ms, level, twice):
        """A new id is a new task, and a known id is none."""
        message = _message(task_id, level, delay_ms)
        reply = self.send(calls.enqueue(QUEUE, [message], level), twice)
        if task_id in self.model.records:
            assert reply.known == [0]
        else:
            self.put(message)

    def put(self, message: Message) -> None:
        """Note that a script has made a task of a new message."""
        level = level_of(message.options)
        self.model.records[message.id] = Record(State.DELAYED if message.delay_ms else State.QUEUED, level=level)
        if not message.delay_ms:
            self.add(QUEUE.levels[level], message.id)

    @precondition(lambda self: self.model.has_room)
    @rule(delay_ms=st.sampled_from([0, 3_600_000]), level=levels, twice=twice)
    def transact(self, delay_ms, level, twice):
        """Several messages land together; of those that are known each is left alone."""
        messages = [_message("a", level, delay_ms), _message("b", 5)]
        for one in self.put_all(messages, twice):
            self.put(one)

    @precondition(lambda self: self.model.has_room)
    @rule(some=st.lists(ids, min_size=1, unique=True), level=levels, twice=twice)
    def line_up(self, some, level, twice):
        """Of those with one ordering key the first can go, if nobody was before it; the others are held behind it."""
        model = self.model
        messages = [_message(task_id, level)._replace(terms=Terms(order="k")) for task_id in some]
        for one in self.put_all(messages, twice):
            if model.placed or model.room:
                model.records[one.id] = Record(State.HELD, level=level, in_line=True)
                model.room = [*(task_id for task_id in model.room if task_id != one.id), one.id]
                model.has_rule = True
            else:
                self.put(one)
                model.records[one.id].in_line = True
                model.placed = {one.id}
            model.is_listed = True

    def put_all(self, messages: list[Message], twice: bool) -> list[Message]:  # noqa: FBT001 - a drawn value
        """Enqueue several messages; returns those that are new."""
        new = [one for one in messages if one.id not in self.model.records]
        found = self.send(batch.enqueue_all(KEYS, messages), twice)
        known = [nth for nth, one in enumerate(messages) if one not in new]
        assert found.there == {nth: messages[nth].id for nth in known}
        assert found.queues == ({"q"} if known else set())
        return new

    @precondition(lambda self: self.model.records)
    @rule(
        some=st.lists(ids, min_size=1, unique=True),
        name=st.sampled_from([None, None, *NAMES.values()]),
        running=st.booleans(),
        twice=twice,
    )
    def cancel(self, some, name, running, twice):
        """A task ends at once, unless its message is in another stream than was said, or it is left to a worker."""
        records = self.model.records
        where = {one: NAMES[record.place[0]] for one, record in records.items() if record.place}
        places = [cancels.Place(one, where.get(one, "") if name is None else name) for one in some]
        expected = [self.model.verdict(*place, running=running) for place in places]
        assert self.send(cancels.cancel(QUEUE, places, **TOLD, running=running), twice) == expected
        for one, verdict in zip(some, expected, strict=True):
            if verdict is True and not records[one].state.ended:
                records[one].fence += 1
                self.model.settle(one, State.CANCELLED, CANCELLED)

    @precondition(lambda self: not self.model.has_garbage)
    @rule(target=garbage)
    def add_garbage(self):
        """An entry is written by hand that is no message."""
        key = self.redis("XADD", QUEUE.ready, "*", "garbage", "in")
        self.model.entries[QUEUE.ready][key] = Entry(Content(None))
        return Malformed("q", QUEUE.ready, key, "has no id", None)

    @precondition(lambda self: self.model.records)
    @rule(task_id=ids, client=st.sampled_from(["x", "y"]), twice=twice)
    def watch(self, task_id, client, twice):
        """The record is read as it is, and the client noted once; a message that a worker has is running."""
        found = self.send(calls.watch(QUEUE, task_id, client), twice)
        record = self.model.records.get(task_id)
        assert (found.state, found.body) == ((record.state, record.body) if record else (State.UNKNOWN, b""))
        stream, key = (record and record.place) or ("", b"")
        owner = self.model.entries[stream][key].owner if stream else None
        looked = self.send(calls.look(QUEUE, task_id))
        assert (looked.state, looked.worker) == (State.RUNNING if owner else found.state, owner)
        if record and not record.state.ended and client not in record.waiters:
            record.waiters.append(client)

    @precondition(lambda self: not all(record.forget for record in self.model.records.values()))
    @rule(task_id=ids, twice=twice)
    def forget(self, task_id, twice):
        """The record of an ended task goes, that of another when it ends; then the id can be used anew."""
        record = self.model.records.get(task_id)
        assert self.send(calls.forget(QUEUE, task_id), twice) == (record is not None)
        if record and record.state.ended:
            del self.model.records[task_id]
        elif record:
            record.forget = True

    # ---- time

    @precondition(lambda self: self.model.has(State.DELAYED))
    @rule(task_id=ids)
    def make_due(self, task_id):
        """The time of a delayed task comes."""
        self.redis("ZADD", QUEUE.delayed, "XX", 1, task_id)
        if task_id in self.model.records:
            self.model.records[task_id].due = True

    @precondition(lambda self: self.model.has(State.DELAYED))
    @rule(twice=twice, also=st.lists(ids, max_size=2, unique=True))
    def promote(self, twice, also):
        """Those that are due move to the stream; those of another worker that was late do not."""
        due = sorted(task_id for task_id, one in self.model.records.items() if one.state is State.DELAYED and one.due)
        assert self.send(calls.due(QUEUE, 10)).task_ids == due
        asked = [*due, *(task_id for task_id in also if task_id not in due)]
        assert self.send(calls.promote(QUEUE, asked), twice) == len(due)
        for task_id in due:
            self.add(QUEUE.levels[self.model.records[task_id].level], task_id)

    @precondition(lambda self: self.model.is_listed)
    @rule(twice=twice)
    def give_turn(self, twice):
        """The first in line that still waits goes when nobody before it has the place, and nobody else."""
        model = self.model
        visit = turns.Visit(LINE, sorted(model.placed), list(model.room))
        for _ in range(1 + twice):
            self.send(turns.turn(QUEUE, [visit]))
            model.placed = {one for one in model.placed if model.keeps_its_place(one)}
            while model.room:
                first = model.records.get(model.room[0])
                if first is not None and first.state is State.HELD:
                    if model.placed:
                        break
                    self.add(QUEUE.returned, model.room[0])
                    model.placed = {model.room[0]}
                del model.room[0]
            model.has_rule = bool(model.room)
            model.is_listed = bool(model.room or model.placed)

    # ---- workers

    @precondition(lambda self: self.model.is_any_waiting)
    @rule(target=deliveries, worker=workers, count=st.integers(1, 3))
    def fetch(self, worker, count):
        """Messages come in order, those that were returned first, each to one worker."""
        found = self.send(calls.fetch(dict.fromkeys(STREAMS, "q"), worker, count, 0))
        expected = []
        for stream in STREAMS:
            new = [(key, entry) for key, entry in self.model.entries[stream].items() if entry.owner is None][:count]
            for key, entry in new:
                entry.owner = worker
                expected.append((stream, key, entry.content))
        assert [(one.stream, one.entry, _read(one)) for one in found] == expected
        return multiple(*(one for one in found if isinstance(one, Delivery)))

    @rule(some=st.lists(deliveries, min_size=1, max_size=3, unique=True), good=st.booleans(), twice=twice)
    def finish(self, some, good, twice):
        """The outcome of the last delivery is committed, once; that of any other changes nothing."""
        some = [one for one in some if one.stream == some[0].stream]
        state = State.SUCCEEDED if good else State.FAILED
        self.bodies += 1
        body = b"%d" % self.bodies if good else ERROR[:-1] + b',"n":%d}' % self.bodies
        settlements = [calls.Settlement(one, state, body) for one in some]
        found = self.send(calls.finish(QUEUE, some[0].stream, settlements, **END), twice)
        refused = []
        for position, one in enumerate(some):
            if self.model.is_refused(one):
                refused.append(position)
            elif self.model.is_current(one):
                self.model.settle(one.message.id, state, body)
        assert found == refused

    @rule(some=st.lists(deliveries, min_size=1, max_size=3, unique=True), twice=twice)
    def retry(self, some, twice):
        """An attempt that has failed leads to another one; how many workers have died is not forgotten."""
        self.park(some, twice, fails=True)

    @rule(some=st.lists(deliveries, min_size=1, max_size=3, unique=True), twice=twice)
    def put_back(self, some, twice):
        """A delivery that was no attempt is put back for later."""
        self.park(some, twice, fails=False)

    def park(self, some: list[Delivery], twice: bool, *, fails: bool) -> None:  # noqa: FBT001 - a drawn value
        """Put back what is current, and nothing else."""
        some = [one for one in some if one.stream == some[0].stream]
        current = [one for one in some if self.model.is_current(one)]
        self.bodies += 1
        failure = b'{"n":%d}' % self.bodies if fails else b""
        parked = [(one, Park(3600, "why", one.attempt + fails, failure)) for one in some]
        refused = [position for position, one in enumerate(some) if one not in current]
        assert self.send(calls.park(QUEUE, some[0].stream, parked, worker="w"), twice) == refused
        for one in current:
            del self.model.entries[one.stream][one.entry]
            record = self.model.records[one.message.id]
            record.state, record.place, record.last, record.due = State.DELAYED, None, None, False
            record.fence += 1
            record.attempt += fails
            record.failure = failure or record.failure

    @rule(one=deliveries, twice=twice)
    def bury(self, one, twice):
        """The last delivery can be moved to the dead letters, which ends its task."""
        current = self.model.is_current(one)
        assert self.send(calls.bury(QUEUE, one, "why", ERROR, **END), twice) == current
        if current:
            self.model.dead.append(self.model.content(one.message.id))
            self.model.settle(one.message.id, State.DEAD, ERROR)

    @rule(one=consumes(garbage), twice=twice)
    def bury_garbage(self, one, twice):
        """What is no message is moved away, once it has been fetched."""
        entry = self.model.entries[one.stream][one.entry]
        fetched = entry.owner is not None
        assert self.send(calls.bury(QUEUE, one, "why", ERROR, **END), twice) == fetched
        if fetched:
            del self.model.entries[one.stream][one.entry]
            self.model.dead.append(Content(None))

    @rule(one=deliveries, worker=workers, twice=twice)
    def hand_back(self, one, worker, twice):
        """What a worker has it can hand back, and nothing else."""
        self.give_back(one.stream, calls.Owner(worker), [one], twice)

    @rule(worker=workers, some=st.lists(deliveries, max_size=3, unique=True), twice=twice)
    def renew(self, worker, some, twice):
        """Only what a worker still has is renewed."""
        for stream in STREAMS:
            keys = [one.entry for one in some if one.stream == stream]
            mine = self.model.held(stream, worker)
            assert self.send(calls.renew(stream, worker, keys), twice) == [key for key in keys if key not in mine]

    @precondition(lambda self: self.model.is_any_held)
    @rule(worker=workers, max_deaths=caps)
    def die(self, worker, max_deaths):
        """A child dies, and its supervisor gives back all that it held."""
        for stream in STREAMS:
            held = self.send(calls.held_by(QUEUE, stream, worker, 100))
            assert [one.entry for one in held] == self.model.held(stream, worker)
            good = [one for one in held if isinstance(one, Delivery)]
            self.give_back(stream, calls.Owner(worker, "SIGKILL", max_deaths, ERROR), good, twice=False)
            assert self.send(calls.retire(stream, worker)) == (len(good) == len(held))

    @precondition(lambda self: self.model.is_any_held)
    @rule(worker=workers, stream=streams, twice=twice, dies=st.booleans(), max_deaths=caps)
    def reclaim(self, worker, stream, twice, dies, max_deaths):
        """After a lease a worker takes over all that is pending and gives it back, unless it dies before that."""
        claimed = self.send(calls.claim(QUEUE, stream, worker, lease_ms=0, cursor=b"0-0", count=100), twice).deliveries
        pending = [key for key, entry in self.model.entries[stream].items() if entry.owner]
        assert [one.entry for one in claimed] == pending
        for key in pending:
            self.model.entries[stream][key].owner = worker
        good = [one for one in claimed if isinstance(one, Delivery)]
        if not dies:
            self.give_back(stream, calls.Owner(worker, "no sign of life", max_deaths, ERROR), good, twice)

    # ---- dead letters

    def letters(self) -> list[bytes]:
        """Read the dead letters, which are as the model has them; returns their entries."""
        found = self.send(letters.letters(QUEUE, b"-", b"+"))
        assert [_read(one.message) for one in found] == self.model.dead
        return [one.entry for one in found]

    @precondition(lambda self: self.model.dead)
    @rule(chosen=positions, reset=st.booleans(), twice=twice)
    def redrive(self, chosen, reset, twice):
        """What died runs again, under a raised fence, unless its id is that of a task that is not dead."""
        model, entries = self.model, self.letters()
        asked = [n for n in sorted(chosen) if n < len(entries) and model.dead[n].task_id]
        moved = {}
        for n in asked:
            letter = model.dead[n]
            record = model.records.get(letter.task_id) or Record(State.DEAD)
            if letter.task_id not in moved.values() and record.state is State.DEAD:
                moved[n] = letter.task_id
                record.fence = max(record.fence, letter.fence) + 1
                record.attempt, record.deaths = (1, 0) if reset else (letter.attempt, letter.deaths)
                record.failure = b"" if reset else record.failure
                record.body, record.level, record.in_line = b"", letter.level, False
                model.records[letter.task_id] = record
        call = letters.redrive(QUEUE, [(entries[n], model.dead[n].task_id) for n in asked], reset=reset)
        assert self.send(call, twice) == (len(moved), len(asked) - len(moved))
        model.dead = [letter for n, letter in enumerate(model.dead) if n not in moved]
        for task_id in moved.values():
            self.add(QUEUE.levels[model.records[task_id].level], task_id)

    @precondition(lambda self: self.model.dead)
    @rule(chosen=positions, twice=twice)
    def purge(self, chosen, twice):
        """Only the letters go that are meant."""
        entries = self.letters()
        asked = [entries[n] for n in chosen if n < len(entries)]
        if asked:
            assert self.send(letters.purge(QUEUE, asked), twice) == len(asked)
            self.model.dead = [letter for n, letter in enumerate(self.model.dead) if n not in chosen]

    # ---- what is there

    @invariant()
    def redis_is_as_the_model(self) -> None:
        """Each task that has not ended is in one place, all owners and fences are right, and no key is left over.

        Of those in line only one is outside the room, whatever it goes through there.
        """
        model = self.model
        pipeline = self.connection.client.pipeline(transaction=False)
        for stream in STREAMS:
            pipeline.execute_command("XRANGE", stream, "-", "+")
            pipeline.execute_command("XPENDING", stream, GROUP, "-", "+", 1000)
        pipeline.execute_command("ZRANGE", QUEUE.delayed, 0, -1)
        pipeline.execute_command("XRANGE", QUEUE.dead, "-", "+")
        pipeline.execute_command("ZRANGE", ROOM, 0, -1)
        pipeline.execute_command("HKEYS", PLACES)
        pipeline.execute_command("KEYS", "*")
        for task_id in model.records:
            pipeline.execute_command("HGETALL", QUEUE.record(task_id))
            pipeline.execute_command("PTTL", QUEUE.record(task_id))
        first = 2 * len(STREAMS) + 5
        *found, delayed, dead, room, placed, keys = (replies := pipeline.execute())[:first]
        for stream, entries, pending in zip(STREAMS, found[::2], found[1::2], strict=True):
            expected = model.entries[stream]
            assert [(key, _content(fields)) for key, fields in entries] == [
                (key, one.content) for key, one in expected.items()
            ]
            assert {key: owner.decode() for key, owner, *_ in pending} == {
                key: one.owner for key, one in expected.items() if one.owner
            }
        waiting = {task_id for task_id, one in model.records.items() if one.state is State.DELAYED}
        assert {task_id.decode() for task_id in delayed} == waiting
        assert [_content(fields) for _, fields in dead] == model.dead
        assert [task_id.decode() for task_id in room] == model.room
        assert {task_id.decode() for task_id in placed} == model.placed
        outside = [one for one in model.records.values() if one.in_line and one.state in (State.QUEUED, State.DELAYED)]
        assert len(outside) <= 1
        records = {QUEUE.record(task_id) for task_id in model.records}
        keys = {key.decode() for key in keys} - {QUEUE.dead}  # which stays when it is empty
        there = {QUEUE.delayed: waiting, QUEUE.rooms: model.is_listed, RULE: model.has_rule}
        there |= {PLACES: model.placed, ROOM: model.room}
        assert keys == {*STREAMS, *records, *(key for key, is_there in there.items() if is_there)}
        for (task_id, record), fields, ttl in zip(
            model.records.items(), replies[first::2], replies[first + 1 :: 2], strict=True
        ):
            _check(task_id, record, dict(zip(fields[::2], fields[1::2], strict=True)), ttl)

    def teardown(self) -> None:
        """Workers that do what there is to do come to an end of it: nothing is stuck."""
        run = self.connection.run
        redis = self.connection.client.execute_command
        for _ in range(2 * len(IDS)):
            if not redis("EXISTS", QUEUE.delayed, QUEUE.rooms) and not any(redis("XLEN", one) for one in STREAMS):
                break
            for task_id in IDS:
                redis("ZADD", QUEUE.delayed, "XX", 1, task_id)
            run(calls.promote(QUEUE, IDS))
            redis("ZADD", QUEUE.rooms, "XX", 1, LINE)
            run(turns.turn(QUEUE, run(turns.visit(QUEUE, [LINE], 100))))
            found = run(calls.fetch(dict.fromkeys(STREAMS, "q"), "last", 10, 0))
            for stream in STREAMS:
                found += run(calls.claim(QUEUE, stream, "last", lease_ms=0, cursor=b"0-0", count=100)).deliveries
                good = [one for one in found if isinstance(one, Delivery) and one.stream == stream]
                run(calls.finish(QUEUE, stream, [calls.Settlement(one, State.SUCCEEDED, b"1") for one in good], **END))
        states = {task_id: run(calls.look(QUEUE, task_id)).state for task_id in IDS}
        assert all(state.ended or state is State.UNKNOWN for state in states.values()), states
        assert not redis("EXISTS", QUEUE.delayed, QUEUE.rooms, RULE, PLACES, ROOM)


def _message(task_id: str, level: int, delay_ms: int = 0) -> Message:
    options = b"" if level == 5 else Steering(level=level).encode()
    return Message(task_id, "t", "q", b"[]", delay_ms, options)


def _content(fields: list[bytes]) -> Content:
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    if b"id" not in named:
        return Content(None)
    counts = (int(named.get(name, least)) for name, least in ((b"fence", 0), (b"attempt", 1), (b"deaths", 0)))
    return Content(named[b"id"].decode(), *counts, level_of(named.get(b"options", b"")))


def _read(one: Delivery | Malformed) -> Content:
    if isinstance(one, Malformed):
        return Content(None)
    return Content(one.message.id, one.fence, one.attempt, one.deaths, level_of(one.message.options))


def _check(task_id: str, record: Record, found: dict[bytes, bytes], ttl_ms: int) -> None:
    assert found[b"state"].decode() == record.state, task_id
    assert int(found.get(b"fence", 0)) == record.fence, task_id
    assert int(found.get(b"attempt", 1)) == record.attempt, task_id
    assert int(found.get(b"deaths", 0)) == record.deaths, task_id
    assert found.get(b"failure", b"") == record.failure, task_id
    assert found.get(b"result", found.get(b"error", b"")) == record.body, task_id
    assert (b"ended" in found) == record.state.ended == (ttl_ms > 0), task_id
    assert found.get(b"waiters", b"").decode().split() == record.waiters, task_id
    if record.place:
        assert found[b"entry"] == record.place[1], task_id
        assert found.get(b"stream", b"").decode() == NAMES[record.place[0]], task_id
    in_the_record = record.state in (State.DELAYED, State.HELD)
    assert (b"args" in found) == in_the_record, task_id
    assert (b"more" in found) <= in_the_record, task_id


@pytest.mark.timeout(0)
def test_the_scripts_keep_to_the_model(any_server, connection):
    """Whatever order they are called in."""
    few = 80 if any_server.startswith("embedded") else 20
    chosen = settings(
        max_examples=EXAMPLES or few,
        stateful_step_count=40,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    play(type("OnServer", (Machine,), {"connection": connection}), settings=chosen)
    connection.client.execute_command("FLUSHALL")
