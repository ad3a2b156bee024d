"""``streamq doctor``: tell whether a server is fit for streamq."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from streamq.cli.options import in_one_line, json_option, print_any_text, server_options, settings_of, to_json
from streamq.config import DEFAULT_QUEUE, check_name, display_url

if TYPE_CHECKING:
    from streamq.doctor import Finding

_COLOURS: Mapping[str, Mapping[str, Any]] = {
    "ok": {"fg": "green"},
    "unknown": {"fg": "cyan"},
    "warning": {"fg": "yellow", "bold": True},
    "refused": {"fg": "red", "bold": True},
}
_EXIT_CODES = {"ok": 0, "unknown": 0, "warning": 1, "refused": 2}
_MARK, _CHECK = 9, 13  # widths of the columns


@click.command("doctor")
@click.argument("server", metavar="[URL]", required=False)
@click.option(
    "-Q", "--queues", default=DEFAULT_QUEUE, show_default=True, help="Whose permissions to look at, joined by commas."
)
@json_option("Print a JSON object.")
@server_options
def command(server: str | None, queues: str, url: str, namespace: str, *, as_json: bool) -> None:
    """Look at the server at URL (or that of --url): may tasks get lost there, and may streamq do what it has to?

    Nothing is changed there. Each line begins with ok, unknown (the server does not tell: look yourself), warning or
    refused.

    \b
    Exit codes:
      0  fine, as far as it tells
      1  there are warnings
      2  it cannot be used, or cannot be reached
    """  # noqa: D301 - \b is click's
    from streamq import doctor  # noqa: PLC0415 - --help must answer quickly

    print_any_text()
    settings = settings_of(server or url, namespace)
    names = [check_name("queue", name.strip()) for name in queues.split(",")]
    findings = doctor.examine(settings, names)
    worst = max((finding.level.value for finding in findings), key=list(_EXIT_CODES).index)
    if as_json:
        found = [_as_dict(finding) for finding in findings]
        click.echo(to_json({"url": display_url(settings.url), "worst": worst, "findings": found}))
    else:
        click.echo(display_url(settings.url))
        for finding in findings:
            click.echo(_line(finding))
        click.echo(_summary(findings, worst))
    sys.exit(_EXIT_CODES[worst])


def _as_dict(finding: Finding) -> dict[str, str]:
    level = finding.level.value
    return {"level": level, "check": finding.check, "text": finding.text, "advice": finding.advice}


def _line(finding: Finding) -> str:
    """Make the line of one finding; on a terminal it is wrapped beside its columns."""
    level, text = finding.level.value, in_one_line(str(finding))
    if sys.stdout.isatty():
        width = max(40, shutil.get_terminal_size().columns - _MARK - _CHECK)
        text = ("\n" + " " * (_MARK + _CHECK)).join(textwrap.wrap(text, width, break_on_hyphens=False))
    return click.style(level, **_COLOURS[level]) + f"{'':{_MARK - len(level)}}{finding.check:{_CHECK}}{text}"


def _summary(findings: Sequence[Finding], worst: str) -> str:
    verdict = {
        "ok": "all is fine",
        "unknown": "all that it tells is fine",
        "warning": "it can be used, with care",
        "refused": "it cannot be used",
    }[worst]
    counts = Counter(finding.level.value for finding in findings)
    plural = {"warning": "warnings"}
    told = [
        f"{number} {level if number == 1 else plural.get(level, level)}"
        for level in reversed(_EXIT_CODES)
        if (number := counts[level])
    ]
    return click.style(f"{verdict}: {', '.join(told)}", **_COLOURS[worst])
