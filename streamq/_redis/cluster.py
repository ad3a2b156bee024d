"""Connections to a Redis Cluster: each call goes to the node that has its slot.

To each node there is a connection as to any single server, so that scripts, replies, timeouts and errors are dealt with
by the same lines, and one policy says what follows. redis-py's own clients of clusters retry by rules of their own,
take pipelines apart, and put them together again: to hold them to that policy takes more than to ask who has which
slot, and to follow where a node says that another has it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from tenacity import AsyncRetrying, Retrying

from streamq._redis.connections import PATIENCE, AsyncConnection, SyncConnection
from streamq._redis.failures import judge
from streamq._redis.pools import READ_SECONDS
from streamq._redis.scripts import Call
from streamq._redis.slots import ASKING, Sent, Slots, Steps, is_redirect, slot_of_name
from streamq._redis.steps import adrive, drive
from streamq._redis.urls import Address, read_cluster
from streamq.errors import BrokerError, BrokerUnavailable

T = TypeVar("T")

_FAILURES = (RedisError, OSError)
_LAST: Call[str] = Call(("PING",), bytes.decode)


def _whole(call: Call[T]) -> Call[T]:
    """A call that needs no script to be there: what is asked of a node but once has to be answered at once."""
    return replace(call, words=call.with_text, script=None) if call.script else call


class SyncCluster:
    """Runs calls from threads; otherwise as `SyncConnection`.

    Args:
        url: where some nodes of the cluster are.
        read_timeout: seconds to wait for a reply.
        patient: try again for some seconds when a node is away, instead of raising at once.
    """

    def __init__(self, url: str, *, read_timeout: float = READ_SECONDS, patient: bool = False) -> None:
        self._place = read_cluster(url)
        self._read_timeout = read_timeout
        self._patient = patient
        self._slots = Slots(self._place.seeds)
        self._lock = threading.Lock()
        self._nodes: dict[Address, SyncConnection] = {}
        self._lines: dict[Any, tuple[Address, SyncConnection]] = {}
        self._left: Address | None = None
        self._is_failing = False  # the line that is hung up next has failed

    def node(self, address: Address) -> SyncConnection:
        """The connection to one node."""
        with self._lock:
            if address not in self._nodes:
                url = self._place.url_of(address)
                self._nodes[address] = SyncConnection(url, read_timeout=self._read_timeout)
            return self._nodes[address]

    def run(self, call: Call[T]) -> T:
        """Send `call` to the node that has its slot, and read its reply; raises as `SyncConnection.run`."""
        try:
            return self._deliver(call)
        except BrokerUnavailable:
            if not self._patient:
                raise
        result: T = Retrying(**PATIENCE)(self._deliver, call)
        return result

    def _deliver(self, call: Call[T]) -> T:
        return self._follow(self._slots.deliver(call))

    def look_up(self, *, anew: bool) -> None:
        """Ask the nodes who has which slots, if that is not known or may have changed.

        Raises:
            BrokerError: none of them says.
        """
        if anew:
            self._slots.forget()
        self._follow(self._slots.look_up())

    def owner(self, name: str) -> Address:
        """Tell which node has the slot of a channel, as was last looked up.

        Raises:
            BrokerUnavailable: nobody has it.
        """
        return self._slots.owner(slot_of_name(name))

    def _follow(self, steps: Steps[T]) -> T:
        return drive(steps, self._answer)

    def _answer(self, sent: Sent) -> Any:
        node = self.node(sent.address)
        if not sent.asking:
            return node.run(sent.call)
        (_, answer), _ = node.run_confirmed((ASKING, _whole(sent.call)), _LAST)
        return answer

    def line(self) -> Any:
        """Open a socket to any node for one who listens, to another than the last that was closed.

        Raises:
            RedisError: of redis-py, or a socket's error, as `SyncConnection.line`.
        """
        try:
            self._follow(self._slots.look_up())
        except BrokerError as error:
            raise error.__cause__ or RedisConnectionError(str(error)) from error
        address = self._slots.any(but=self._left)
        try:
            node = self.node(address)
            line = node.line()
        except _FAILURES:
            self._slots.lost(address)
            raise
        self._is_failing = False
        self._lines[line] = address, node
        return line

    def hang_up(self, line: Any) -> None:
        """Close a socket that was opened by `line`."""
        self._left, node = self._lines.pop(line)
        if self._is_failing:
            self.lost(self._left)
        node.hang_up(line)

    def failed(self, error: Exception) -> BrokerError:
        """Return what `error` means to one who listens."""
        self._is_failing = True
        return judge(error).error(error)

    def lost(self, address: Address) -> None:
        """Note that a node has failed: others are asked first, and anew, who has which slots."""
        self._slots.lost(address)

    def close(self) -> None:
        """Close every socket."""
        with self._lock:
            nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            node.close()


class AsyncCluster:
    """Runs calls on one event loop; otherwise as `SyncCluster`."""

    def __init__(self, url: str, *, read_timeout: float = READ_SECONDS, patient: bool = False) -> None:
        self._place = read_cluster(url)
        self._read_timeout = read_timeout
        self._patient = patient
        self._slots = Slots(self._place.seeds)
        self._nodes: dict[Address, AsyncConnection] = {}

    def _node(self, address: Address) -> AsyncConnection:
        if address not in self._nodes:
            self._nodes[address] = AsyncConnection(self._place.url_of(address), read_timeout=self._read_timeout)
        return self._nodes[address]

    async def run(self, call: Call[T]) -> T:
        """Send `call` to the node that has its slot, and read its reply; raises as `SyncConnection.run`."""
        try:
            return await self._deliver(call)
        except BrokerUnavailable:
            if not self._patient:
                raise
        result: T = await AsyncRetrying(**PATIENCE)(self._deliver, call)
        return result

    async def _deliver(self, call: Call[T]) -> T:
        return await self._follow(self._slots.deliver(call))

    async def run_each(self, calls: Sequence[Call[T]]) -> list[T | BrokerError]:
        """Send calls, in one round trip to each node; those of one slot are carried out in their order.

        Returns:
            For each its answer, or its error: `BrokerUnavailable` for those whose node is away.
        """
        answers: dict[int, T | BrokerError] = {}
        left = list(range(len(calls)))

        async def attempt() -> None:
            found = await self._run_each_once([calls[n] for n in left])
            answers.update(zip(left, found, strict=True))
            left[:] = [n for n in left if isinstance(answers[n], BrokerUnavailable)]
            for n in left[:1]:
                raise answers[n]  # type: ignore[misc]  # it is an error, as left says

        try:
            await (AsyncRetrying(**PATIENCE)(attempt) if self._patient else attempt())
        except BrokerUnavailable as error:
            for n in range(len(calls)):
                answers.setdefault(n, error)
        return [answers[n] for n in range(len(calls))]

    async def _run_each_once(self, calls: Sequence[Call[T]]) -> list[T | BrokerError]:
        await self._follow(self._slots.look_up())
        places: dict[Address, list[int]] = {}
        answers: dict[int, T | BrokerError] = {}
        for n, call in enumerate(calls):
            try:
                places.setdefault(self._slots.address_of(call), []).append(n)
            except BrokerUnavailable as error:
                answers[n] = error
        for some in await asyncio.gather(
            *(self._run_at(address, [(n, calls[n]) for n in numbers]) for address, numbers in places.items())
        ):
            answers |= some
        for n in sorted(answers):
            answer = answers[n]
            if isinstance(answer, BrokerError) and is_redirect(answer):
                try:
                    value: T = await self._deliver(calls[n])
                    answers[n] = value
                except BrokerError as error:
                    answers[n] = error
        return [answers[n] for n in range(len(calls))]

    async def _run_at(self, address: Address, calls: Sequence[tuple[int, Call[T]]]) -> dict[int, T | BrokerError]:
        numbers = [n for n, _ in calls]
        try:
            found = await self._node(address).run_each([call for _, call in calls])
        except BrokerUnavailable as error:
            self._slots.lost(address)
            return {n: type(error)(*error.args) for n in numbers}
        return dict(zip(numbers, found, strict=True))

    async def _follow(self, steps: Steps[T]) -> T:
        return await adrive(steps, self._answer)

    async def _answer(self, sent: Sent) -> Any:
        node = self._node(sent.address)
        if not sent.asking:
            return await node.run(sent.call)
        (_, answer), _ = await node.run_confirmed((ASKING, _whole(sent.call)), _LAST)
        return answer

    async def close(self) -> None:
        """Close every socket."""
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            await node.close()
