"""Workers as a user starts them, and the signals that reach their processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from tests.workers import ROOT, Worker, children_of, until

APP = "tests.chaos.app:app"
MISTAKES = ("never retrieved", "was destroyed", "was never awaited", " CRITICAL ", " asyncio: ")
_HANGS_SECONDS = 30.0  # after its grace; what a row asks of the time to stop is a matter of its own


class Fleet:
    """All workers of a row.

    Args:
        url: what they are told as ``STREAMQ_URL``.
        marker: a text that the environment of this row's processes has, and no other's.
        rnd: chooses whom it hits.
        strike: is told of each fault: its kind, and the processes it hit.

    Attributes:
        workers: those that run.
        grace: seconds that each of them has for its end.
        problems: what a worker did that it should not.
        ended: how many processes that read from the queue were ended by force or by SIGTERM.
        stops: seconds from each SIGTERM to the end of the worker.
    """

    def __init__(self, url: str, marker: str, rnd: random.Random, strike: Callable[[str, Iterable[int]], None]) -> None:
        self.url = url
        self.workers: list[Worker] = []
        self.grace = 5.0
        self.problems: list[str] = []
        self.ended = 0
        self.stops: list[float] = []
        self._marker = marker.encode()
        self._random = rnd
        self._strike = strike
        self._options: tuple[str, ...] = ()
        self._gone: list[Worker] = []
        self._leaving: list[threading.Thread] = []
        self._frozen: set[int] = set()
        self._began = 0

    # ---- life

    def start(self, count: int, *options: str, lease: float, grace: float = 5.0) -> None:
        """Start workers and wait until they are ready; those that replace them have the same options."""
        self.grace = grace
        self._options = (*options, "--lease", str(lease), "--grace", str(grace), "--log-level", "WARNING")
        started = [self.begin() for _ in range(count)]
        for worker in started:
            worker.until_logged("is ready", seconds=60)

    def begin(self, *more: str) -> Worker:
        """Start one more worker, without waiting for it."""
        self._began += 1
        worker = Worker(APP, self.url, *self._options, "--name", f"w{self._began}", *more, cwd=ROOT, ready=False)
        self.workers.append(worker)
        return worker

    def stop(self) -> None:
        """Stop all with SIGTERM, and see to it that they end as they should and nothing is left of them."""
        self.thaw()
        for worker in list(self.workers):
            self._send_away(worker)
        for thread in self._leaving:
            thread.join()
        for worker in self._gone:
            log = worker.log
            self.problems += [f"a log has {text!r}" for text in MISTAKES if text in log]
        try:
            until(lambda: not self.processes(), seconds=10)
        except AssertionError:
            self.problems.append(f"processes are left: {self.processes()}")

    def close(self) -> None:
        """End by force what is left, whatever happened."""
        self.thaw()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for worker in (*self.workers, *self._gone):
            worker.process.wait()

    def keep_logs(self, folder: Path) -> None:
        """Write the logs of all workers to files."""
        for number, worker in enumerate((*self._gone, *self.workers)):
            (folder / f"worker-{number}.log").write_text(worker.log)

    def processes(self) -> list[int]:
        """Return all processes that were started by this row's workers, whoever their parent is by now."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if self._marker in path.read_bytes() and int(path.parent.name) != os.getpid():
                    found.append(int(path.parent.name))
        return found

    # ---- harm

    def children(self) -> list[int]:
        """Return the processes that run tasks, or hand them to their pools."""
        return [pid for worker in self.workers for pid in children_of(worker.process.pid)]

    def kill_child(self) -> None:
        """Kill a process that runs tasks; its supervisor stays."""
        if children := self.children():
            self._kill("child killed", self._random.choice(children))

    def _one_of_several(self) -> Worker:
        """Choose a worker that is ready, and not the last one: how long Python takes to start is not what is asked."""
        ready: list[Worker] = []

        def several() -> bool:
            ready[:] = filter(_is_ready, self.workers)
            return len(ready) >= min(2, len(self.workers))

        until(several, seconds=60, why="workers do not get ready")
        return self._random.choice(ready)

    def disturb_start(self) -> None:
        """Start a worker, and end it by SIGTERM or SIGKILL before it is, or has long been, ready."""
        worker = self.begin()
        time.sleep(self._random.uniform(0.0, 1.5))
        if self._random.random() < 0.5:
            self._strike("SIGTERM at start", ())
            self._send_away(worker)
        else:
            self._kill("killed at start", worker.process.pid)
            worker.process.wait()
            self._leave(worker)

    def kill_worker(self) -> None:
        """Kill all processes of a worker, as the loss of a machine would; another takes its place."""
        worker = self._one_of_several()
        self._kill("worker killed", worker.process.pid)
        worker.process.wait()
        self._leave(worker)
        self.begin()

    def kill_supervisor(self) -> None:
        """Kill the supervisor of a worker alone: its processes have to end by themselves. Another takes its place."""
        worker = self._one_of_several()
        self.ended += len(children_of(worker.process.pid))
        self._strike("supervisor killed", ())
        worker.process.kill()
        worker.process.wait()
        self._leave(worker)
        self.begin()

    def kill_pool_process(self, *, when: Callable[[int], bool]) -> bool:
        """Kill one process of a pool for which `when` holds while it stands still; False if there is none.

        It is stopped before it is looked at, so that what it does when it is killed is certain.
        """
        pools = [pid for child in self.children() for pid in children_of(child)]
        for pid in self._random.sample(pools, len(pools)):
            if not self._signal([pid], signal.SIGSTOP):
                continue
            until(lambda pid=pid: _is_stopped(pid))
            if when(pid):
                self._strike("pool process killed", [pid])
                self._signal([pid], signal.SIGKILL)
                return True
            self._signal([pid], signal.SIGCONT)
        return False

    def _kill(self, kind: str, pid: int) -> None:
        """Kill a process and all below it."""
        family = _family(pid)
        if self._signal(family, signal.SIGKILL):
            self.ended += len(family)
            self._strike(kind, family)

    def freeze_child(self, seconds: float) -> None:
        """Stop a process that runs tasks with SIGSTOP, and have it go on after so many seconds."""
        pid = self._random.choice([pid for pid in self.children() if pid not in self._frozen] or [0])
        if pid and self._signal([pid], signal.SIGSTOP):
            self._frozen.add(pid)
            self._strike("frozen", [pid])
            timer = threading.Timer(seconds, self._thaw, [pid])
            timer.daemon = True
            timer.start()

    def thaw(self) -> None:
        """Have all go on that were stopped."""
        for pid in list(self._frozen):
            self._thaw(pid)

    def _thaw(self, pid: int) -> None:
        if pid in self._frozen:
            self._frozen.discard(pid)
            self._signal([pid], signal.SIGCONT)

    def replace_worker(self, *, wait: bool = False) -> None:
        """Stop a worker with SIGTERM; another takes its place. `wait`: not before that one is ready."""
        worker = self._one_of_several()
        new = self.begin()
        if wait:
            new.until_logged("is ready", seconds=30)
        self._strike("SIGTERM", _family(worker.process.pid))
        self._send_away(worker)

    def _send_away(self, worker: Worker) -> None:
        self._leave(worker)
        expected = (0,) if _is_ready(worker) else (0, -signal.SIGTERM)  # it may not know yet what to do
        self.ended += len(children_of(worker.process.pid))
        began = time.monotonic()
        if worker.process.poll() is not None:
            self.problems.append(f"a worker ended by itself, with exit code {worker.process.returncode}")
            return
        worker.process.terminate()

        def wait() -> None:
            try:
                code = worker.process.wait(timeout=self.grace + _HANGS_SECONDS)
            except subprocess.TimeoutExpired:
                self.problems.append("a worker did not end after SIGTERM")
                return
            self.stops.append(time.monotonic() - began)
            if code not in expected:
                self.problems.append(f"a worker ended with exit code {code} after SIGTERM")

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        self._leaving.append(thread)

    def _leave(self, worker: Worker) -> None:
        self.workers.remove(worker)
        self._gone.append(worker)

    def _signal(self, pids: Iterable[int], number: int) -> bool:
        """Send a signal to processes; False if none of them is there any more."""
        reached = False
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
                reached = True
        return reached


def _is_ready(worker: Worker) -> bool:
    return "is ready" in worker.log


def _family(pid: int) -> list[int]:
    """Return a process and all below it."""
    return [pid, *(one for child in children_of(pid) for one in _family(child))]


def _is_stopped(pid: int) -> bool:
    """Tell whether a process stands still, for ever or because of SIGSTOP."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state in "TZX"
