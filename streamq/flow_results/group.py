"""`GroupResult`: what a caller knows of a group, and of each of its members."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TypeVar, overload

from streamq.broker.caller import Broker
from streamq.channels.listener import Listener
from streamq.flow_results.endings import Endings
from streamq.flow_results.node import NodeResult
from streamq.flow_results.reader import FlowReader, Types
from streamq.flow_results.result import FlowResult
from streamq.flow_results.statuses import FlowProgress, progress_of
from streamq.flow_results.waiting import Steps, afinish, finish
from streamq.nodes import node_id
from streamq.refs import Refs, count, each

R = TypeVar("R")


class Members(Sequence[NodeResult[R]]):
    """The results of the members of a group, in order; each is made when it is asked for."""

    def __init__(self, reader: FlowReader, nodes: Refs) -> None:
        self._reader = reader
        self._nodes = nodes
        self._ends = [*accumulate(count((one,)) for one in nodes)]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[NodeResult[R]]:
        for index, node in enumerate(each(self._nodes)):
            yield self._make(node, index)

    @overload
    def __getitem__(self, index: int) -> NodeResult[R]: ...
    @overload
    def __getitem__(self, index: slice) -> list[NodeResult[R]]: ...
    def __getitem__(self, index: int | slice) -> NodeResult[R] | list[NodeResult[R]]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        at = bisect_right(self._ends, place)
        run = self._nodes[at]
        before = self._ends[at - 1] if at else 0
        return self._make(run if isinstance(run, int) else run[0] + (place - before) * run[2], place)

    def __repr__(self) -> str:
        return f"<{len(self)} results of flow {self._reader.id}>"

    def _make(self, node: int, index: int) -> NodeResult[R]:
        return NodeResult(node_id(self._reader.id, node), node, index, self._reader)


class GroupResult(FlowResult[list[R]]):
    """The outcome, still to come or not, of a group of calls; its progress is that of its members.

    Args:
        flow_id: the flow's id.
        queue: the queue where its state is; None if that has to be found out.
        broker: where it is.
        types: what is known of its tasks.
        members: the nodes of the members; None if they have to be found out.
        duplicate: its id was known already.
    """

    def __init__(
        self,
        flow_id: str,
        queue: str | None,
        broker: Broker,
        types: Types | None = None,
        *,
        members: Refs | None = None,
        duplicate: bool = False,
    ) -> None:
        super().__init__(flow_id, queue, broker, types, duplicate=duplicate)
        self._members = members

    def _read_members(self) -> Steps[Refs]:
        if self._members is None:
            self._members = yield from self._reader.members()
        return self._members

    @property
    def results(self) -> Members[R]:
        """The results of the members, in order. Redis is asked only for those of a duplicate, and only once.

        Raises:
            UnknownTaskId: this is a duplicate, and there is no record of the flow.
            BrokerError: this is a duplicate, and Redis cannot be asked.
        """
        return Members(self._reader, finish(self._broker, self._read_members()))

    async def aresults(self) -> Members[R]:
        """Give the results of the members, as `results` does."""
        return Members(self._reader, await afinish(self._broker, self._read_members()))

    def as_completed(self, timeout: float | None = None) -> Listener[NodeResult[R]]:
        """Go through the results of the members as they end, as `FlowResult.as_completed` does with those of tasks.

        Their `NodeResult.index` says which member each one is of.
        """
        return Endings(self._reader, self._read_members, timeout=timeout)

    def _progress(self) -> Steps[FlowProgress]:
        members = yield from self._read_members()
        standing = self._reader.known((yield from self._reader.look()))
        characters = standing.states.ljust(standing.size)
        return progress_of((characters[node] for node in each(members)), standing.state)
