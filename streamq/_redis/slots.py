"""Which node of a Redis Cluster a call goes to, and what follows when it says that another has the slot.

Pure: the steps here are done by the connections in ``cluster.py``, on an event loop or in threads.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, TypeVar

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, MovedError

from streamq._redis.scripts import Call
from streamq._redis.urls import Address
from streamq.errors import BrokerError, BrokerUnavailable

T = TypeVar("T")

_MOST_HOPS = 5
_AWAY_SECONDS = 5.0  # for which a node that has failed is asked last

_SLOTS: Call[Any] = Call(("CLUSTER", "SLOTS"), lambda reply: reply)
ASKING: Call[Any] = Call(("ASKING",), lambda reply: reply)


class Sent(NamedTuple):
    """A step: send a call to a node; `asking`: which is only about to get the slot."""

    address: Address
    call: Call[Any]
    asking: bool = False


Steps = Generator[Sent, Any, T]


def slot_of(call: Call[Any]) -> int:
    """The slot of the first key, or of the channel, of a call; of one that has neither, any."""
    words = call.words
    at = 3 if words[0] in ("EVALSHA", "EVAL") else 1
    if len(words) <= at:
        return random.randrange(REDIS_CLUSTER_HASH_SLOTS)  # noqa: S311 - spreads load
    return slot_of_name(words[at])


def slot_of_name(name: object) -> int:
    """The slot of a key or a channel."""
    return key_slot(name if isinstance(name, bytes) else str(name).encode())


def is_redirect(error: BrokerError) -> bool:
    """Tell whether a node said that another has the slot."""
    return isinstance(error.__cause__, AskError)


class Slots:
    """What is known of the nodes of a cluster. May be used from any thread.

    Args:
        seeds: nodes to begin with.
    """

    def __init__(self, seeds: Sequence[Address]) -> None:
        self._seeds = tuple(seeds)
        self._owners: list[Address | None] = []
        self._masters: tuple[Address, ...] = ()
        self._others: tuple[Address, ...] = ()
        self._away: dict[Address, float] = {}
        self._is_stale = True

    def forget(self) -> None:
        """Look anew who has which slots, before anything is sent."""
        self._is_stale = True

    def lost(self, address: Address) -> None:
        """Note that a node has failed: another may have its slots by now."""
        self._away[address] = time.monotonic() + _AWAY_SECONDS
        self._is_stale = True

    def _is_away(self, address: Address) -> bool:
        return self._away.get(address, 0.0) > time.monotonic()

    def address_of(self, call: Call[Any]) -> Address:
        """The node that a call goes to.

        What is published for all nodes goes to any: always the same for a channel, so that its order holds, and
        another while that one is away.

        Raises:
            BrokerUnavailable: nobody has the slot.
        """
        slot = slot_of(call)
        if call.words[0] == "PUBLISH":
            first = slot % len(self._masters)
            turns = (*self._masters[first:], *self._masters[:first])
            return next((one for one in turns if not self._is_away(one)), turns[0])
        return self.owner(slot)

    def owner(self, slot: int) -> Address:
        """The node that has a slot.

        Raises:
            BrokerUnavailable: nobody has it.
        """
        address = self._owners[slot]
        if address is None:
            self._is_stale = True
            raise BrokerUnavailable(f"no node of the cluster has slot {slot}")
        return address

    def any(self, *, but: Address | None) -> Address:
        """A node that is not known to be away, and not `but`, if there is one."""
        best = self._best_first(self._masters)
        return next((address for address in best if address != but), best[0])

    def _best_first(self, addresses: Sequence[Address]) -> list[Address]:
        mixed = random.sample(addresses, len(addresses))
        return sorted(mixed, key=self._is_away)

    def look_up(self) -> Steps[None]:
        """Ask the nodes, one after the other, who has which slots; nothing is asked while that is known.

        Raises:
            BrokerError: none of them says.
        """
        if not self._is_stale:
            return
        error = BrokerUnavailable("no node of the cluster knows who has the slots")
        known = self._best_first(self._masters) + self._best_first(self._others) + self._best_first(self._seeds)
        for address in sorted(dict.fromkeys(known), key=self._is_away):
            try:
                reply = yield Sent(address, _SLOTS)
            except BrokerUnavailable as failure:
                self._away[address] = time.monotonic() + _AWAY_SECONDS
                error = failure
                continue
            if self._learn(reply, address):
                return
        raise error

    def _learn(self, reply: list[Any], asked: Address) -> bool:
        owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        others: set[Address] = set()
        for first, last, master, *replicas in reply:
            owners[first : last + 1] = [_address(master, asked)] * (last - first + 1)
            others |= {_address(replica, asked) for replica in replicas}
        masters = sorted({owner for owner in owners if owner is not None})
        if not masters:
            return False
        self._owners, self._masters, self._others = owners, tuple(masters), tuple(others - set(masters))
        self._is_stale = False
        return True

    def redirected(self, sent: Sent, error: BrokerError) -> Sent:
        """Say where to send again what a node has redirected.

        Raises:
            BrokerError: `error`, which is no redirect.
        """
        cause = error.__cause__
        if isinstance(cause, AskError):
            address = Address(cause.host or sent.address.host, cause.port)
            has_moved = isinstance(cause, MovedError)
            if has_moved:
                self._owners[cause.slot_id] = address
            return Sent(address, sent.call, asking=not has_moved)
        if isinstance(error, BrokerUnavailable):
            self.lost(sent.address)
        raise error

    def deliver(self, call: Call[T]) -> Steps[T]:
        """Send a call to the node that has its slot, and wherever that says it is to go.

        Raises:
            BrokerError: as `SyncConnection.run`.
        """
        yield from self.look_up()
        sent = Sent(self.address_of(call), call)
        for _ in range(_MOST_HOPS):
            try:
                answer: T = yield sent
            except BrokerError as error:
                sent = self.redirected(sent, error)
            else:
                return answer
        self._is_stale = True
        raise BrokerUnavailable("the nodes of the cluster do not agree who has a slot")


def _address(node: Sequence[Any], asked: Address) -> Address:
    """Read where a node is; one that does not know its own name is where it was asked."""
    host = node[0].decode() if node[0] else ""
    return Address(host if host and host != "?" else asked.host, node[1])
