"""Whose death it was: what follows for the messages that a process held which has died, or seems to have."""

from __future__ import annotations

import json
from collections.abc import Iterable

from streamq.broker.calls import Owner
from streamq.config import Settings
from streamq.lifecycle import is_suspect
from streamq.message import Delivery

# A suspect runs in a process of its own, so if the process that holds it dies or stands still, that was another's
# doing. But not for ever: it may be the fetching of it that kills.
_DEATHS_OF_OTHERS = 10


def owner_of(settings: Settings, consumer: str, died: str) -> Owner:
    """Say whose deliveries are given back, and how it died; empty: it did not."""
    most = settings.max_deaths
    # The stored form of an error, as codec.encode_error has it; the supervisor, which comes here too, is too small
    # for pydantic.
    error = {
        "type": "streamq.errors.WorkerDied",
        "message": f"the worker died under it {most} times (max_deaths), at last {consumer}: {died}",
        "args": None,
        "traceback": "",
    }
    return Owner(consumer, died, most, json.dumps(error, separators=(",", ":")).encode())


def blamed(owner: Owner, settings: Settings, deliveries: Iterable[Delivery]) -> list[tuple[Owner, list[Delivery]]]:
    """Divide what a process held that has died, or seems to have, by how many deaths are too many."""
    by_suspicion: dict[bool, list[Delivery]] = {False: [], True: []}
    for one in deliveries:
        by_suspicion[is_suspect(one.deaths, settings.max_deaths)].append(one)
    lenient = owner._replace(max_deaths=owner.max_deaths + _DEATHS_OF_OTHERS)
    return [(lenient if suspect else owner, group) for suspect, group in by_suspicion.items() if group]
