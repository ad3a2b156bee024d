"""Row 15: channels. Subscriptions are killed, calls cut, the server killed, and one listener is too slow.

Pub/Sub loses messages, and so does a buffer that is full; what holds is that each is told. For every listener, what it
received and what it was told to have missed is together what was published. Of a durable channel beside it nothing is
missed at all, by a listener or by a group.

In the report a task is a message for one listener, and lost is what neither came nor was told of.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from streamq import StreamQ
from streamq.channels.buffer import Missing
from streamq.channels.envelope import Envelope
from streamq.channels.gaps import Gap
from streamq.errors import BrokerError
from tests.chaos import check
from tests.chaos.report import Report
from tests.chaos.stage import NETWORK, Case, Stage, versions
from tests.hearing import Hearing
from tests.proxy import Fault
from tests.workers import until

SENDERS = ("first", "second")
BUFFER = 50  # of the slow one
SLOW_SECONDS = 0.01  # that it takes for a message; it has a third of the time it would need
LEASE = 1.0
PATIENCE = 30.0


class Slow(Hearing):
    """Takes its time with each message, until it may hurry."""

    def __init__(self, listener: Any) -> None:
        super().__init__(listener)
        self.hurry = threading.Event()

    def _run(self) -> None:
        for item in self.listener:
            self.items.append(item)
            self.hurry.wait(SLOW_SECONDS)


class Sender:
    """Publishes numbers from a thread, until it is told to stop.

    Attributes:
        given: how many were given to the channel, whatever came of it.
        kept: those of which the channel said that they are kept.
        errors: how often it raised.
    """

    def __init__(self, channel: Any, a_second: float, least: int, *, again: bool) -> None:
        self._channel, self._pause, self._least, self._again = channel, 1 / a_second, least, again
        self.given, self.errors = 0, 0
        self.kept: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        for number in itertools.count(1):
            if number > self._least and self._stop.is_set():
                return
            while not self.publish(number) and self._again:
                time.sleep(self._pause)
            time.sleep(self._pause)

    def publish(self, number: int) -> bool:
        """Publish one; False: whether it was published is not known."""
        self.given += 1
        try:
            self._channel.publish_sync(number)
        except BrokerError:
            self.errors += 1
            return False
        self.kept.add(number)
        return True

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


def run(case: Case) -> Report:
    """Play the row."""
    with Stage(case) as stage:
        return _Row(stage).play()


class _Row:
    """The row; it has many parts."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.smoke = stage.case.smoke
        self.messages, self.kills = (600, 4) if self.smoke else (5000, 20)
        self.apps = [StreamQ(stage.proxy.url) for _ in range(9)]  # each with one subscription: all have the same faults
        news = [app.channel("news", int).listen(buffer=20_000) for app in self.apps[:2]]
        slow = self.apps[2].channel("news", int).listen(buffer=BUFFER)
        self.slow = Slow(slow)
        self.live = [*map(Hearing, news), self.slow]
        orders = [app.channel("orders", int, durable=True, max_length=None) for app in self.apps[5:]]
        self.log = Hearing(orders[0].listen(buffer=BUFFER))
        self.members = [Hearing(one.group("group", lease=LEASE)) for one in orders[1:3]]
        share = self.messages // len(SENDERS)
        self.senders = [
            Sender(app.channel("news", int, sender=name), 300 if self.smoke else 250, share, again=False)
            for name, app in zip(SENDERS, self.apps[3:5], strict=True)
        ]
        self.keeper = Sender(orders[3], 50, share // 5, again=True)
        self.most_waiting = 0

    def play(self) -> Report:
        """Listen, publish, do harm, and account."""
        began = time.monotonic()
        everybody = [*self.live, self.log, *self.members]
        for one in everybody:
            one.__enter__()
        try:
            for sender in self.senders:
                sender.publish(0)  # heard by all, so that each knows whose numbers have holes from then on
            until(lambda: all(len(one.items) == len(SENDERS) for one in self.live), why="the first are not heard")
            self._harm()
            self._end()
            report = self._account()
        finally:
            self.slow.hurry.set()
            for one in everybody:
                one.__exit__()
            for app in self.apps:
                app.close()
        report.left = check.connections(self.stage.server.client)
        report.require(not report.left, f"left: {'; '.join(report.left[:5])}")
        report.seconds = round(time.monotonic() - began, 1)
        self.stage.failed = not report.ok
        return report

    def _harm(self) -> None:
        stage, rnd = self.stage, self.stage.random
        stage.proxy.storm(stage.case.seed, 0.01, (Fault.BEFORE, Fault.AFTER))
        for sender in (*self.senders, self.keeper):
            sender.begin()
        for nth in range(self.kills):
            seen = self._heard()
            self._wait(partial(self._has_heard_more, seen))
            stage.proxy.strike("PUBLISH", Fault.AFTER)  # while all listen, who hear it twice therefore
            time.sleep(rnd.uniform(0.0, 0.3))
            if rnd.random() < 0.3:
                stage.proxy.strike("SUBSCRIBE", Fault.BEFORE, nth=rnd.randint(1, 3))
            if nth in (self.kills // 3, self.kills // 2):
                stage.kill_server(rnd.uniform(0.0, 0.5))
            else:
                stage.strike("subscriptions killed")
                stage.server.client.client_kill_filter(_type="pubsub")
            self._wait(lambda number=nth + 1: all(one.listener.counts.reconnected >= number for one in self.live))

    def _wait(self, what: Callable[[], bool]) -> None:
        def look() -> bool:
            buffer = self.slow.listener._buffer
            with buffer._room:
                waiting = sum(not isinstance(item, Missing) for item in buffer._items)
            self.most_waiting = max(self.most_waiting, waiting)
            return what()

        until(look, seconds=PATIENCE, why="a listener does not come back")

    def _has_heard_more(self, seen: list[int]) -> bool:
        return all(now > then for now, then in zip(self._heard(), seen, strict=True))

    def _heard(self) -> list[int]:
        return [one.listener.counts.received for one in self.live]

    def _end(self) -> None:
        """Stop, and have all hear a last message of each sender, which shows the hole before it."""
        for sender in (*self.senders, self.keeper):
            sender.end()
        self.stage.proxy.storm(0, 0.0)
        for sender in self.senders:
            sender.publish(-1)
        self.slow.hurry.set()
        lasts = {(name, one.given) for name, one in zip(SENDERS, self.senders, strict=True)}

        def is_over() -> bool:
            found = ({(one.sender, one.sequence) for one in _messages(some)[-10:]} for some in self.live)
            return all(some >= lasts for some in found) and self._of_log() >= self.keeper.kept <= self._of_group()

        until(is_over, seconds=PATIENCE + 3 * LEASE, why="not all of the last messages come")

    def _of_log(self) -> set[int]:
        return {one.payload for one in _messages(self.log)}

    def _of_group(self) -> set[int]:
        return {one.payload for member in self.members for one in _messages(member)}

    def _account(self) -> Report:
        stage, case = self.stage, self.stage.case
        for passed in stage.proxy.passed:
            if passed.fault:
                stage.faults[NETWORK[passed.fault]] += 1
        report = Report(case.row, case.seed, case.server, versions(stage.server.version), stage.faults)
        for one, name in zip(self.live, ("a", "b", "slow"), strict=True):
            self._account_listener(report, one, name)
        self._account_log(report)
        waiting, repeated = self.most_waiting, sum(one.listener.counts.repeated for one in self.live)
        report.require(bool(repeated), "nothing came twice over the wire: the faults could do no harm")
        report.more |= {
            "repeated": repeated,
            "most_waiting": waiting,
            "errors": sum(one.errors for one in (*self.senders, self.keeper)),
        }
        report.require(waiting <= BUFFER, f"the slow one had {waiting} messages in a buffer of {BUFFER}")
        report.require(bool(self.slow.listener.counts.dropped), "the slow one was not slow")
        return report

    def _account_listener(self, report: Report, one: Hearing, name: str) -> None:
        received, missed, twice = Counter(), Counter(), 0
        last: dict[str, int] = {}
        for item in one.items:
            if isinstance(item, Gap):
                missed[item.sender] += item.missed or 0
            else:
                received[item.sender] += 1
                twice += item.sequence <= last.get(item.sender, 0)
                last[item.sender] = item.sequence
        for sender, published in zip(SENDERS, (sender.given for sender in self.senders), strict=True):
            found = received[sender] + missed[sender]
            report.tasks += published
            report.lost += max(0, published - found)
            report.require(found == published, f"{name} accounts for {found} of {sender}'s {published}")
        told = sum(isinstance(item, Gap) and item.reason == "reconnected" for item in one.items)
        counted = one.listener.counts.reconnected
        report.committed_again += twice
        report.more |= {f"{name}_received": received.total(), f"{name}_missed": missed.total()}
        report.require(not twice, f"{name} heard {twice} messages twice, or out of order")
        report.require(set(missed) <= {None, *SENDERS} and not missed[None], f"{name} was told of nobody's messages")
        report.require(counted == self.kills, f"{name} counts {counted} losses of its connection, not {self.kills}")
        # Losses that lie together where messages were dropped are told once.
        report.require(told == self.kills or (name == "slow" and told > 0), f"{name} was told of {told} losses")
        report.require(bool(missed.total()), f"{name} has missed nothing: the faults could do no harm")

    def _account_log(self, report: Report) -> None:
        kept, heard = self.keeper.kept, _messages(self.log)
        numbers = [one.number for one in heard]
        handled = Counter(one.entry for member in self.members for one in _messages(member))
        lost = len(kept - self._of_log()) + len(kept - self._of_group())
        report.tasks += 2 * len(kept)
        report.lost += lost
        report.executed_again = sum(count > 1 for count in handled.values())
        report.committed_again += len(numbers) - len(set(numbers))
        report.reclaimed = sum(one.deliveries > 1 for member in self.members for one in _messages(member))
        report.more |= {"kept": len(kept), "handled": handled.total()}
        gaps = [item for one in (self.log, *self.members) for item in one.items if isinstance(item, Gap)]
        errors = [one.error for one in (*self.live, self.log, *self.members) if one.error]
        report.require(not lost, f"{lost} messages of the durable channel are lost")
        report.require(not gaps, f"gaps of the durable channel: {gaps[:3]}")
        report.require(numbers == list(range(1, len(numbers) + 1)), "the durable channel is not in order")
        report.require(not errors, f"listeners ended with {errors}")


def _messages(one: Hearing) -> list[Envelope[Any]]:
    return [item for item in one.items if isinstance(item, Envelope)]
