"""``streamq demo``: real work through real streams, a worker killed on the way, and nothing missing at the end."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import click
from rich.console import Console

from streamq.cli.demo.checking import PlainFile, Stamp, compare, read_plainly, walk
from streamq.cli.demo.display import Display
from streamq.cli.demo.processes import Worker
from streamq.cli.demo.session import Session
from streamq.cli.demo.stage import Stage, end, run, set_up
from streamq.errors import ConfigError

# Not part of the library: what was installed into its folder, and what imports write there.
_NOT_LIBRARY = ("site-packages", "dist-packages", "__pycache__")
_WORKERS = ("worker-1", "worker-2")


@click.command("files")
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
def command(folder: Path | None) -> None:
    """Watch real work survive the kill of a worker.

    Every file below FOLDER becomes a task that reads it. Without FOLDER it is Python's own standard library,
    without site-packages, dist-packages and __pycache__. A server and two workers are started for it; half way,
    one of the workers is killed. At the end the results are compared with a plain walk of the folder, and nothing
    that was started is left.

    Exit code: 0 if everything agrees, 1 if not, 2 if it could not start.
    """
    end(lambda: _play(folder), "workers")


def _play(folder: Path | None) -> bool:
    display = Display(Console(highlight=False))
    root = Path(sysconfig.get_path("stdlib") if folder is None else folder).absolute()
    leave_out = _NOT_LIBRARY if folder is None else ()
    files = dict(walk(root, leave_out))
    if not files:
        raise ConfigError(f"there is no file below {root}")
    display.say(f"Every file below {root} becomes a task: {len(files):,}.", "bold")
    with set_up(Worker, _WORKERS) as stage:
        display.say(f"server    in {stage.folder}")
        for worker in stage.crew:
            display.say(f"{worker.name}  pid {worker.pid}, ready")
        session = _work(stage, files, display)
    comparison = compare(files, session.reports, _walk_plainly(root, leave_out, len(files), display))
    display.show_totals(session, comparison, len(files))
    display.show_largest(session.reports, root)
    display.show_verdict(session, comparison)
    return comparison.equal and not session.lost and not session.failures


def _work(stage: Stage[Worker], files: dict[Path, Stamp], display: Display) -> Session:
    session = Session(stage.app, stage.crew, stage.crew[1], list(files), display)
    with display.phase("working", len(files)):
        run(session.run())
    return session


def _walk_plainly(root: Path, leave_out: tuple[str, ...], expected: int, display: Display) -> dict[Path, PlainFile]:
    found = {}
    with display.phase("checking", expected):
        for path, _ in walk(root, leave_out):
            if (plain := read_plainly(path)) is not None:
                found[path] = plain
            display.on_result()
    return found
