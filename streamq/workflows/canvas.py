"""`Canvas`: what can be a part of a flow, and `Chain`, the simplest one that has several parts."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from typing import Any, Generic, Self, TypeVar, Unpack, cast, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from streamq.checks import is_number
from streamq.errors import FlowError
from streamq.flow_results.reader import Types
from streamq.flow_results.result import FlowResult
from streamq.message import Message
from streamq.sending import SendOptions
from streamq.workflows.callers import Callee, Caller, Starter
from streamq.workflows.edges import After, Before, Ends, Heads
from streamq.workflows.graph import MISPLACED, TOO_DEEP, Drawn, Graph, Spot, placed
from streamq.workflows.scope import check_common, over

S = TypeVar("S")
A_contra = TypeVar("A_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

_LONGEST_ID = 180


class Step(Generic[A_contra, R_co]):
    """What can be run when its first argument is there; it is a call, or several.

    What is said of it with `set`, `on_success` and `on_error` makes a new value; the old one stays as it is.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Have a task that says it returns one, ``-> int | Signature[int]``, be one whose result is an int."""
        values = get_args(source)
        return handler.generate_schema(values[-1]) if values else core_schema.any_schema()

    chosen: SendOptions = {}  # noqa: RUF012 - never changed
    successes: tuple[Step[Any, Any], ...] = ()
    errors: tuple[Step[Any, Any], ...] = ()

    def _with(self, **attributes: Any) -> Self:
        changed = copy.copy(self)
        vars(changed).update(attributes)
        return changed

    def set(self, **options: Unpack[SendOptions]) -> Self:
        """Choose options, as `streamq.tasks.Task.using` takes them; those that were chosen before stay.

        On several calls together they hold for all of them that have chosen none themselves, and for their callbacks;
        `expires` in seconds counts from the start of the flow, `countdown` and `eta` say when it begins, and `task_id`
        is that of the flow.

        Raises:
            ConfigError: one of them cannot be used.
            FlowError: one of them is for single calls only.
        """
        return self._with(chosen=over(self.chosen, check_common(options)))

    def on_success(self, callback: Step[Any, Any]) -> Self:
        """Have `callback` run when this has succeeded; its first argument is the value, unless it is immutable.

        There may be several. They do not belong to what this is a part of: nothing waits for them.

        Raises:
            FlowError: it is neither a signature nor several.
        """
        return self._with(successes=(*self.successes, check_step(callback, "on_success()")))

    def on_error(self, callback: Step[Any, Any]) -> Self:
        """Have `callback` run when this has failed, or could not run because what is before it has failed.

        Its first argument is the `Failure`, unless it is immutable; otherwise it is as `on_success` has it.

        Raises:
            FlowError: it is neither a signature nor several.
        """
        return self._with(errors=(*self.errors, check_step(callback, "on_error()")))

    def link(self, callback: Step[Any, Any]) -> Step[Any, Any]:
        """Do as `on_success` does, but to this very value, and give the callback: Celery's way to say it."""
        self.successes = self.on_success(callback).successes
        return callback

    def link_error(self, callback: Step[Any, Any]) -> Step[Any, Any]:
        """Do as `on_error` does, but to this very value, and give the callback: Celery's way to say it."""
        self.errors = self.on_error(callback).errors
        return callback

    def __or__(self, other: Step[R_co, S]) -> Chain[S]:
        """Run `other` after this, with its value."""
        return Chain((*_flat(self), *_flat(check_step(other, "what comes after |"))))

    def to_message(self) -> Message:
        """It is more than one message.

        Raises:
            FlowError: always.
        """
        raise FlowError(f"{self!r} is not a single call: enqueue it with its delay()")

    # ---- the flow

    def to_graph(
        self,
        root: str | None = None,
        inherited: SendOptions | None = None,
        *,
        flow_id: str | None = None,
        home: str | None = None,
    ) -> Graph:
        """Make the graph of one flow.

        Args:
            root: the id of the outermost flow, if this is run in place of a task; it may be this one.
            inherited: options for all of it that it has none of its own for.
            flow_id: its id; None: the chosen one, or a new one.
            home: the queue in whose slot its state is to be; None: that of its first task.

        Raises:
            FlowError: it cannot be run.
        """
        chosen = self._chosen_of_all()
        kept = {name: value for name, value in chosen.items() if name not in ("task_id", "durability")}
        bare = self if len(kept) == len(chosen) else self._choosing_only(cast("SendOptions", kept))
        if flow_id is None and (flow_id := chosen.get("task_id")) and len(flow_id) > _LONGEST_ID:
            raise FlowError(f"the id of a flow can have {_LONGEST_ID} characters: those of its tasks are longer")
        try:
            return Graph(bare, inherited or {}, root=root, flow_id=flow_id, home=home)
        except RecursionError:
            raise FlowError(TOO_DEEP) from None

    def _chosen_of_all(self) -> SendOptions:
        return self.chosen

    def _choosing_only(self, options: SendOptions) -> Self:
        return self._with(chosen=options)

    def draw(self, graph: Graph, spot: Spot) -> Drawn[Heads]:
        """Draw it, with its callbacks."""
        spot.scope = spot.scope.within(self.chosen)
        if not (self.successes or self.errors):
            return (yield from self._draw(graph, spot))
        whole, own = spot.ends, self.ends_at(spot.out)
        spot.ends = own
        before = Before((spot.out,), 1, own)
        successes = yield from _draw_callbacks(self.successes, graph, spot, before, "on_success")
        errors = yield from _draw_callbacks(self.errors, graph, spot, before, "on_error")
        spot.after = spot.after.also(successes, errors)
        heads = yield from self._draw(graph, spot)
        own.close()
        whole.include(own)
        return heads

    def ends_at(self, out: int) -> Ends:  # noqa: ARG002 - some know them
        """Give the task nodes whose end is its end, known or not, if its value is to be at `out`."""
        return Ends()

    def _draw(self, graph: Graph, spot: Spot) -> Drawn[Heads]:
        """Draw it without its callbacks."""
        raise NotImplementedError

    def first(self, common: SendOptions) -> Caller | None:
        """Find the first call in it, in reading order, with all options; None: there is no call."""
        common = over(common, self.chosen)
        for part in itertools.chain(self._ahead(), self.successes, self.errors):
            if (found := part.first(common)) is not None:
                return found
        return None

    def _parts(self) -> Iterable[Step[Any, Any]]:
        """Give its parts in reading order; of a group only the first member, as there may be any number."""
        raise NotImplementedError

    def needs_time(self) -> bool:
        """Something that is said of it counts from the start of the flow; of a group the first member is looked at."""
        parts = itertools.chain(self._parts(), self.successes, self.errors)
        return is_number(self.chosen.get("expires")) or any(part.needs_time() for part in parts)

    def _ahead(self) -> Iterable[Step[Any, Any]]:
        """Give all its parts in reading order, to be looked at as far as needed."""
        return self._parts()

    def last(self) -> Callee | None:
        """Find the task whose result is its value; None: that is a list."""
        return None

    def label(self) -> str:
        """Name it for people."""
        raise NotImplementedError


def check_step(step: object, place: str) -> Step[Any, Any]:
    """Return what can be a part of a flow.

    Raises:
        FlowError: it cannot.
    """
    if isinstance(step, Step):
        return step
    hint = "; say .s() of a task" if callable(getattr(step, "s", None)) else ""
    raise FlowError(f"{place} needs a signature, or several, not {step!r}{hint}")


def _draw_callbacks(
    callbacks: tuple[Step[Any, Any], ...], graph: Graph, spot: Spot, before: Before, place: str
) -> Drawn[list[Heads]]:
    found = []
    for callback in callbacks:
        try:
            spot_of_it = Spot(graph.number(), before, After(), Ends(), spot.scope.later)
            found.append((yield from callback.draw(graph, spot_of_it)))
        except MISPLACED as error:
            raise placed(error, place) from error
    return found


def _flat(step: Step[Any, Any]) -> tuple[Step[Any, Any], ...]:
    """Give the parts of a plain chain; of one about which something is said, itself."""
    has_more = step.chosen or step.successes or step.errors
    return step.parts if type(step) is Chain and not has_more else (step,)


class Canvas(Step[Any, R_co]):
    """What can be run as it is: it lacks no argument."""

    def enqueue_whole(self) -> FlowResult[R_co]:
        """Enqueue all of it as one flow, as `Several.delay` does."""
        graph = self.to_graph()
        broker = cast("Starter", graph.broker)
        return self._result(graph, is_new=broker.start_flow(graph, self._chosen_of_all().get("durability")))

    async def aenqueue_whole(self) -> FlowResult[R_co]:
        """Enqueue all of it as one flow, as `Several.delay` does."""
        graph = self.to_graph()
        broker = cast("Starter", graph.broker)
        return self._result(graph, is_new=await broker.astart_flow(graph, self._chosen_of_all().get("durability")))

    def _result(self, graph: Graph, *, is_new: bool) -> FlowResult[R_co]:
        is_ours = is_new or self._chosen_of_all().get("task_id") is None  # else another may have begun it
        types = Types(graph.tasks, None if graph.last is None or not is_ours else graph.last.name, are_all=is_ours)
        return self._make_result(graph, types, is_ours=is_ours)

    def _make_result(self, graph: Graph, types: Types, *, is_ours: bool) -> FlowResult[R_co]:
        return FlowResult(graph.flow_id, graph.home, graph.broker, types, duplicate=not is_ours)


class Several(Canvas[R_co]):
    """Calls that are enqueued together."""

    def delay(self) -> FlowResult[R_co]:
        """Enqueue all of it as one flow: all of it, or, if an error is raised, nothing has begun.

        Raises:
            FlowError: it cannot be run.
            PayloadError: a call cannot be sent.
            BrokerError: as for an enqueue.
        """
        return self.enqueue_whole()

    async def adelay(self) -> FlowResult[R_co]:
        """Enqueue all of it as one flow, as `delay` does."""
        return await self.aenqueue_whole()


class Chain(Several[R_co]):
    """Calls that run one after another; each gets the value of the one before as its first argument.

    Attributes:
        parts: what it is made of.
    """

    def __init__(self, parts: tuple[Step[Any, Any], ...]) -> None:
        if not parts:
            raise FlowError("an empty chain cannot be run")
        self.parts = parts

    def _draw(self, graph: Graph, spot: Spot) -> Drawn[Heads]:
        out, after, ends = spot.out, spot.after, spot.ends
        heads = Heads()
        for number in range(len(self.parts), 0, -1):
            before, scope, prior_out = spot.before, spot.scope, -1
            if number > 1:
                prior_out = graph.number()
                before = Before((prior_out,), 1, self.parts[number - 2].ends_at(prior_out))
                scope = spot.scope.later
            try:
                heads = yield from self.parts[number - 1].draw(graph, Spot(out, before, after, ends, scope))
            except MISPLACED as error:
                raise placed(error, f"chain, step {number}") from error
            if ends is not spot.ends:
                ends.close()
            if graph.is_full:
                yield
            out, after, ends = prior_out, After(heads), before.ends
        return heads

    def ends_at(self, out: int) -> Ends:
        """Give those of its last part."""
        return self.parts[-1].ends_at(out)

    def _parts(self) -> Iterable[Step[Any, Any]]:
        return self.parts

    def last(self) -> Callee | None:
        """Find the task whose result is its value; None: that is a list."""
        return self.parts[-1].last()

    def label(self) -> str:
        """Name it for people."""
        parts = self.parts[:80]  # no more than so many characters are shown
        return " | ".join(part.label() if type(part) is not Chain else f"({part.label()})" for part in parts)

    def __repr__(self) -> str:
        return f"<chain {self.label()}>"
