"""Has runs begin a few at a time under which a process has died: one of them may have been the cause.

All that a dead process held comes back with a death. If it began all at once, the next death would hit all of it again,
and make suspects of all. So the supervisor is told what begins, and what goes on well: if this process dies as well,
what has just begun is to blame, and what still waited here is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from streamq.worker.holdings import Holdings, Run
from streamq.worker.lanes import Lane

_YOUNG_SECONDS = 0.25
_YOUNG_LEAST = 2
_ROUNDS = 16  # in which a full worker's runs can all begin


class Trial:
    """The runs of a process under which another has died; each has a place of a lane as well.

    To be made on the event loop.

    Args:
        lanes: where they run.
        holdings: where it is told that there may be room for more.
        say: sends a message to the supervisor.
        is_over: tells of a run that it must not begin any more, and sees to it.
        go_on: called when more may begin.

    Attributes:
        waiting: how many wait for their turn.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        holdings: Holdings,
        say: Callable[..., None],
        is_over: Callable[[Run], bool],
        go_on: Callable[[], None],
    ) -> None:
        self.waiting = 0
        self._lanes = lanes
        self._holdings = holdings
        self._say = say
        self._is_over = is_over
        self._go_on = go_on
        self._loop = asyncio.get_running_loop()
        self._places = max(_YOUNG_LEAST, sum(lane.size for lane in lanes) // _ROUNDS)
        self._young: dict[Run, asyncio.TimerHandle] = {}
        self._begun: set[Run] = set()

    def put(self, run: Run, lane: Lane) -> None:
        """Have a run wait for its turn; what has a process of its own can do no harm to others."""
        if run.delivery.deaths and lane in self._lanes:
            lane.on_trial.append(run)
            self.waiting += 1
        else:
            lane.waiting.append(run)

    def start(self) -> None:
        """Begin what may begin now."""
        for lane in self._lanes:
            while lane.on_trial and lane.free > 0 and len(self._young) < self._places:
                run = lane.on_trial.popleft()
                self.waiting -= 1
                if self._is_over(run):
                    continue
                self._young[run] = self._loop.call_later(_YOUNG_SECONDS, self._grown, run)
                lane.running += 1
                lane.start(run)

    def begins(self, run: Run) -> None:
        """Note that a run begins, which may first have had to ask whether it may."""
        if run in self._young:
            self._young[run].cancel()
        self._young[run] = self._loop.call_later(_YOUNG_SECONDS, self._grown, run)
        self._begun.add(run)
        self._tell("begun", run)

    def _grown(self, run: Run) -> None:
        del self._young[run]
        if run in self._begun:
            self._tell("grown", run)
        self._go_on()
        self._holdings.nudge()

    def ended(self, run: Run) -> None:
        """Note the end of a run that had deaths, whether it was on trial or not."""
        if run in self._begun:
            self._begun.remove(run)
            if run in self._young:
                self._young.pop(run).cancel()
            self._tell("over", run)

    def _tell(self, what: str, run: Run) -> None:
        self._say(trial=(what, run.delivery.stream, run.delivery.entry.decode()))

    def take_waiting(self) -> list[Run]:
        """Give out what has not begun."""
        waiting = [run for lane in self._lanes for run in lane.on_trial]
        for lane in self._lanes:
            lane.on_trial.clear()
        self.waiting = 0
        return waiting
