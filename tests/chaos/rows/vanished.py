"""Row 10: the server's data, streams or groups are destroyed. Workers are back soon, and each loss is told to who asks.

What a fault destroys is read in the same atomic step in which it strikes. A caller learns of a loss from `get`, which
raises `UnknownTaskId`: it must do so for the tasks whose messages were destroyed before a worker had them (and for
those whose results were), and for no other. What is lost is sent again under the same ids, and runs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from streamq.errors import ResultTimeout, UnknownTaskId
from tests.chaos import check, instrument
from tests.chaos.producer import Order
from tests.chaos.report import Report
from tests.chaos.stage import Case, Stage

LEASE = 1.5
BACK_SECONDS = 5.0
ASK_SECONDS = 5.0  # in which it must be known of all tasks what became of them
READY = check.STREAMS[1]
_KINDS = ("FLUSHALL", "DEL", "XGROUP DESTROY")
_READ_RECORDS = """
local found = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  found[#found + 1] = { string.sub(key, #ARGV[1] + 1), redis.call('HEXISTS', key, 'ended') }
end
return found
"""


class Losses:
    """What the faults have destroyed.

    Attributes:
        messages: ids of the tasks whose messages were destroyed.
        held: those of them that a worker had: it may still commit them if their records are there.
        results: ids of the tasks that had ended, and whose records were destroyed.
        commits: the counts of commits that were destroyed.
    """

    def __init__(self) -> None:
        self.messages: set[str] = set()
        self.held: set[str] = set()
        self.results: set[str] = set()
        self.commits: Counter[str] = Counter()


class Fate(NamedTuple):
    """What `get` says of each task: it returned, raised `UnknownTaskId`, or knew nothing in time."""

    ended: set[str]
    unknown: set[str]
    silent: set[str]


def run(case: Case) -> Report:
    """Play the row."""
    with Stage(case) as stage:
        rnd, losses, back = stage.random, Losses(), []
        kinds = rnd.sample(_KINDS * 2, 2 * len(_KINDS))
        orders = [Order(rnd.choice(("on_loop", "in_thread")), (rnd.uniform(0, 0.2),)) for _ in range(800 - len(kinds))]
        # So few places that messages wait: else there would be none to be destroyed.
        stage.fleet.start(2, "-c", "3", "--threads", "3", lease=LEASE)
        stage.producer.begin(orders, seconds=8.0)
        for kind in kinds:
            time.sleep(rnd.uniform(0.4, 1.0))
            _destroy(stage, kind, losses)
            back.append(_until_back(stage))
        stage.producer.join()
        check.until_rest(stage.server.client, 20)
        fate, tasks = _ask(stage), len(stage.producer.acknowledged)
        committed = losses.commits + _commits(stage)
        lost = sorted(fate.unknown - committed.keys())
        for task_id in lost:
            stage.app.on_loop.using(task_id=task_id).delay()
        stage.producer.acknowledged[:] = [*fate.ended, *lost]
        report = stage.finish(lease=LEASE)
        report.tasks, report.lost = tasks, report.lost + len(lost)
        report.committed_again = sum(count > 1 for count in (losses.commits + _commits(stage)).values())
        report.require(not report.committed_again, f"committed twice: {report.committed_again}")
        report.recovered(back)
        report.require(max(back) <= BACK_SECONDS, f"back only after {max(back):.1f} s")
        _compare(report, losses, fate, committed.keys())
        stage.failed = not report.ok
        return report


def _destroy(stage: Stage, kind: str, losses: Losses) -> None:
    """Have a fault strike, and note what is destroyed."""
    streams = stage.random.choice(([READY], list(check.STREAMS)))
    pipeline = stage.server.client.pipeline(transaction=True)
    pipeline.eval(_READ_RECORDS, 0, f"{check.QUEUE}:task:")
    pipeline.hgetall(instrument.COMMITS)
    for stream in check.STREAMS:
        pipeline.xrange(stream)
        pipeline.xpending_range(stream, check.GROUP, "-", "+", 10_000)
    match kind:
        case "FLUSHALL":
            pipeline.flushall()
        case "DEL":
            pipeline.delete(*streams)
        case _:
            for stream in streams:
                pipeline.xgroup_destroy(stream, check.GROUP)
    records, commits, *found = pipeline.execute()
    stage.strike(kind)
    if kind == "FLUSHALL":
        losses.messages |= {task_id for task_id, ended in records if not ended}
        losses.results |= {task_id for task_id, ended in records if ended}
        losses.commits.update({task_id: int(count) for task_id, count in commits.items()})
    elif kind == "DEL":
        for stream, entries, pending in zip(check.STREAMS, found[0:4:2], found[1:4:2], strict=True):
            if stream in streams:
                held = {one["message_id"] for one in pending}
                losses.messages |= {fields["id"] for _, fields in entries}
                losses.held |= {fields["id"] for entry, fields in entries if entry in held}


def _until_back(stage: Stage) -> float:
    """Measure how long a task takes that is enqueued now; it may have to wait for those before it."""
    began = time.monotonic()
    [task_id] = stage.producer.send([Order("on_loop")])
    stage.app.app.result(task_id, queue="default").get(timeout=2 * BACK_SECONDS)
    return time.monotonic() - began


def _ask(stage: Stage) -> Fate:
    fate, deadline = Fate(set(), set(), set()), time.monotonic() + ASK_SECONDS
    for task_id in stage.producer.acknowledged:
        try:
            stage.app.app.result(task_id, queue="default").get(timeout=max(0.0, deadline - time.monotonic()))
        except UnknownTaskId:
            fate.unknown.add(task_id)
        except ResultTimeout:
            fate.silent.add(task_id)
        else:
            fate.ended.add(task_id)
    return fate


def _commits(stage: Stage) -> Counter[str]:
    return Counter(check.counts(stage.server.client, instrument.COMMITS))


def _compare(report: Report, losses: Losses, fate: Fate, committed: Collection[str]) -> None:
    """See that what is reported is what was destroyed."""
    saved = losses.messages.intersection(committed)
    injected = losses.messages - saved
    report.more |= {
        "messages_destroyed": len(losses.messages),
        "of_these_committed": len(saved),
        "results_destroyed": len(losses.results),
        "losses_injected": len(injected),
        "losses_reported": len(fate.unknown.difference(committed)),
    }
    expected = injected | losses.results
    unreported, invented = expected - fate.unknown, fate.unknown - expected
    report.require(not fate.silent, f"get() knows nothing of {len(fate.silent)}, such as {sorted(fate.silent)[:3]}")
    report.require(not unreported, f"{len(unreported)} losses are not reported, such as {sorted(unreported)[:3]}")
    report.require(not invented, f"{len(invented)} are reported and were not destroyed, such as {sorted(invented)[:3]}")
    report.require(saved <= losses.held, f"committed without a message: {sorted(saved - losses.held)[:3]}")
    report.require(bool(injected and losses.results), "nothing was destroyed")
