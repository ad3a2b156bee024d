"""The call that enqueues messages of several queues, all or none, or on terms. Pure: nothing is sent here.

It takes a second call where a lock is not free: the first finds who has it, and the second brings the keys of that
holder, for every key that a script touches is to be known to the server. So a call that finds its lock free, which is
the rule, takes one round trip, and nothing has to be read before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from streamq._redis.keys import GROUP, Keys, QueueKeys
from streamq._redis.scripts import Call, Word, load
from streamq.broker.turns import FAIR, order_member
from streamq.errors import BrokerError, BrokerRefused
from streamq.message import Lock, Message
from streamq.sending import level_of

_ENQUEUE_ALL = load("enqueue_all")
_OWN_KEYS = 3  # of each message; those that its terms bring come after them


class Put(NamedTuple):
    """What came of an enqueue.

    Attributes:
        queues: whose names are to be noted: those that are new, and those that had a message already, because the
            reply that said that they are new may have got lost.
        there: by position, of messages that were not put: the id of the task that is there in their place, their own
            if it was known, or that of the holder of their lock.
        seen: by position, of messages whose lock may be held: what it holds. If this call has seen any, no message was
            put, and the call is to be made again.
        seen_before: what calls before this one have seen.
    """

    queues: set[str]
    there: dict[int, str]
    seen: dict[int, str]
    seen_before: dict[int, str]


def enqueue_all(keys: Keys, messages: Sequence[Message], before: Put | None = None) -> Call[Put]:
    """Put messages on their queues, all or none; those with a known id are left alone.

    Args:
        keys: of the namespace.
        messages: what to put.
        before: what came of the same call before, if locks are to be looked up.
    """
    words: list[str] = []
    args: list[Word] = [GROUP]
    seen = before.seen_before | before.seen if before else {}
    for position, message in enumerate(messages):
        queue = keys.queue(message.queue)
        brought, terms = ([], "") if message.terms is None else _bring(queue, message, seen.get(position))
        words += (queue.levels[level_of(message.options)], queue.delayed, queue.record(message.id), *brought)
        if queue.log:
            words.append(queue.log)
        args += (queue.events, queue.name, message.id, message.task, message.args)
        args += (message.delay_ms, message.options, terms)

    if messages:
        words.append(keys.queue(messages[0].queue).log or words[0])

    def read(reply: list[list[Any]]) -> Put:
        noted, held, asked = reply
        there = {held[n]: held[n + 1].decode() for n in range(0, len(held), 2)}
        known = [position for position, task_id in there.items() if task_id == messages[position].id]
        found = {asked[n]: asked[n + 1].decode() for n in range(0, len(asked), 2)}
        return Put({messages[position].queue for position in (*noted, *known)}, there, found, seen)

    return Call(("EVALSHA", _ENQUEUE_ALL.digest, len(words), *words, *args), read, _ENQUEUE_ALL)


def have_terms(messages: Iterable[Message]) -> bool:
    """Tell whether any of these has to be put by the script that heeds terms."""
    return any(message.terms is not None for message in messages)


def _bring(queue: QueueKeys, message: Message, seen: str | None) -> tuple[list[str], str]:
    """Collect the keys that the terms of a message bring, and say in JSON what they are."""
    brought: list[str] = []
    said: dict[str, Any] = {"brings": []}
    if message.terms and message.terms.lock:
        said["lock"] = {"place": _OWN_KEYS + len(brought), **_lock_terms(message.terms.lock, message, seen)}
        brought += _lock_keys(message.terms.lock, queue, message, seen)
        said["brings"] += ("hash", "hash", "stream", "stream")
    if message.terms and message.terms.order is not None:
        member = order_member(message.terms.order)
        rule, _, places, room = queue.room(member)
        said["line"] = {"place": _OWN_KEYS + len(brought), "member": member}
        brought += (queue.rooms, rule, places, room)
        said["brings"] += ("zset", "hash", "hash", "zset")
    if message.terms and message.terms.share is not None:
        key, weight = message.terms.share
        rule, times, places, room = queue.room(FAIR)
        said["share"] = {"place": _OWN_KEYS + len(brought), "member": FAIR, "key": key, "weight": weight}
        brought += (queue.rooms, rule, places, room, times)
        said["brings"] += ("zset", "hash", "hash", "zset", "hash")
    return brought, json.dumps(said, separators=(",", ":"))


def _lock_keys(lock: Lock, queue: QueueKeys, message: Message, seen: str | None) -> list[str]:
    """List the keys of a lock; as long as its holder is not known, those of the message itself stand in for its."""
    level, _, holder = (seen or _lock_value(message)).partition(":")
    return [queue.lock(lock.name), queue.record(holder), queue.levels[int(level)], queue.returned]


def _lock_terms(lock: Lock, message: Message, seen: str | None) -> dict[str, Any]:
    said = {"rule": lock.rule, "ttl": lock.ttl_ms, "value": _lock_value(message)}
    more = {"renews": lock.renews or None, "longest": lock.longest_ms, "seen": seen}
    return said | {name: value for name, value in more.items() if value is not None}


def _lock_value(message: Message) -> str:
    """Make what a lock holds: where its holder is, for those who want to know whether it still is."""
    return f"{level_of(message.options)}:{message.id}"


def clarified(error: BrokerError, messages: Sequence[Message]) -> BrokerError:
    """Say what it means when a cluster refuses keys of different slots; any other error says it itself."""
    if "hash to the same slot" not in str(error):  # the server's words, but for the first, which redis-py takes away
        return error
    queues = ", ".join(sorted({message.queue for message in messages}))
    return BrokerRefused(
        f"a Redis Cluster takes no transaction over the queues {queues}, which lie in different slots;"
        " nothing was enqueued"
    )
