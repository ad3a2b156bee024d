"""What the ``task`` decorator says about a function."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from streamq.retry import Retry
from streamq.schedule.plan import Missed
from streamq.schedule.rules import Rule
from streamq.sending import Turns
from streamq.uniqueness import OnlyOne


@dataclass(frozen=True)
class TaskOptions:
    """What ``@task(...)`` says about a function.

    Attributes:
        name: the registered name.
        queue: where calls are enqueued.
        timeout: seconds a run may take before `TaskTimeout` is raised in it; None for as long as it needs.
        hard_timeout: seconds after which a run has failed, whatever it does.
        pool: ``process``: it runs in a process of its own.
        retry: when a failed run is tried again; None: never.
        expires: seconds from the enqueue on, or the moment, after which no run begins any more; None: there is none.
        raises: exception types that come back to the caller as themselves.
        turns: what makes runs wait for their turn.
        only_one: of which calls there is to be only one; None: there may be as many as there are enqueued.
        bind: the function's first parameter is the context.
        priority: the level at which calls are enqueued, 0 to 9, larger first.
        schedule: when it is called by itself.
        missed: what becomes of calls for which no worker was there.
    """

    name: str
    queue: str
    timeout: float | None
    hard_timeout: float | None
    pool: str | None
    retry: Retry | None
    expires: float | datetime | None
    raises: tuple[type[BaseException], ...]
    turns: Turns
    only_one: OnlyOne | None
    bind: bool
    priority: int
    schedule: tuple[Rule, ...] = ()
    missed: Missed = "one"
