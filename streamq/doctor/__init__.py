"""Tells whether a server is fit for streamq, and what may be lost there.

What the server does not tell, as many services that run one for others do not, is "unknown", and never "ok".
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from streamq.broker import diagnosis
from streamq.config import DEFAULT_QUEUE, Settings
from streamq.doctor.checks import judge
from streamq.doctor.findings import Finding, Level
from streamq.errors import BrokerError, BrokerRefused, BrokerUnavailable

__all__ = ["Finding", "Level", "admit", "aexamine", "examine"]


def examine(settings: Settings, queues: Iterable[str] = (DEFAULT_QUEUE,)) -> list[Finding]:
    """Look at a server, in three round trips. Not for use on an event loop: there, await `aexamine`.

    Args:
        settings: those of the app; the URL, the namespace and the durability matter.
        queues: names of the queues for which permissions are looked at.

    Returns:
        What was found, also what is fine. A server that cannot be reached is a finding too, the only one then.

    Raises:
        ConfigError: the URL cannot be used.
    """
    return asyncio.run(aexamine(settings, queues))


async def aexamine(settings: Settings, queues: Iterable[str] = (DEFAULT_QUEUE,)) -> list[Finding]:
    """Look at a server, as `examine` does."""
    try:
        answers = await diagnosis.ask(settings, queues)
    except BrokerError as error:
        return [Finding(Level.REFUSED, "server", f"it cannot be asked: {error}")]
    return judge(answers)


async def admit(settings: Settings, queues: Iterable[str]) -> list[Finding]:
    """Look at the server that a worker is about to serve.

    Returns:
        What is not fine.

    Raises:
        BrokerRefused: it cannot be used; the message says why, in one line.
        BrokerUnavailable: it cannot be reached, or is a replica: during a failover that is no reason to give up.
        BrokerError: it does not say what it is.
    """
    findings = judge(await diagnosis.ask(settings, queues))
    refused = [finding for finding in findings if finding.level is Level.REFUSED]
    lasting = [finding for finding in refused if finding.check != "role"]
    if lasting:
        raise BrokerRefused("; and ".join(map(str, lasting)))
    if refused:
        raise BrokerUnavailable(str(refused[0]))
    return [finding for finding in findings if finding.level is not Level.OK]
