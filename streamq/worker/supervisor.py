"""The supervisor: starts the children of a worker, replaces them, and hands back at once what a dead one held.

It imports little, so that it stays small, and talks to each child over a socket: the child says that it is ready, or
why it cannot be, how it is, and that it should be replaced; its end shows as the end of the stream, on both sides.
"""

from __future__ import annotations

import faulthandler
import logging
import random
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from streamq.config import Settings, WorkerSettings
from streamq.worker.metrics import EXIT_BLOCKED
from streamq.worker.process import Child
from streamq.worker.tally import Tally

_log = logging.getLogger("streamq.supervisor")

_POLL_SECONDS = 0.5  # signals and ends of children wake it at once; this is for what might slip through
_SILENCE_MARGIN_SECONDS = 5.0  # a child whose interpreter runs ends itself before it is taken for dead
_LONGEST_PAUSE_SECONDS = 10.0
_LAST_RESCUE_SECONDS = 5.0  # at the end of the worker; what is not handed back then, the lease brings back
_REASONS = {EXIT_BLOCKED: "blocked"}


class Supervisor:
    """Runs a worker until it is told to stop.

    Args:
        app: ``module:attribute`` of the app.
        worker: how the worker runs.
        announce: called once, when the first child is ready, with what that child says.
        refuse: called once with the reason why no child can work.
        tally: where to note how the children are.
    """

    def __init__(
        self,
        app: str,
        worker: WorkerSettings,
        announce: Callable[[dict[str, Any]], None],
        refuse: Callable[[str], None],
        tally: Tally,
    ) -> None:
        self._app = app
        self._worker = worker
        self._announce = announce
        self._refuse = refuse
        self._tally = tally
        self._selector = selectors.DefaultSelector()
        self._children: list[Child] = []
        self._due: dict[int, float] = {0: 0.0}  # the first child alone shows whether the app can be served
        self._settings: Settings | None = None
        self._warnings: set[str] = set()
        self._failures = 0
        self._rescues: list[threading.Thread] = []
        self._stop_signals = 0
        self._exit_code = 0

    def run(self) -> int:
        """Supervise; returns the exit code: 0, or 2 when the app cannot be served."""
        wakeup, signalled = socket.socketpair()
        wakeup.setblocking(False)  # noqa: FBT003 - the socket's own signature
        signalled.setblocking(False)  # noqa: FBT003
        signal.set_wakeup_fd(signalled.fileno())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._on_signal)
        faulthandler.register(signal.SIGQUIT, chain=True)
        self._selector.register(wakeup, selectors.EVENT_READ)
        with wakeup, signalled:
            while self._children or (self._due and not self._stop_signals):
                self._start_due()
                for key, _ in self._selector.select(self._patience()):
                    if key.data is None:
                        wakeup.recv(4096)
                    else:
                        self._listen(key.data)
                self._end_overdue()
                self._tally.turned = time.monotonic()
            signal.set_wakeup_fd(-1)
        deadline = time.monotonic() + _LAST_RESCUE_SECONDS
        for thread in self._rescues:
            thread.join(max(0.0, deadline - time.monotonic()))
        return self._exit_code

    def _patience(self) -> float:
        now = time.monotonic()
        deadlines = [child.kill_at for child in self._children]
        starts = [] if self._stop_signals else [*self._due.values()]
        return max(0.0, min([now + _POLL_SECONDS, *deadlines, *starts]) - now)

    # ---- signals

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._tally.stopping = True
        first = not self._stop_signals and number != signal.SIGQUIT
        self._stop_signals += 1
        for child in self._children:
            if not (first and child.told):  # one that was replaced is stopping; again would mean at once
                child.stop(number, self._worker.grace if first else 0.0)

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if now >= child.kill_at:
                child.kill()
            elif child.is_silent(self._worker.stuck_after + _SILENCE_MARGIN_SECONDS):
                _log.error("%s has said nothing for %.0f s: it is killed", child.consumer, now - child.heard)
                child.give_up()

    # ---- the life of a child

    def _start_due(self) -> None:
        now = time.monotonic()
        for index, moment in list(self._due.items()):
            if moment <= now and not self._stop_signals:
                del self._due[index]
                child = Child(index, self._app, self._worker)
                self._children.append(child)
                self._selector.register(child.line, selectors.EVENT_READ, child)
                if self._tally.stopping:  # the signal came while it was being started
                    child.stop(signal.SIGTERM, 0.0)

    def _listen(self, child: Child) -> None:
        said, ended = child.read()
        for message in said:
            if "report" in message:
                self._tally.reported(child.consumer, message["report"])
            elif "ready" in message:
                self._on_ready(child, message["ready"])
            elif "trial" in message:
                child.on_trial(*message["trial"])
            elif "replace" in message:
                self._on_replace(child, *message["replace"])
            elif "warning" in message:
                self._on_warning(message["warning"])
            elif "fatal" in message:
                self._on_fatal(message["fatal"])
        if ended:
            self._bury(child)

    def _on_ready(self, child: Child, what: dict[str, Any]) -> None:
        child.ready = True
        self._failures = 0
        self._tally.begun(child.consumer)
        if self._settings is None:
            self._settings = Settings(**what["settings"])
            self._announce(what)
            self._due |= dict.fromkeys(range(1, self._worker.processes), 0.0)
        for old in self._children:
            if old.index == child.index and old.leaving and not old.told:
                reason, text = old.leaving
                _log.info("%s takes the place of %s: %s", child.consumer, old.consumer, text)
                self._tally.leaves(old.consumer, reason)
                old.stop(signal.SIGTERM, self._worker.grace)

    def _on_replace(self, child: Child, reason: str, text: str) -> None:
        """Have another begin at once; the old one works until that is ready."""
        if child.leaving is None and not child.told:
            child.leaving = (reason, text)
            self._due[child.index] = 0.0

    def _on_warning(self, text: str) -> None:
        """Say it once, and not for each child."""
        if text not in self._warnings:
            self._warnings.add(text)
            _log.warning("%s", text)

    def _on_fatal(self, reason: str) -> None:
        if self._settings is None:
            self._refuse(reason)
            self._exit_code = 2
            self._due.clear()
            self._stop_signals += 1
            for child in self._children:
                child.stop(signal.SIGTERM, 0.0)
        else:  # it has worked before: the module may be in the middle of a deployment
            _log.error("a new child cannot work: %s", reason)

    def _bury(self, child: Child) -> None:
        """Note the end of a child, have another take its place, and hand back what it held."""
        self._selector.unregister(child.line)
        self._children.remove(child)
        code = child.wait()
        self._tally.ended(child.consumer)
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if not self._stop_signals and not child.told:
            self._tally.restarted(child.leaving[0] if child.leaving else _REASONS.get(code, "died"))
        if not self._stop_signals and not self._is_replaced(child):
            # One that worked is replaced at once: somebody waits for what it held. One that could not even begin
            # will most likely not begin the next time either.
            self._failures += not child.ready
            bound = min(_LONGEST_PAUSE_SECONDS, 0.1 * 2**self._failures)
            pause = 0.0 if child.ready else random.uniform(0, bound)  # noqa: S311 - spreads load
            self._due[child.index] = time.monotonic() + pause
            self._start_due()  # before the rescue: it takes some time to start
        if code != 0 or not (self._stop_signals or child.told):
            self._rescue(child, how)

    def _is_replaced(self, child: Child) -> bool:
        """Whether another has taken its place, or is about to."""
        others = [one for one in self._children if one.index == child.index and not one.leaving]
        return bool(others) or child.index in self._due

    def _rescue(self, child: Child, how: str) -> None:
        if self._settings is None:
            return
        if not child.ready:  # it has read nothing
            if not child.told:
                _log.error("%s ended before it was ready (%s)", child.consumer, how)
            return
        # In a thread, as Redis may be away, and signals must be heeded meanwhile.
        thread = threading.Thread(target=_rescue, args=(self._settings, self._worker.queues, child, how), daemon=True)
        self._rescues = [one for one in self._rescues if one.is_alive()] + [thread]
        thread.start()


def _rescue(settings: Settings, queues: Sequence[str], child: Child, how: str) -> None:
    """Hand back what a child held; in a thread of its own."""
    # What is imported here costs memory, which most supervisors never need.
    from streamq.broker.rescue import rescue  # noqa: PLC0415
    from streamq.errors import BrokerError  # noqa: PLC0415

    try:
        given, buried = rescue(settings, queues, child.consumer, how, child.accused)
    except BrokerError as error:
        _log.error("%s died (%s); its lease brings back what it held: %s", child.consumer, how, error)
    else:
        _log.error("%s died (%s); handed back the %d tasks it held", child.consumer, how, given)
        if buried:
            _log.error("%d of its tasks had seen too many deaths and are dead letters now", buried)
