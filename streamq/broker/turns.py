"""The calls that let tasks begin, or have them wait for their turn. Pure: nothing is sent here.

What tasks wait for is a member of their queue's rooms, such as ``limit:NAME:KEY``: it has places, and a room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from streamq._redis.keys import GROUP, QueueKeys
from streamq._redis.scripts import Call, Word, load
from streamq.limits import Limit, Rule, rule_of, weighed_limit
from streamq.message import Delivery, Message
from streamq.sending import Steering, read_steering

_ADMIT = load("admit")
_VISIT = load("visit")
_TURN = load("turn")
_SETTLE_WEIGHT = load("settle_weight")

MAY_BEGIN = -1
IS_ANOTHERS = -2
_NOTHING = Steering()


class Stake(NamedTuple):
    """What a delivery needs of one limit.

    Attributes:
        member: the limit, with the key if it is by key.
        rule: what the limit says.
        units: of its rate.
    """

    member: str
    rule: Rule
    units: float


class Visit(NamedTuple):
    """What was found at one member of the rooms.

    Attributes:
        member: which one.
        placed: ids of tasks that may have lost their places.
        waiting: ids of the first that wait.
    """

    member: str
    placed: Sequence[str]
    waiting: Sequence[str]


def stakes_of(rules: Sequence[Rule], message: Message) -> tuple[Stake, ...]:
    """Say what a message needs of limits; what it does not say, because an older version made it, is as without key."""
    if not any(rule.asks for rule in rules):
        return tuple(Stake(limit_member(rule.name), rule, 1.0) for rule in rules)
    said = {name: (key, units) for name, key, units in steering_of(message).limits}
    found = ((rule, *said.get(rule.name, ("", 1.0))) for rule in rules)
    return tuple(Stake(limit_member(rule.name, key), rule, units) for rule, key, units in found)


def steering_of(message: Message) -> Steering:
    """Read what workers are to heed; nothing if somebody else has written something there."""
    try:
        return read_steering(message.options)
    except (ValueError, TypeError):
        return _NOTHING


def limit_member(name: str, key: str = "") -> str:
    """Name a limit among the rooms of its queue."""
    return f"limit:{name}:{key}" if key else f"limit:{name}"


def order_member(key: str) -> str:
    """Name the line of an ordering key among the rooms of its queue."""
    return f"order:{key}"


FAIR = "fair"
"""The member of the rooms for calls that take turns; what has the name of a rate in others holds the times of keys."""


def admit(queue: QueueKeys, stream: str, asked: Sequence[tuple[Delivery, Sequence[Stake]]]) -> Call[list[int]]:
    """Let deliveries that all came from `stream` begin, or have them wait.

    Returns for each `MAY_BEGIN`, `IS_ANOTHERS`, or the ms until one looks whether it may go.
    """
    keys = [queue.rooms, stream]
    args: list[Word] = [GROUP, queue.events, queue.name]
    for delivery, stakes in asked:
        keys.append(queue.record(delivery.message.id))
        args += (delivery.entry, delivery.fence, delivery.message.id, delivery.enqueued_ms, len(stakes))
        for member, rule, units in stakes:
            keys += queue.room(member)
            args += (member, repr(rule.pace_ms), repr(rule.burst), rule.concurrency, repr(units))
    keys.append(queue.log or keys[0])
    return Call(("EVALSHA", _ADMIT.digest, len(keys), *keys, *args), list, _ADMIT)


def waiting(queue: QueueKeys, member: str, count: int) -> Call[list[str]]:
    """Read the first that wait in one room."""
    _, _, _, room = queue.room(member)
    return Call(("ZRANGE", room, 0, count - 1), _texts)


def visit(queue: QueueKeys, members: Sequence[str], count: int) -> Call[list[Visit]]:
    """Look into rooms, if their time has come and no other worker does so; at most `count` that wait in each."""
    keys = [queue.rooms]
    for member in members:
        _, _, places, room = queue.room(member)
        keys += (places, room)

    def read(reply: list[list[list[bytes]]]) -> list[Visit]:
        found = zip(members, reply, strict=True)
        return [Visit(member, *map(_texts, both)) for member, both in found if both]

    return Call(("EVALSHA", _VISIT.digest, len(keys), *keys, count, *members), read, _VISIT)


def turn(queue: QueueKeys, visits: Sequence[Visit]) -> Call[int | None]:
    """Wake those whose turn it is; returns the ms until one of these rooms is to be looked at again."""
    keys = [queue.rooms, queue.returned]
    args: list[Word] = [GROUP, queue.events, queue.name]
    for member, placed, waits in visits:
        keys += queue.room(member)
        keys += map(queue.record, (*placed, *waits))
        args += (member, len(placed), len(waits), *placed, *waits)
    keys.append(queue.log or keys[0])

    def read(reply: int) -> int | None:
        return None if reply < 0 else reply

    return Call(("EVALSHA", _TURN.digest, len(keys), *keys, *args), read, _TURN)


def weighed_stake(delivery: Delivery, limits: Sequence[Limit], units: float, name: str | None) -> Stake:
    """Find what a delivery has of the limit whose weight is to be settled.

    Raises:
        ConfigError: there is no such limit, or units are no number.
    """
    [stake] = stakes_of([rule_of(weighed_limit(delivery.message.task, limits, units, name))], delivery.message)
    return stake


def settle_weight(queue: QueueKeys, delivery: Delivery, stake: Stake, units: float) -> Call[bool]:
    """Have a run count as `units` of a limit's rate, and not as what it began with; False if it is another's by now."""
    _, rate, _, _ = queue.room(stake.member)
    keys = [queue.rooms, queue.record(delivery.message.id), rate]
    args: list[Word] = [stake.member, delivery.fence, repr(stake.rule.pace_ms), repr(stake.units), repr(units)]
    return Call(("EVALSHA", _SETTLE_WEIGHT.digest, len(keys), *keys, *args), bool, _SETTLE_WEIGHT)


def _texts(words: Sequence[Any]) -> list[str]:
    return [word.decode() for word in words]


Ended = Mapping[str, Sequence[str]]
"""Ids of tasks that ran, by the members whose places they had."""
