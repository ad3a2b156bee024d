"""``streamq demo agents``: a coordinator and three agents read a folder; one is killed, and nothing is missing."""

from __future__ import annotations

import asyncio
import sysconfig
from collections import Counter
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from streamq.app import StreamQ
from streamq.cli.demo.coordinating import Coordinator
from streamq.cli.demo.indexing import texts_below, words_of
from streamq.cli.demo.processes import Reader
from streamq.cli.demo.stage import end, run, set_up
from streamq.errors import ConfigError

_NAMES = ("reader-1", "reader-2", "reader-3")
_NOT_TEXTS = ("site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib", "lib2to3")
_QUESTIONS = 5


@click.command("agents")
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
def command(folder: Path | None) -> None:
    """Watch agents share work, and go on when one of them is killed.

    A coordinator assigns the text files below FOLDER, a share at a time, to three agents, each of them a process that
    builds an inverted index of what it reads. Half way one is killed: its presence ends, and its work is taken over.
    Then all are asked how often some words occur, and the sums are compared with a plain count. Without FOLDER it is
    Python's own standard library, without its tests.

    Exit code: 0 if everything agrees, 1 if not, 2 if it could not start.
    """
    end(lambda: _play(folder), "agents")


def _play(folder: Path | None) -> bool:
    console = Console(highlight=False, soft_wrap=True)
    root = Path(sysconfig.get_path("stdlib") if folder is None else folder).absolute()
    files = list(texts_below(root, _NOT_TEXTS if folder is None else ()))
    if not files:
        raise ConfigError(f"there is no text file below {root}")
    console.print(f"{len(files):,} text files below {root}, for {len(_NAMES)} agents to read.", style="bold")
    with set_up(Reader, _NAMES) as stage:
        for reader in stage.crew:
            console.print(f"{reader.name}  pid {reader.pid}, ready")
        coordinator = Coordinator(stage.app, stage.crew, files, console.print)
        plain, answers = run(_work(stage.app, coordinator, files))
    return _compare(console, coordinator, plain, answers)


async def _work(app: StreamQ, coordinator: Coordinator, files: list[Path]) -> tuple[Counter[str], Counter[str]]:
    counting = asyncio.create_task(asyncio.to_thread(_count_plainly, files))
    try:
        async with app, coordinator:  # the app is closed also if the coordinator does not come to begin
            await coordinator.have_all_read()
            plain = await counting
            common = [word for word, _ in plain.most_common(_QUESTIONS * 40)]
            answers = await coordinator.ask_all(common[:: max(1, len(common) // _QUESTIONS)][:_QUESTIONS])
    finally:
        await asyncio.gather(counting, return_exceptions=True)
    return plain, answers


def _count_plainly(files: list[Path]) -> Counter[str]:
    plain: Counter[str] = Counter()
    for path in files:
        plain.update(words_of(path))
    return plain


def _compare(console: Console, coordinator: Coordinator, plain: Counter[str], answers: Counter[str]) -> bool:
    table = Table(title="streamq demo agents", title_justify="left")
    for name in ("", "by the agents", "by a plain count"):
        table.add_column(name, justify="left" if not name else "right")
    rows = [("files", coordinator.files_read, len(coordinator.files))]
    rows += [("words", coordinator.words_read, plain.total())]
    rows += [(f"“{word}”", count, plain[word]) for word, count in answers.items()]
    for name, found, expected in rows:
        style = "" if found == expected else "bold red"
        table.add_row(name, f"{found:,}", f"{expected:,}", style=style)
    console.print(table)
    agreed = all(found == expected for _, found, expected in rows)
    if agreed:
        console.print("The agents and a plain count agree.", style="bold green")
    else:
        console.print("They do not agree.", style="bold red")
    return agreed
