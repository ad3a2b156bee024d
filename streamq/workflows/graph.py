"""`Graph`: draws a flow from its last part to its first, some nodes at a time, so that it may be of any size.

The node with a part's value has its number before the part is drawn, so that those that come after can name it; what a
part tells when it has ended is known when it is drawn. Only single nodes wait until what is before or in them is drawn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from streamq.broker.producer import new_task_id
from streamq.checks import is_number
from streamq.codec import CallCodec
from streamq.config import DEFAULT_QUEUE
from streamq.errors import ConfigError, FlowError, PayloadTooLarge
from streamq.latest import current_broker
from streamq.message import Message
from streamq.nodes import Chunk, FlowPart, Like, NodeState, encode_args
from streamq.refs import Refs, encode_refs
from streamq.sending import SendOptions, with_flow
from streamq.workflows.callers import Callee, Caller
from streamq.workflows.edges import MOST_ROOTS, After, Before, Ends, Heads, edge_text
from streamq.workflows.scope import Scope, over
from streamq.workflows.tails import misfit

T = TypeVar("T")
Drawn = Generator[None, None, T]
"""Yields where what was drawn may be taken, and returns."""

_MOST_NODES = 200
_MOST_BYTES = 256 * 1024
_MOST_KNOWN = 256  # of what is remembered so that it need not be made again
_LONGEST_LABEL = 80
TOO_DEEP = "the graph cannot be drawn: a part contains itself, or there are too many parts within parts"


@dataclass(slots=True)
class Spot:
    """Where a part is drawn.

    Attributes:
        out: the number of the node that has its value.
        before: what comes before it.
        after: what comes after it.
        ends: is told the task nodes whose end is its end.
        scope: options for all that is in it.
    """

    out: int
    before: Before
    after: After
    ends: Ends
    scope: Scope


class Part(Protocol):
    """What can be drawn."""

    chosen: SendOptions

    def draw(self, graph: Graph, spot: Spot) -> Drawn[Heads]:
        """Draw it, with its callbacks."""

    def first(self, common: SendOptions) -> Caller | None:
        """Find the first call in it, in reading order, with all options; None: there is no call."""

    def needs_time(self) -> bool:
        """Something that is said of it counts from the start of the flow."""

    def last(self) -> Callee | None:
        """Find the task whose result is its value; None: that is a list."""

    def label(self) -> str:
        """Name it for people."""


class Graph:
    """The nodes of one flow, to be stored chunk by chunk.

    Args:
        part: what is to be run.
        options: for all of it, from outside; it may have others of its own.
        root: the id of the outermost flow, if this one is run in place of a task; it may be this one.
        flow_id: its own id; None: a new one.
        home: the queue in whose slot its state is to be; None: that of its first task.

    Attributes:
        broker: where it goes; without any task, that of the current app.
        size: how many nodes it has, when all is drawn.
        roots: the task nodes it begins with and their levels, if all of them are on home, without terms, and few.
        tasks: those that are called, by name, as far as they are drawn.
        needs_time: something that is said of it, or of a part of it, counts from its start.
        last: the task whose result is the value of the flow; None: that is a list, or that of a join.
        members: the nodes whose values its own is the list of; None: it is no list, or that is not drawn yet.
    """

    def __init__(
        self, part: Part, options: SendOptions, *, root: str | None, flow_id: str | None, home: str | None
    ) -> None:
        first = part.first(options)
        self.home = home or (options.get("queue") or DEFAULT_QUEUE if first is None else first.queue)
        self.broker = current_broker() if first is None else first.task.broker
        self.flow_id = flow_id or new_task_id()
        label = part.label()
        self.label = label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"
        self.last = part.last()
        self.out = 0
        self.size = 0
        self.members: Refs | None = None
        self.roots: list[tuple[int, int]] = []
        self.tasks: dict[str, Callee] = {}
        self.needs_time = is_number(options.get("expires")) or part.needs_time()
        self._part = part
        self._options = options
        self._root = root
        self._begin_ms: int | None = None
        self._fields: list[tuple[str, bytes]] = []
        self._nodes: list[int] = []
        self._bytes = 0
        self._likes = 0
        self._known_likes: dict[tuple[Any, ...], int] = {}
        self._known_callers: dict[tuple[Caller, Scope], Caller] = {}
        self._known_misfits: dict[tuple[Any, ...], str | None] = {}

    def chunks(self, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> Iterator[Chunk]:
        """Draw it; can be done once.

        Args:
            now_ms: gives the time, by the clock of Redis if possible, from which on what was said to expire in seconds
                does so. It is asked at most once.

        Raises:
            FlowError: it cannot be run.
            PayloadTooLarge: a call has arguments over the limit.
            ConfigError: options that do not go together have come together.
        """

        def begin() -> int:
            self._begin_ms = now_ms() if self._begin_ms is None else self._begin_ms
            return self._begin_ms

        self.number()
        scope = Scope({}, begin).within(self._options)
        ends = Ends()
        drawing = self._part.draw(self, Spot(self.out, Before((), 1, Ends(is_known=True)), After(), ends, scope))
        while True:
            try:
                next(drawing)
            except StopIteration as end:
                heads: Heads = end.value
                break
            except RecursionError:
                raise FlowError(TOO_DEEP) from None
            yield self._take()
        ends.close()
        self.roots = list(heads.plain) if heads.are_all and len(heads.plain) <= MOST_ROOTS else []
        self._field("start", b'{"to":%b}' % encode_refs(heads.to))
        yield self._take()

    def number(self) -> int:
        """Give the next number."""
        self.size += 1
        return self.size - 1

    @property
    def is_full(self) -> bool:
        """What is drawn is enough for a chunk."""
        return len(self._fields) >= _MOST_NODES or self._bytes >= _MOST_BYTES

    def _field(self, name: str, value: bytes) -> None:
        self._fields.append((name, value))
        self._bytes += len(value)

    def _take(self) -> Chunk:
        states: list[tuple[int, str]] = []
        first = last = -1
        for node in sorted(self._nodes):
            if node != last + 1 or last < 0:
                if last >= 0:
                    states.append((first, NodeState.WAITING * (last + 1 - first)))
                first = node
            last = node
        if last >= 0:
            states.append((first, NodeState.WAITING * (last + 1 - first)))
        chunk = Chunk(self._fields, states)
        self._fields, self._nodes, self._bytes = [], [], 0
        return chunk

    def join(self, node: int, policy: str, inputs: Refs, deps: int, after: After) -> None:
        """Draw a join."""
        if node == self.out:
            self.members = inputs
        self._node(node, b'"join":"%b"%b' % (policy.encode(), edge_text(b"in", inputs)), deps, after)

    def _node(self, node: int, said: bytes, deps: int, after: After) -> None:
        number = b"" if deps == 1 else b',"deps":%d' % deps
        self._field(str(node), b"{%b%b%b}" % (said, after.text, number))
        self._nodes.append(node)

    def task(self, caller: Caller, message: Message, spot: Spot, *, has_inputs: bool) -> Heads:
        """Draw a call; its arguments are the whole call, or a tail if it has inputs."""
        self.tasks.setdefault(message.task, caller.task)
        before = spot.before
        like = self._like(message, before, spot.after)
        inputs = before.text if has_inputs else b""
        self._node(
            spot.out, b'"like":%d,"args":%b%b' % (like, encode_args(message.args), inputs), before.deps, spot.after
        )
        spot.ends.add(spot.out)
        here = (spot.out,)
        is_plain = message.queue == self.home and message.terms is None
        return Heads(here, here, ((spot.out, caller.level),) if is_plain else (), is_plain)

    def check(self, caller: Caller) -> None:
        """See that a call can be a part of this flow.

        Raises:
            FlowError: it cannot.
        """
        task = caller.task
        if task.broker is not self.broker:
            raise FlowError(f"task {task.name} is of another app than the first task")
        if caller.only_one is not None:
            raise FlowError(f"task {task.name} is {caller.only_one.name}: it cannot be a part of a flow")
        if caller.task_id is not None:
            raise FlowError(f"{task.name}(): a task of a flow has no task_id of its own; set it on the whole")
        if caller.durability is not None:
            raise FlowError(f"{task.name}(): a task of a flow has no durability of its own; set it on the whole")

    def _like(self, message: Message, before: Before, after: After) -> int:
        key = (message.task, message.queue, message.delay_ms, message.options, message.terms, before, after)
        known = self._known_likes.get(key)
        if known is not None:
            return known
        number = self._likes
        self._likes += 1
        _remember(self._known_likes, key, number)
        is_home = message.queue == self.home

        def write(parents: Refs) -> None:
            part = FlowPart(
                home=self.home,
                root=self._root,
                parents=parents,
                children=after.children,
                next=after.next if is_home else (),
                group=after.policy,
            )
            queue = None if is_home else message.queue
            options = with_flow(message.options, part)
            like = Like(task=message.task, options=options, queue=queue, delay_ms=message.delay_ms, terms=message.terms)
            self._field(f"like:{number}", like.encode())

        before.ends.when_known(write)
        return number

    def caller_in(self, caller: Caller, scope: Scope) -> Caller:
        """Give a caller the options of a scope that it has none of its own for."""
        if not scope.options:
            return caller
        key = (caller, scope)
        known = self._known_callers.get(key)
        if known is None:
            known = caller.choosing(over(scope.options, caller.chosen))
            _remember(self._known_callers, key, known)
        return known

    def misfit(self, codec: CallCodec, leading: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
        """Say why a function does not take so many values and these arguments; None if it does."""
        key = (codec, leading, len(args), tuple(kwargs))
        if key not in self._known_misfits:
            _remember(self._known_misfits, key, misfit(codec, leading, args, kwargs))
        return self._known_misfits[key]


def _remember(known: dict[Any, Any], key: Any, value: Any) -> None:
    if len(known) >= _MOST_KNOWN:
        known.clear()
    known[key] = value


def placed(error: Exception, place: str) -> Exception:
    """Say in an error where in the graph it is."""
    return type(error)(f"{place}: {error}")


MISPLACED = (FlowError, PayloadTooLarge, ConfigError)
"""Errors that get their place."""
