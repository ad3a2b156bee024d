"""What a process of a worker's pool runs: ``python -m streamq.cli.runner SPEC``; started by a worker's child only."""

from __future__ import annotations

import faulthandler
import json
import signal
import sys
from typing import Any

from streamq.cli.loading import load_app, run_on_loop
from streamq.errors import ConfigError
from streamq.worker import clock
from streamq.worker.logs import configure
from streamq.worker.runner import Line, Runner
from streamq.worker.wire import pack


def main() -> int:
    """Load the app and run its tasks; returns the exit code."""
    spec: dict[str, Any] = json.loads(sys.argv[1])
    line = Line(spec["line"])
    configure(spec["consumer"], spec["log_level"], spec["log_format"])
    clock.set_offset(spec["ahead_ms"])
    faulthandler.register(signal.SIGQUIT, all_threads=True)
    try:
        app = load_app(spec["app"])
        app.make_current()
        tasks = dict(app.tasks)
    except (ConfigError, ImportError) as error:
        line.say(pack({"fatal": str(error)}))
        return 2
    lifespan = app.lifespan(app) if app.lifespan else None
    run_on_loop(Runner(line, tasks, app.settings.max_result).serve(lifespan))
    app.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
