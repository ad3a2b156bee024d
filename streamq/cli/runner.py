"""What a process of a worker's pool runs: ``python -m streamq.cli.runner SPEC``; started by a worker's child only."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import signal
import sys
from typing import Any

from streamq.cli.loading import load_app, loop_factory
from streamq.errors import ConfigError
from streamq.worker import clock
from streamq.worker.logs import configure
from streamq.worker.outbox import Bounds
from streamq.worker.runner import Line, Runner
from streamq.worker.wire import pack


def main() -> int:
    """Load the app and run its tasks; returns the exit code."""
    spec: dict[str, Any] = json.loads(sys.argv[1])
    line = Line(spec["line"])
    configure(spec["consumer"], spec["log_level"], spec["log_format"])
    clock.set_offset(spec["ahead_ms"])
    faulthandler.register(signal.SIGQUIT, all_threads=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Service managers signal all processes of a service; when this one ends is for its worker to say. A handler
        # and not SIG_IGN, which programs that a task starts would inherit.
        signal.signal(number, lambda *_: None)
    try:
        app = load_app(spec["app"])
        app.make_current()
        tasks = dict(app.tasks)
    except (ConfigError, ImportError) as error:
        line.say(pack({"fatal": str(error)}))
        return 2
    lifespan = app.lifespan(app) if app.lifespan else None
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        bounds = Bounds(app.settings.max_result, app.settings.max_stream)
        Runner(line, tasks, bounds, runner.get_loop()).serve(lifespan)
        runner.run(app.aclose())
    return 0


if __name__ == "__main__":
    sys.exit(main())
