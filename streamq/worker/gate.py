"""Lets runs begin only when it is their turn, and says when one has ended for whose end others wait."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from streamq._redis.failures import Backoff
from streamq.broker import turns
from streamq.broker.fleet import Fleet
from streamq.errors import BrokerError, BrokerRefused, BrokerUnavailable
from streamq.lifecycle import Abandoned, Outcome
from streamq.limits import Limit, Rule, rule_of
from streamq.worker.holdings import Holdings, Run
from streamq.worker.lanes import Lane
from streamq.worker.metrics import Counters
from streamq.worker.outage import Outage
from streamq.worker.promoter import Promoter

_log = logging.getLogger("streamq.worker")

_BATCH = 100  # deliveries in one script


class Gate:
    """Asks for each limited run, at the moment when it could begin here, whether it may.

    So what is let in begins at once. A run that has to wait goes from this process: its message waits in Redis.

    Args:
        fleet: the broker.
        holdings: what is held; tells when a run is held no longer.
        outage: is told when Redis is away.
        promoter: is told when one has to look again who may go.
        counters: count those that have to wait.
        queue_limits: of whole queues.
    """

    def __init__(
        self,
        fleet: Fleet,
        holdings: Holdings,
        outage: Outage,
        promoter: Promoter,
        *,
        counters: Counters,
        queue_limits: Mapping[str, Limit],
    ) -> None:
        self._rooms = fleet.rooms
        self._holdings = holdings
        self._outage = outage
        self._promoter = promoter
        self._counters = counters
        self._queue_limits = queue_limits
        self._rules: dict[tuple[str, str], tuple[Rule, ...]] = {}
        self._asked: list[tuple[Run, Lane, Callable[[Run], None]]] = []
        self._left: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        self._wake = asyncio.Event()
        self._draining = False
        holdings.on_drop = self._dropped

    def guard(self, lanes: Iterable[Lane], settle: Callable[[Run, Outcome], None], refill: Callable[[], None]) -> None:
        """Stand before the starts of lanes.

        Args:
            lanes: whose places runs take while they ask.
            settle: takes a run that is not to begin here after all.
            refill: is called when places have become free.
        """
        self._settle, self._refill = settle, refill
        for lane in lanes:
            lane.start = self._guarded(lane, lane.start)

    def _guarded(self, lane: Lane, begin: Callable[[Run], None]) -> Callable[[Run], None]:
        def start(run: Run) -> None:
            run.stakes = self._stakes(run)
            if run.stakes:
                self._asked.append((run, lane, begin))
                self._wake.set()
            else:
                begin(run)

        return start

    def _stakes(self, run: Run) -> tuple[turns.Stake, ...]:
        message = run.delivery.message
        if run.task is None:
            return ()
        rules = self._rules.get((message.queue, message.task))
        if rules is None:
            of_queue = self._queue_limits.get(message.queue)
            limits = (*run.task.options.turns.limits, *((of_queue,) if of_queue else ()))
            rules = self._rules[message.queue, message.task] = tuple(map(rule_of, limits))
        return turns.stakes_of(rules, message)

    def fetched(self, runs: Iterable[Run]) -> None:
        """Note that runs have come which took turns with others: the next ones may follow them."""
        for message in (run.delivery.message for run in runs if run.delivery.message.options):
            if turns.steering_of(message).fairness_key is not None:
                self._left[message.queue][turns.FAIR].append(message.id)
                self._wake.set()

    def _dropped(self, run: Run) -> None:
        message = run.delivery.message
        if run.stakes is not None:
            members = [stake.member for stake in run.stakes if stake.rule.concurrency]
        else:  # it has expired, say, before it asked: if it was woken, what is kept for it is others' again
            members = [stake.member for stake in self._stakes(run)]
        if message.options and (key := turns.steering_of(message).ordering_key) is not None:
            members.append(turns.order_member(key))
        for member in members:
            self._left[message.queue][member].append(message.id)
        if members:
            self._wake.set()

    async def run(self) -> None:
        """Ask and tell until cancelled."""
        backoff, size = Backoff(), _BATCH
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch = self._asked[:size]
            try:
                await self.tell()
                if batch:
                    replies = await self._rooms.admit([(run.delivery, run.stakes or ()) for run, _, _ in batch])
            except BrokerError as error:
                self._outage.noticed(error)
                is_away = isinstance(error, (BrokerUnavailable, BrokerRefused))
                if batch and size == 1 and not is_away:
                    self._give_up(batch[0], error)
                size = _BATCH if is_away else 1  # to find the one that stands in the way
                self._wake.set()
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            if batch:
                self._answer(batch, replies)
            size = _BATCH if size == _BATCH or not self._asked else 1
            if self._asked:
                self._wake.set()

    def _answer(self, batch: list[tuple[Run, Lane, Callable[[Run], None]]], replies: list[int]) -> None:
        given_back = {run for run, _, _ in batch} - {run for run, _, _ in self._asked}
        self._asked = self._asked[len(batch) - len(given_back) :]
        for (run, lane, begin), reply in zip(batch, replies, strict=True):
            if run in given_back:
                continue
            if reply == turns.MAY_BEGIN and not self._draining and not run.lost:
                begin(run)
                continue
            lane.running -= 1
            if reply == turns.MAY_BEGIN and not run.lost:
                self._settle(run, Abandoned())
                continue
            if reply >= 0:
                self._counters["held", run.delivery.message.task] += 1
                self._promoter.expect(reply / 1000)
                run.stakes = ()
            self._holdings.drop(run)
        self._refill()

    def _give_up(self, one: tuple[Run, Lane, Callable[[Run], None]], error: BrokerError) -> None:
        run, lane, _ = one
        _log.error("cannot find out whether task %s may begin, it will come again: %s", run.delivery.message.id, error)
        self._asked.remove(one)
        lane.running -= 1
        self._holdings.drop(run)
        self._refill()

    async def tell(self) -> None:
        """Tell which runs have ended for whose end others may wait.

        Raises:
            BrokerError: Redis cannot be told; it will be, or a sweep finds out: within a second if others wait.
        """
        while self._left:
            queue, ended = self._left.popitem()
            try:
                wait = await self._rooms.leave(queue, ended)
            except BaseException:  # also when it is cancelled: it is told again at the end
                for member, ids in ended.items():
                    self._left[queue][member] += ids
                raise
            if wait is not None:
                self._promoter.expect(wait / 1000)

    def drain(self) -> list[Run]:
        """Let nothing more begin; gives out what has asked and has had no answer."""
        self._draining = True
        asked, self._asked = self._asked, []
        for _, lane, _ in asked:
            lane.running -= 1
        return [run for run, _, _ in asked]
