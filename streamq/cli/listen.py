"""``streamq listen``: call the handlers of an app when something happens."""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING

import click

from streamq import __version__
from streamq.cli.loading import load_app, run_on_loop
from streamq.cli.options import Age, naming_the_server
from streamq.cli.serving import concurrency_option, grace_option, log_options, name_option
from streamq.config import display_url
from streamq.errors import ConfigError

if TYPE_CHECKING:
    from streamq.app import StreamQ


@click.command("listen")
@click.argument("target", metavar="MODULE:APP")
@concurrency_option("Calls of handlers at a time.")
@grace_option("handlers")
@click.option("--since", type=Age(), help="Begin with events of the last 90s, 30m, 2h, 1d, if the app keeps them.")
@name_option("What logs call it.")
@log_options
def command(
    *, target: str, concurrency: int, grace: float, since: float | None, name: str, log_level: str, log_format: str
) -> None:
    """Call the handlers of MODULE:APP, such as shop.tasks:app, when something happens, until SIGTERM or Ctrl-C.

    Handlers are functions with @app.on("task.failed"). Each such process calls all of them. What happens while none
    runs is not handled, unless the app keeps its events (durable_events) and --since reaches back so far. A second
    signal ends it at once.
    """
    from streamq.worker.logs import configure  # noqa: PLC0415 - --help must answer quickly

    configure(f"{name}-{os.getpid()}", log_level.upper(), log_format)
    app = load_app(target)
    app.make_current()
    try:
        _ = app.tasks  # imports the modules that it includes, in which handlers may be
    except ImportError as error:
        raise ConfigError(f"cannot import a module that {target} includes: {error}") from error
    if not app.on.all:
        raise ConfigError(f'{target} has no handlers of events, such as @app.on("task.failed")')
    with naming_the_server(app.settings):
        is_over = run_on_loop(_listen(app, target, concurrency, grace, since))
    if not is_over:
        logging.getLogger("streamq.listen").warning("handlers still run in threads: they are given up")
        logging.shutdown()
        os._exit(1)  # the interpreter would wait for them


async def _listen(app: StreamQ, target: str, concurrency: int, grace: float, since: float | None) -> bool:
    import asyncio  # noqa: PLC0415 - see above

    from streamq.events.service import Service  # noqa: PLC0415

    wanted = app.on.wanted()
    listener = app.events.listen(types=wanted.types, tasks=wanted.tasks, queues=wanted.queues, since=since)
    service = Service(app.on.all, concurrency=concurrency, grace=grace)
    try:
        async with listener:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, service.stop)
            click.echo(_banner(app, target), err=True)
            return await service.run(listener)
    finally:
        await app.aclose()


def _banner(app: StreamQ, target: str) -> str:
    handlers = [f"{one.name} ({', '.join(one.wanted.types) or 'all events'})" for one in app.on.all]
    lines = [
        f"streamq {__version__} listen is ready",
        f"  app      {target}",
        f"  server   {display_url(app.settings.url)}, namespace {app.settings.namespace}",
        *(f"  handler  {handler}" for handler in handlers),
    ]
    return "\n".join(lines)
