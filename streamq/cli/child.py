"""What a worker's child process runs: ``python -m streamq.cli.child SPEC``; started by the supervisor only."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
from dataclasses import asdict, replace
from typing import Any

from streamq.app import StreamQ
from streamq.cli.loading import load_app, run_on_loop
from streamq.config import WorkerSettings, display_url
from streamq.errors import BrokerRefused, ConfigError
from streamq.worker.child import Job, serve
from streamq.worker.logs import configure
from streamq.worker.process import HURRY
from streamq.worker.stop import Stop


class Line:
    """The line to the supervisor; its end means that the supervisor is gone."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)
        self._lock = threading.Lock()
        # The end of the line tells the supervisor that this process is dead: what a task forks must not hold it.
        os.register_at_fork(after_in_child=self._hang_up)

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._socket.fileno())

    def say(self, **message: Any) -> None:
        """Send one message, from any thread; if nobody is there any more, that shows elsewhere."""
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def listen(self, loop: asyncio.AbstractEventLoop, stop: Stop) -> None:
        """Ask to stop when the supervisor is gone, and to hurry when it says so."""

        def readable() -> None:
            try:
                said = self._socket.recv(4096)
            except OSError:  # the supervisor was killed, and had not read all that was said to it
                said = b""
            if HURRY in said:
                stop.hurry()
            elif not said:
                loop.remove_reader(self._socket)
                stop.orphaned()

        loop.add_reader(self._socket, readable)


def main() -> int:
    """Load the app and serve it; returns the exit code."""
    spec = json.loads(sys.argv[1])
    line = Line(spec["line"])
    faulthandler.register(signal.SIGQUIT, all_threads=True, chain=True)  # also while the app is being loaded
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in spec["worker"].items()}
    worker = WorkerSettings(**options)
    configure(spec["consumer"], worker.log_level, worker.log_format)
    try:
        app = load_app(spec["app"])
        app.make_current()
        tasks = dict(app.tasks)
        for task in tasks.values():
            task.call_codec.prepare()
    except (ConfigError, ImportError) as error:
        line.say(fatal=str(error))
        return 2
    _settle_memory()
    lifespan = app.lifespan(app) if app.lifespan else None
    job = Job(app.settings, worker, spec["consumer"], spec["app"], tasks, lifespan, line.say, spec["started_ms"])
    try:
        return run_on_loop(_serve(app, job, line))
    except (BrokerRefused, ConfigError) as error:
        line.say(fatal=f"cannot use {display_url(app.settings.url)}: {error}")
        return 2
    except Exception as error:
        logging.getLogger("streamq.worker").critical("the worker process ends", exc_info=error)
        return 1


def _settle_memory() -> None:
    """Have the garbage collector leave alone what was imported, and look less often at what tasks allocate.

    With the interpreter's own settings it took a third of the time of a task that does nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


async def _serve(app: StreamQ, job: Job, line: Line) -> int:
    loop = asyncio.get_running_loop()
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not the loop's own handler: it would wait for a loop that user code holds up.
        signal.signal(number, lambda *_: stop.ask())
    # The stacks are written by a handler in C, which needs no interpreter; ours comes after it.
    faulthandler.unregister(signal.SIGQUIT)
    signal.signal(signal.SIGQUIT, lambda *_: stop.quit())
    faulthandler.register(signal.SIGQUIT, all_threads=True, chain=True)
    line.listen(loop, stop)

    def ready(server: str) -> None:
        line.say(
            ready={
                "server": server,
                "url": display_url(app.settings.url),
                "tasks": sorted(job.tasks),
                "settings": asdict(replace(app.settings, queue_limits={})),  # which the supervisor needs not
            }
        )

    await serve(job, stop, ready)
    await app.aclose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
