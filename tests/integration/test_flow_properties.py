"""Random flows end as a plain evaluation of the same description says: with the same value, or they fail.

Also each task runs once if it can run, and not if it cannot.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from streamq import Flow, State, chain, group
from streamq._redis.keys import Keys
from tests.apps.flows import OTHER, mixed
from tests.serving import job, serving, until

GRAPHS = 150
KEYS = Keys("sq")


# ---- descriptions


@dataclass
class Step:
    successes: list[Step] = field(default_factory=list, kw_only=True)
    errors: list[Step] = field(default_factory=list, kw_only=True)


@dataclass
class One(Step):
    n: int
    queue: str
    fails: bool
    takes: bool


@dataclass
class Row(Step):
    parts: list[Step]


@dataclass
class Many(Step):
    members: list[Step]
    policy: Any


@dataclass
class Graph(Step):
    parts: list[tuple[Step, list[int]]]


class Maker:
    """Makes one random description."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - it is to be the same each time
        self._n = seed * 1000

    def one(self) -> One:
        self._n += 1
        chance = self.chance
        return One(self._n, chance.choice(("default", OTHER)), chance.random() < 0.08, chance.random() < 0.85)

    def step(self, depth: int) -> Step:
        kind = self.chance.random()
        made: Step
        if depth == 0 or kind < 0.3:
            made = self.one()
        elif kind < 0.55:
            made = Row(self.some(depth, 1, 4))
        elif kind < 0.8:
            made = Many(self.some(depth, 0, 5), self.chance.choice(("fail", "fail", "collect", "continue")))
        else:
            parts = self.some(depth, 1, 5)
            made = Graph([(part, self._earlier(number)) for number, part in enumerate(parts)])
        if self.chance.random() < 0.12:
            made.successes.append(self.step(min(depth, 1)))
        if self.chance.random() < 0.12:
            made.errors.append(self.step(min(depth, 1)))
        return made

    def some(self, depth: int, least: int, most: int) -> list[Step]:
        return [self.step(depth - 1) for _ in range(self.chance.randint(least, most))]

    def _earlier(self, number: int) -> list[int]:
        return self.chance.sample(range(number), self.chance.randint(0, min(number, 3)))


# ---- what is sent


def build(step: Step, module: Any) -> Any:
    match step:
        case One(n, queue, fails, takes):
            sender = module.mix.using(queue=queue)
            made = (sender.s if takes else sender.si)(n=n, fails=fails)
        case Row(parts):
            made = chain([build(part, module) for part in parts])
        case Many(members, policy):
            made = group([build(member, module) for member in members], on_error=policy)
        case Graph(parts):
            made = Flow()
            added: list[Any] = []
            for part, after in parts:
                added.append(made.add(build(part, module), after=[added[number] for number in after]))
    for callback in step.successes:
        made = made.on_success(build(callback, module))
    for callback in step.errors:
        made = made.on_error(build(callback, module))
    return made


# ---- what is to come of it


class Failed(frozenset[str]):
    """A failure, and where it may have begun: of several that are possible the first to happen counts."""


FAILURE = {"message": "a failure, as far as its weight counts"}


class Plain:
    """Evaluates a description; an argument that has failed means that what needs it does not run."""

    def __init__(self) -> None:
        self.runs: set[str] = set()
        self.told: dict[int, Failed] = {}

    def evaluate(self, step: Step, inputs: list[Any]) -> Any:
        value = self._value(step, inputs)
        for callback in step.successes:
            self.evaluate(callback, [value])  # if that is a failure, it is one that what it needs has not succeeded
        if isinstance(value, Failed):
            for callback in step.errors:
                self._callback(callback, value)
        return value

    def _callback(self, step: Step, failure: Failed) -> None:
        before = dict(self.told)
        self.evaluate(step, [FAILURE])
        for n, origins in self.told.items():
            if n not in before and not origins:
                self.told[n] = failure

    def _value(self, step: Step, inputs: list[Any]) -> Any:
        match step:
            case One():
                return self._run(step, inputs)
            case Row(parts):
                for part in parts:
                    value = self.evaluate(part, inputs)
                    inputs = [value]
                return value
            case Many(members, policy):
                return self._together([self.evaluate(member, inputs) for member in members], policy, inputs)
            case Graph(parts):
                values: list[Any] = []
                for part, after in parts:
                    values.append(self.evaluate(part, [values[number] for number in after] if after else inputs))
                followed = {number for _, after in parts for number in after}
                sinks = [value for number, value in enumerate(values) if number not in followed]
                return sinks[0] if len(sinks) == 1 else self._together(sinks, "fail", sinks)
        raise AssertionError(step)

    def _run(self, step: One, inputs: list[Any]) -> Any:
        if failures := [value for value in inputs if isinstance(value, Failed)]:
            return Failed(frozenset().union(*failures))
        self.runs.add(str(step.n))
        if step.takes and any(value is FAILURE for value in inputs):
            self.told[step.n] = Failed()
        if step.fails:
            return Failed([str(step.n)])
        return mixed(inputs if step.takes else [], step.n)

    @staticmethod
    def _together(values: list[Any], policy: str, inputs: list[Any]) -> Any:
        failures = [value for value in (values or inputs) if isinstance(value, Failed)]
        if policy == "fail" and failures:
            return Failed(frozenset().union(*failures))
        if policy == "continue":
            return [value for value in values if not isinstance(value, Failed)]
        return [FAILURE if isinstance(value, Failed) else value for value in values]


async def test_random_flows(server_url, load_app_at, connection):
    """Value or failure, runs, and what error callbacks are told: all is as the description says."""
    module = load_app_at("tests.apps.flows", server_url)
    run = connection.client.execute_command
    started: dict[int, Any] = {}
    expected: dict[int, tuple[Any, Plain]] = {}
    for seed in range(1, GRAPHS + 1):
        maker = Maker(seed)
        step = Row([maker.step(3), maker.one()])
        plain = Plain()
        expected[seed] = plain.evaluate(step, []), plain
        started[seed] = build(step, module)

    async with asyncio.timeout(60), serving(job(server_url, module, queues=("default", OTHER), concurrency=50)):
        results = {seed: await made.adelay() for seed, made in started.items()}

        def at_rest(seed: int) -> bool:
            record = KEYS.queue(results[seed].queue).record(results[seed].id)
            return int(run("HGET", record, "left")) == 0 and run("PTTL", record) > 0

        for seed in results:
            await until(lambda seed=seed: at_rest(seed))
        await until(lambda: not run("EXISTS", *(KEYS.queue(name).outbox for name in ("default", OTHER))))
        for seed, (value, plain) in expected.items():
            await check(seed, results[seed], value)
            ran = {n: count for n, count in module.runs.items() if int(n) // 1000 == seed}
            assert ran == dict.fromkeys(plain.runs, 1), f"seed {seed}: other tasks ran"
            told = {n: message for n, message in module.told.items() if n // 1000 == seed}
            for n, origins in plain.told.items():
                if origins:
                    assert told.get(n) in origins, f"seed {seed}: callback {n} was told of another failure"
    await module.app.aclose()


async def check(seed: int, result: Any, value: Any) -> None:
    if isinstance(value, Failed):
        assert await result.astatus() is State.FAILED, f"seed {seed}: it did not fail"
        with pytest.raises(ValueError, match=r"^\d+$") as raised:
            await result.aget()
        assert str(raised.value) in value, f"seed {seed}: failed of {raised.value}, not of {value}"
    else:
        assert await result.aget(timeout=5) == value, f"seed {seed}: another value"
