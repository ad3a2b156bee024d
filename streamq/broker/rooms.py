"""The rooms where tasks wait for their turn, as workers see them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from streamq._redis.connections import AsyncConnection
from streamq._redis.keys import Keys
from streamq.broker import turns
from streamq.message import Delivery

_WOKEN_MOST = 100  # in one room and step
_ROOMS_MOST = 20  # in one script: each may have as many that wait, and those that have places
_ALL_ROOMS = 250  # in one script that wakes at most a few in each


class Rooms:
    """Lets tasks begin, has them wait, and wakes them.

    Args:
        connection: for its commands.
        keys: those of the namespace.
    """

    def __init__(self, connection: AsyncConnection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    async def admit(self, asked: Sequence[tuple[Delivery, Sequence[turns.Stake]]]) -> list[int]:
        """Let deliveries begin, or have them wait; returns for each what `turns.admit` says."""
        replies = [turns.IS_ANOTHERS] * len(asked)
        by_stream: defaultdict[str, list[int]] = defaultdict(list)
        for position, (delivery, _) in enumerate(asked):
            by_stream[delivery.stream].append(position)
        for stream, positions in by_stream.items():
            queue = self._keys.queue(asked[positions[0]][0].message.queue)
            found = await self._connection.run(turns.admit(queue, stream, [asked[one] for one in positions]))
            for position, reply in zip(positions, found, strict=True):
                replies[position] = reply
        return replies

    async def sweep(self, queue: str, members: Sequence[str]) -> int | None:
        """Wake those that may go where the time to look has come; returns the ms until there is more to do."""
        keys, soonest = self._keys.queue(queue), None
        for first in range(0, len(members), _ROOMS_MOST):
            some = members[first : first + _ROOMS_MOST]
            found = await self._connection.run(turns.visit(keys, some, _WOKEN_MOST))
            if found:
                soonest = _sooner(soonest, await self._connection.run(turns.turn(keys, found)))
        return soonest

    async def leave(self, queue: str, ended: turns.Ended) -> int | None:
        """Free the places of tasks that ran, and wake those that may have them; returns the ms as `sweep` does."""
        keys, soonest, all_of_them = self._keys.queue(queue), None, list(ended.items())
        for first in range(0, len(all_of_them), _ALL_ROOMS):
            some = all_of_them[first : first + _ALL_ROOMS]
            looks = (turns.waiting(keys, member, len(ids) + 1) for member, ids in some)
            found = await self._connection.run_together(*looks)
            visits = [turns.Visit(member, ids, waits) for (member, ids), waits in zip(some, found, strict=True)]
            soonest = _sooner(soonest, await self._connection.run(turns.turn(keys, visits)))
        return soonest


def _sooner(one: int | None, other: int | None) -> int | None:
    return min((ms for ms in (one, other) if ms is not None), default=None)
