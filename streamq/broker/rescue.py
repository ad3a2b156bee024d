"""What becomes of deliveries whose process has died, or seems to have."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence

from streamq._redis.connections import SyncConnection
from streamq._redis.keys import Keys, QueueKeys
from streamq.broker import calls
from streamq.config import Settings
from streamq.errors import BrokerReset
from streamq.lifecycle import is_suspect
from streamq.message import Delivery

_RESCUE_BATCH = 100
# A suspect runs in a process of its own, so if the process that holds it dies or stands still, that was another's
# doing. But not for ever: it may be the fetching of it that kills.
DEATHS_OF_OTHERS = 10


def owner_of(settings: Settings, consumer: str, died: str) -> calls.Owner:
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
    return calls.Owner(consumer, died, most, json.dumps(error, separators=(",", ":")).encode())


def blamed(
    owner: calls.Owner, settings: Settings, deliveries: Iterable[Delivery]
) -> list[tuple[calls.Owner, list[Delivery]]]:
    """Divide what a process held that has died, or seems to have, by how many deaths are too many."""
    by_suspicion: dict[bool, list[Delivery]] = {False: [], True: []}
    for one in deliveries:
        by_suspicion[is_suspect(one.deaths, settings.max_deaths)].append(one)
    lenient = owner._replace(max_deaths=owner.max_deaths + DEATHS_OF_OTHERS)
    return [(lenient if suspect else owner, group) for suspect, group in by_suspicion.items() if group]


def rescue(settings: Settings, queues: Sequence[str], consumer: str, died: str) -> calls.GivenBack:
    """Give back all that is pending under a dead consumer, and remove it.

    Args:
        settings: those of the app.
        queues: the names of those that it served.
        consumer: the name under which it read.
        died: how it died, such as ``signal SIGKILL``.

    Raises:
        BrokerError: Redis cannot be asked; the lease brings them back.
    """
    keys, given, buried = Keys(settings.namespace), 0, 0
    connection = SyncConnection(settings.url)
    owner = owner_of(settings, consumer, died)
    try:
        for queue in map(keys.queue, queues):
            for stream in queue.all_streams:
                with contextlib.suppress(BrokerReset):  # the stream is gone, and with it all that was pending there
                    while moved := _rescue_some(connection, settings, queue, stream, owner):
                        given, buried = given + moved.given, buried + moved.buried
                    connection.run(calls.retire(stream, consumer))
    finally:
        connection.close()
    return calls.GivenBack(given, buried)


def _rescue_some(
    connection: SyncConnection, settings: Settings, queue: QueueKeys, stream: str, owner: calls.Owner
) -> calls.GivenBack | None:
    """Give back some hundred entries; None if there are no more."""
    held = connection.run(calls.held_by(queue, stream, owner.consumer, _RESCUE_BATCH))
    # What cannot be read stays pending: the next reclaim buries it.
    good = [one for one in held if isinstance(one, Delivery)]
    done, ttl_ms = Keys(settings.namespace).done, round(settings.result_ttl * 1000)
    given = buried = 0
    for by, group in blamed(owner, settings, good):
        moved = connection.run(calls.give_back(queue, stream, by, group, done=done, ttl_ms=ttl_ms))
        given, buried = given + moved.given, buried + moved.buried
    return calls.GivenBack(given, buried) if given or buried else None
