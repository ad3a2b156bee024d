"""Whose death it was: what follows for the messages that a process held which has died, or seems to have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from streamq.broker.calls import Owner
from streamq.broker.records import stored_error
from streamq.config import Settings
from streamq.errors import WorkerDied
from streamq.lifecycle import is_suspect
from streamq.message import Delivery

# A suspect runs in a process of its own, so if the process that holds it dies or stands still, that was another's
# doing. But not for ever: it may be the fetching of it that kills.
DEATHS_OF_OTHERS = 10
# Nor is another accused for ever: one that kills its process late is accused with its next delivery.
_DELIVERIES_WITH_OTHERS = 10

Places = AbstractSet[tuple[str, bytes]]  # of deliveries: stream and entry


def owner_of(settings: Settings, consumer: str, died: str) -> Owner:
    """Say who held deliveries, and how it died."""
    most = settings.max_deaths
    message = f"the worker died under it {most} times (max_deaths), at last {consumer}: {died}"
    return Owner(consumer, died, most, stored_error(WorkerDied, message))


def blamed(
    owner: Owner, settings: Settings, deliveries: Iterable[Delivery], accused: Places = frozenset()
) -> list[tuple[Owner, list[Delivery]]]:
    """Divide what a process held by how many deaths are too many, and whether this is one.

    If some of those under which another process had died are `accused`, it is none for the others of that kind.
    """
    lenient = owner._replace(max_deaths=owner.max_deaths + DEATHS_OF_OTHERS)
    innocent = owner._replace(died="")
    groups: defaultdict[Owner, list[Delivery]] = defaultdict(list)
    for one in deliveries:
        if accused and one.deaths and one.deliveries <= _DELIVERIES_WITH_OTHERS and _place(one) not in accused:
            groups[innocent].append(one)
        else:
            groups[lenient if is_suspect(one.deaths, settings.max_deaths) else owner].append(one)
    return list(groups.items())


def _place(delivery: Delivery) -> tuple[str, bytes]:
    return delivery.stream, delivery.entry
