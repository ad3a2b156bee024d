"""`Endings`: the results of the parts of a flow, as they come."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from streamq.broker.flow_reads import Standing
from streamq.channels.listener import Listener
from streamq.channels.listener import Steps as Items
from streamq.flow_results.node import NodeResult
from streamq.flow_results.reader import FlowReader, state_of
from streamq.flow_results.waiting import Patience, Steps, rest
from streamq.lifecycle import State
from streamq.nodes import node_id
from streamq.refs import Refs, each

R = TypeVar("R")

_AT_A_TIME = 100


class Endings(Listener[NodeResult[R]]):
    """Gives the result of each part when it has ended, once, and comes to the end when all have.

    It waits where it stands: a loop that was left can be followed by another that goes on from there.

    Each step of a loop may raise:
        UnknownTaskId: there is no record of the flow.
        ResultTimeout: nothing new has ended for `timeout` seconds.
        BrokerError: Redis cannot be asked.

    Args:
        reader: of the flow.
        nodes: the parts; None: all of its tasks but callbacks that are not needed.
        timeout: seconds to wait for something new; None waits for as long as it takes.
    """

    def __init__(self, reader: FlowReader, nodes: Callable[[], Steps[Refs]] | None, *, timeout: float | None) -> None:
        super().__init__(reader.broker)
        self._reader = reader
        self._nodes = nodes
        self._timeout = timeout
        self._left: dict[int, int] = {}  # nodes, and their places
        self._ended: deque[int] = deque()
        self._total = 0
        self._looked_at = 0.0

    def _start(self) -> Callable[[], object]:
        stack = contextlib.ExitStack()
        stack.enter_context(self._reader.broker.doorbell.on_ring(self._reader.id, self._signal.set))
        return stack.close

    def _begin(self) -> Items[NodeResult[R]]:
        if self._nodes is not None:
            chosen = [*each((yield from self._nodes()))]
        else:
            standing = self._reader.known((yield from self._reader.look(1, 0)))
            of_tasks = yield from self._reader.tasks(range(standing.size))
            chosen = [node for node, of_task in of_tasks.items() if of_task.task]
        self._left = {node: index for index, node in enumerate(chosen)}
        self._total = len(chosen)
        return []

    def _more(self) -> Items[NodeResult[R]]:
        patience = Patience(self._timeout)
        while self._left and not self._is_closed:
            if self._ended and (items := (yield from self._take())):
                return items
            yield from rest(self._signal, self._looked_at, self._reader.size)
            self._signal.clear()
            self._looked_at = time.monotonic()
            self._learn((yield from self._reader.look(client=self._reader.broker.client_id)))
            if self._ended or not self._left:
                continue
            given = self._total - len(self._left)
            yield patience.pause(f"of flow {self._reader.id} {given} of {self._total} have ended, and no other")
        self.close()
        return None

    def _learn(self, standing: Standing) -> None:
        flow, characters = self._reader.known(standing).state, standing.states.ljust(standing.size)
        states = {character: state_of(character, flow) for character in set(characters)}
        for node in [node for node in self._left if states[characters[node]].ended]:
            if self._nodes is None and states[characters[node]] is State.SKIPPED:
                del self._left[node]
            else:
                self._ended.append(node)

    def _take(self) -> Items[NodeResult[R]]:
        """Make some results of what has ended, with their values."""
        asked = [self._ended[place] for place in range(min(len(self._ended), _AT_A_TIME))]
        found = yield from self._reader.values(asked)
        items = []
        for node, value in found.items():
            self._ended.popleft()
            kept = value if state_of(value.state, State.RUNNING) is State.SUCCEEDED else None
            index = self._left.pop(node)
            items.append(NodeResult[R](node_id(self._reader.id, node), node, index, self._reader, kept))
        return items
