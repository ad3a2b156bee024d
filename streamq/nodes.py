"""The nodes of a flow as they are stored, and what of the flow travels with a node's message. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, Literal, NamedTuple, Protocol, get_args

from streamq.message import Share, Terms
from streamq.refs import Refs, each, read_refs

Policy = Literal["fail", "collect", "continue"]
POLICIES: tuple[str, ...] = get_args(Policy)

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class NodeState(StrEnum):
    """The characters of the states of nodes."""

    NONE = " "
    WAITING = "w"
    RELEASED = "r"
    """Its task is enqueued, or will be."""
    SUCCEEDED = "s"
    FAILED = "f"
    DEAD = "d"
    CANCELLED = "c"
    EXPIRED = "x"
    UPSTREAM_FAILED = "k"
    """It did not begin, because something that it needs has failed."""
    OMITTED = "o"
    """It did not begin, for there was no need: a callback for what did not happen."""


def node_id(flow_id: str, node: int | str) -> str:
    """Make the id of the task of a node."""
    return f"{flow_id}.{node}"


def split_id(task_id: str) -> tuple[str, str]:
    """Take the id of the task of a node apart: the flow's, and the node."""
    flow_id, _, node = task_id.rpartition(".")
    return flow_id, node


def node_ids(flow_id: str, refs: Refs) -> tuple[str, ...]:
    """Make the ids of the tasks of nodes."""
    return tuple(node_id(flow_id, node) for node in each(refs))


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowPart:
    """Where a message stands in its flow, as its options say it.

    Attributes:
        home: the queue in whose slot the state of the flow lives.
        root: the id of the outermost flow, in one that is run in place of a task; None: it is the flow itself.
        parents: the task nodes whose end releases it.
        children: the task nodes that may follow directly.
        next: up to 4 of them that are on home and have no terms, with their priority level; only of a node on home.
        group: the policy of the join that it is a direct member of; None: it is none.
    """

    home: str
    root: str | None = None
    parents: Refs = ()
    children: Refs = ()
    next: tuple[tuple[int, int], ...] = ()
    group: str | None = None

    def plain(self) -> dict[str, Any]:
        """Give what JSON is made of; defaults are left out."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) not in (None, ())}

    def place(self) -> dict[str, Any]:
        """Give what events say of it."""
        return {name: value for name, value in self.plain().items() if name in ("root", "parents", "children")}


def read_flow_part(said: Any) -> FlowPart:
    """Read what JSON has; what newer versions say is passed over.

    Raises:
        ValueError: it cannot be read.
    """
    if not isinstance(said, dict) or not isinstance(said.get("home"), str):
        raise ValueError("flow is no object with a home")  # noqa: TRY004 - as json.loads says it
    return FlowPart(
        home=said["home"],
        root=said.get("root"),
        parents=read_refs(said.get("parents", [])),
        children=read_refs(said.get("children", [])),
        next=tuple((int(node), int(level)) for node, level in said.get("next", ())),
        group=said.get("group"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """What a node is tied to.

    Attributes:
        inputs: the nodes whose values it needs, in order: a task as its first arguments, a join for its list.
        to: what is told when it has succeeded.
        err: what is told when it has ended in another way.
        deps: how many it waits for.
    """

    inputs: Refs = ()
    to: Refs = ()
    err: Refs = ()
    deps: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec(Edges):
    """A task node.

    Attributes:
        like: the number of what it shares with others.
        args: the encoded call; if there are inputs its tail, which follows their values.
    """

    like: int
    args: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Join(Edges):
    """A node without a task; its value is the list of its inputs' values.

    Attributes:
        policy: what it makes of inputs that have not succeeded.
    """

    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Like:
    """What task nodes share.

    Attributes:
        task: the name.
        options: those of the messages, encoded.
        queue: where they go; None: home.
        delay_ms: how long they wait when they are released, as `Message.delay_ms`.
        terms: of their enqueue.
    """

    task: str
    options: bytes
    queue: str | None = None
    delay_ms: int = 0
    terms: Terms | None = None

    def encode(self) -> bytes:
        """Write it as JSON."""
        said: dict[str, Any] = {"task": self.task, "options": self.options.decode()}
        if self.queue is not None:
            said["queue"] = self.queue
        if self.delay_ms:
            said["delay"] = self.delay_ms
        if self.terms is not None:
            said["terms"] = {name: value for name, value in self.terms._asdict().items() if value is not None}
        return _encode(said).encode()


@lru_cache(maxsize=1024)
def read_like(data: bytes) -> Like:
    """Read what nodes share; for so many do that it is read once.

    Raises:
        ValueError: it cannot be read.
    """
    said = _read_object(data)
    terms = said.get("terms")
    if terms is not None:
        share = terms.get("share")
        terms = Terms(order=terms.get("order"), share=None if share is None else Share(*share))
    return Like(
        task=said["task"],
        options=said["options"].encode(),
        queue=said.get("queue"),
        delay_ms=said.get("delay", 0),
        terms=terms,
    )


def encode_args(args: bytes) -> bytes:
    """Write an encoded call as a text of JSON."""
    return encode_basestring(args.decode()).encode()


def read_spec(data: bytes) -> Spec | Join:
    """Read a node.

    Raises:
        ValueError: it cannot be read.
    """
    said = _read_object(data)
    edges: dict[str, Any] = {
        "inputs": read_refs(said.get("in", [])),
        "to": read_refs(said.get("to", [])),
        "err": read_refs(said.get("err", [])),
        "deps": said.get("deps", 1),
    }
    if "join" in said:
        return Join(policy=said["join"], **edges)
    if "like" not in said:
        raise ValueError("a node is neither a task nor a join")
    return Spec(like=said["like"], args=said["args"].encode(), **edges)


def read_start(data: bytes) -> Refs:
    """Read which nodes are told when the flow begins.

    Raises:
        ValueError: it cannot be read.
    """
    return read_refs(_read_object(data).get("to", []))


def _read_object(data: bytes) -> Mapping[str, Any]:
    said = json.loads(data)
    if not isinstance(said, dict):
        raise ValueError("not an object")  # noqa: TRY004 - as json.loads says it
    return said


class Chunk(NamedTuple):
    """Some of a graph, to be stored together.

    Attributes:
        fields: of the graph's hash: names and values.
        states: of new nodes: the number of the first, and the characters of it and those that follow.
    """

    fields: list[tuple[str, bytes]]
    states: list[tuple[int, str]]


class Drawing(NamedTuple):
    """A graph, all of it.

    Attributes:
        chunks: its parts; one at least.
        label: for people.
        out: the node whose value is its own.
        size: how many nodes there are.
        roots: those that can be enqueued at once, with the levels of their messages.
    """

    chunks: tuple[Chunk, ...]
    label: str
    out: int
    size: int
    roots: tuple[tuple[int, int], ...]


class Stored(Protocol):
    """What a broker needs of a graph to store it; `streamq.workflows.graph.Graph` has it."""

    home: str
    label: str
    flow_id: str
    out: int
    size: int
    roots: list[tuple[int, int]]
    needs_time: bool

    def chunks(self, now_ms: Callable[[], int] = ...) -> Iterator[Chunk]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Failure:
    """A task of a flow that did not succeed; error callbacks get it, and it is in the list of a group that collects.

    Attributes:
        task_id: its id.
        task: its name.
        type: the exception's type, such as ``ValueError`` or ``shop.errors.OutOfStock``.
        message: the exception's message.
        traceback: as text; may be empty.
    """

    task_id: str
    task: str
    type: str
    message: str
    traceback: str = ""
