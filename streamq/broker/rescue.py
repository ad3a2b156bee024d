"""Gives back what a dead process held; for the supervisor, which is no event loop."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from streamq._redis.connections import SyncConnection
from streamq._redis.keys import Keys, QueueKeys
from streamq.broker import calls
from streamq.broker.blame import Places, blamed, owner_of
from streamq.config import Settings
from streamq.errors import BrokerReset
from streamq.message import Delivery

_RESCUE_BATCH = 100


def rescue(
    settings: Settings, queues: Sequence[str], consumer: str, died: str, accused: Places = frozenset()
) -> calls.GivenBack:
    """Give back all that is pending under a dead consumer, and remove it.

    Args:
        settings: those of the app.
        queues: the names of those that it served.
        consumer: the name under which it read.
        died: how it died, such as ``signal SIGKILL``.
        accused: of what it held with deaths already, that which may have been the cause, if that is known.

    Raises:
        BrokerError: Redis cannot be asked; the lease brings them back.
    """
    keys, given, buried = Keys(settings.namespace, durable_events=settings.durable_events), 0, 0
    connection = SyncConnection(settings.url)
    owner = owner_of(settings, consumer, died)
    try:
        for queue in map(keys.queue, queues):
            for stream in queue.all_streams:
                with contextlib.suppress(BrokerReset):  # the stream is gone, and with it all that was pending there
                    while moved := _rescue_some(connection, settings, queue, stream, owner, accused=accused):
                        given, buried = given + moved.given, buried + moved.buried
                    connection.run(calls.retire(stream, consumer))
    finally:
        connection.close()
    return calls.GivenBack(given, buried)


def _rescue_some(
    connection: SyncConnection,
    settings: Settings,
    queue: QueueKeys,
    stream: str,
    owner: calls.Owner,
    *,
    accused: Places,
) -> calls.GivenBack | None:
    """Give back some hundred entries; None if there are no more."""
    held = connection.run(calls.held_by(queue, stream, owner.consumer, _RESCUE_BATCH))
    # What cannot be read stays pending: the next reclaim buries it.
    good = [one for one in held if isinstance(one, Delivery)]
    done, ttl_ms = Keys(settings.namespace).done, round(settings.result_ttl * 1000)
    given = buried = 0
    for by, group in blamed(owner, settings, good, accused):
        moved = connection.run(calls.give_back(queue, stream, by, group, done=done, ttl_ms=ttl_ms))
        given, buried = given + moved.given, buried + moved.buried
    return calls.GivenBack(given, buried) if given or buried else None
