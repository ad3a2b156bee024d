"""Counts commits where they are made, and for the negative controls takes out what keeps promises.

A commit is counted in the script that commits, in the same atomic step: so the count survives a kill -9 exactly if the
commit does, and nothing that is tested has a say in it.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

from streamq._redis import pools
from streamq._redis.scripts import Call, Script, nothing
from streamq.broker import calls, cancels, flows
from streamq.broker.fleet import Fetched, Fleet
from streamq.errors import BrokerReset
from streamq.worker.lease import Lease

MUTANT = "CHAOS_MUTANT"  # environment variable: what to take out
COMMITS = "chaos:commits"  # hash: how often each task was committed
REFUSED = "chaos:refused"  # hash: how often an outcome of each task was refused

_SETTLE = "local function settle(record, state, body, waiters, forget, done, id, ttl)\n"
_COUNT_COMMIT = (_SETTLE, f"{_SETTLE}  redis.call('HINCRBY', '{COMMITS}', id, 1)\n")
_REFUSE = "refused[#refused + 1] ="
_COUNT_REFUSED = (_REFUSE, f"redis.call('HINCRBY', '{REFUSED}', id, 1)\n    {_REFUSE}")
_IS_ANOTHERS = "if was and ((current or '0') ~= fence or (its_entry or entry) ~= entry) then"
_MAY_COMMIT = "if was == 'queued' then"
_IS_KNOWN = "if redis.call('HEXISTS', record, 'state') == 1 then"
OF_FLOWS = {flows: ("_START", "_FINISH", "_TOLD", "_STEP", "_BECOME"), cancels: ("_CANCEL",)}
"""Scripts that end tasks of flows, or flows."""
_RETRIES = 10  # redis-py's own, before 7


def apply() -> None:
    """Count, and take out what `$CHAOS_MUTANT` says."""
    _change("_FINISH", _COUNT_COMMIT, _COUNT_REFUSED)
    _change("_BURY", _COUNT_COMMIT)
    _change("_GIVE_BACK", _COUNT_COMMIT)
    _change("_PARK", _COUNT_REFUSED)
    for module, variables in OF_FLOWS.items():
        for variable in variables:
            setattr(module, variable, counting(getattr(module, variable)))
    mutant = os.environ.get(MUTANT)
    if mutant:
        MUTANTS[mutant]()


def names() -> dict[bytes, str]:
    """Name the scripts by their digests, as they are now."""
    every = [one for module in (calls, cancels, flows) for one in vars(module).values() if isinstance(one, Script)]
    return {one.digest.encode(): one.name for one in every}


def counting(script: Script) -> Script:
    """Make a script of flows that counts the ends of tasks, and of flows, and what it refuses."""
    changes = [change for change in (_COUNT_COMMIT, _COUNT_REFUSED) if change[0] in script.text]
    return _changed(script, *changes)


def _change(variable: str, *changes: tuple[str, str]) -> None:
    setattr(calls, variable, _changed(getattr(calls, variable), *changes))


def _changed(script: Script, *changes: tuple[str, str]) -> Script:
    text = script.text
    for old, new in changes:
        if text.count(old) != 1:
            raise RuntimeError(f"{script.name}.lua has {text.count(old)} times {old!r}, and should have it once")
        text = text.replace(old, new)
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(script.name, text, digest)


def _without_fence() -> None:
    """Commit whatever comes first, whoever has the task by now."""
    _change("_FINISH", (_IS_ANOTHERS, "if false then"))


def _without_once() -> None:
    """Commit whatever comes, also a second time."""
    _change("_FINISH", (_IS_ANOTHERS, "if false then"), (_MAY_COMMIT, "if was then"))


def _renew_all_that_is_pending() -> None:
    """Renew all that is pending under the worker's name, also what it never received."""

    def renew(self: Any) -> None:
        consumer = self._renewals._consumer
        queue = calls.Keys("sq").queue("default")
        for stream in (queue.returned, queue.ready):
            call = Call(
                ("XPENDING", stream, calls.GROUP, "-", "+", 1000, consumer), lambda reply: [r[0] for r in reply]
            )
            try:
                if entries := self._renewals._connection.run(call):
                    self._renewals.renew(stream, entries)
            except BrokerReset:
                continue

    Lease._renew = renew  # type: ignore[method-assign]


def _acknowledge_before_running() -> None:
    """Take a message off its stream when it is read, as if nothing could happen to the worker. So there is no lease."""
    fetch = Fleet.fetch

    async def fetch_and_acknowledge(self: Fleet, count: int) -> Fetched:
        fetched = await fetch(self, count)
        for one in fetched.deliveries:
            await self._commands.run(Call(("XACK", one.stream, calls.GROUP, one.entry), nothing))
            await self._commands.run(Call(("XDEL", one.stream, one.entry), nothing))
        return fetched

    Fleet.fetch = fetch_and_acknowledge  # type: ignore[method-assign]
    Lease._renew = lambda _self: None  # type: ignore[method-assign]


def _retry_as_redis_py_does() -> None:
    """Enqueue without looking whether the id is known, and let redis-py send again what may have been carried out."""
    _change("_ENQUEUE", (_IS_KNOWN, "if false then"))
    options = pools._on_purpose

    def by_default(read_timeout: float, connect_timeout: float, retry: Any) -> dict[str, Any]:
        return {**options(read_timeout, connect_timeout, retry), "retry": type(retry)(pools.NoBackoff(), _RETRIES)}

    pools._on_purpose = by_default


MUTANTS = {
    "fence": _without_fence,
    "once": _without_once,
    "renew_pel": _renew_all_that_is_pending,
    "ack_first": _acknowledge_before_running,
    "redis_retries": _retry_as_redis_py_does,
}
