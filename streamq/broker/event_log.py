"""The logs of events, which apps with ``durable_events`` keep, as those read them who come late or missed some.

Each queue has a log, and so have all workers together. An entry holds the very bytes that were published, so that who
listens and reads can tell by them what came both ways; and its id, which is later than all before it in its log, says
where to go on. Nothing is sent here.

To miss nothing: listen first, then read, then drop of what was heard meanwhile that which was read too.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, NamedTuple

from streamq._redis.keys import Keys
from streamq._redis.scripts import Call
from streamq.broker import calls, reads

PAGE = 500  # events that are read in one step
MOST = 100_000  # events that a log keeps at least; scripts know the number too


class Logged(NamedTuple):
    """One event that was kept.

    Attributes:
        log: the key of its log.
        entry: its id there; it begins with the Redis time at which it was written, ms.
        event: JSON, as `events.read_event` reads it.
    """

    log: str
    entry: bytes
    event: bytes


def event_page(log: str, first: bytes, last: bytes = b"+") -> Call[list[Logged]]:
    """Read the events of one log from `first` (with a bracket before it: the one after) to `last`, at most `PAGE`."""

    def read(reply: list[Any]) -> list[Logged]:
        return [Logged(log, entry, fields[1]) for entry, fields in reply]

    return Call(("XRANGE", log, first, last, "COUNT", PAGE), read)


def log_length(log: str) -> Call[int]:
    """Count the events of a log."""
    return Call(("XLEN", log), int)


def log_begin(log: str) -> Call[int]:
    """Find the Redis time, ms, at which the oldest event of a log was written; 0 if there is none."""

    def read(reply: list[Any]) -> int:
        return int(reply[0][0].partition(b"-")[0]) if reply else 0

    return Call(("XRANGE", log, "-", "+", "COUNT", 1), read)


def is_trimmed(lasts: Mapping[str, bytes], start_ms: int) -> Generator[Call[Any], Any, bool]:
    """Tell whether events of this Redis time, ms, or later may have been removed, since a log had so many."""
    for log in lasts:
        length: int = yield log_length(log)
        if length >= MOST and (yield log_begin(log)) > start_ms:
            return True
    return False


def logs(keys: Keys) -> Generator[Call[Any], Any, dict[str, bytes]]:
    """Find the logs that are there, whether or not this app keeps events.

    Args:
        keys: of the namespace.

    Returns:
        By log, its newest entry. If that is empty, no events are kept, or none were made for an hour.
    """
    kept = Keys(keys.namespace, durable_events=True)
    names = [kept.worker_log, *(kept.queue(name).log for name in (yield calls.queue_names(kept)))]
    found = {}
    for log in filter(None, names):
        if newest := (yield reads.newest(log)):
            found[log] = newest
    return found


def pages(
    lasts: Mapping[str, bytes], start_ms: int = 0, after: Mapping[str, bytes] | None = None
) -> Generator[Call[Any] | list[Logged], Any, None]:
    """Read logs up to an entry of each, a page at a time, in the order of time; for `walking.follow`.

    Args:
        lasts: by log, the last entry to read, as `logs` returns them.
        start_ms: read what was written at this Redis time or later, ms.
        after: by log, the entry that was read last, in place of that time. It need not be there any more: what came
            after it and has gone too is left out.

    Yields:
        Calls, and between them lists of events, which are not empty. Of each log at most a page is held.
    """
    firsts = {log: b"(" + after[log] if after and log in after else b"%d" % start_ms for log in lasts}
    unread: dict[str, list[Logged]] = {}
    while firsts:
        for log in [log for log in firsts if not unread.get(log)]:
            unread[log] = yield event_page(log, firsts[log], lasts[log])
            if unread[log]:
                firsts[log] = b"(" + unread[log][-1].entry
            else:
                del firsts[log], unread[log]
        # Up to the end of the page that ends first, no log has more than what is here.
        end = min((_order(found[-1]) for found in unread.values()), default=(0, 0))
        some = [one for found in unread.values() for one in found if _order(one) <= end]
        unread = {log: [one for one in found if _order(one) > end] for log, found in unread.items()}
        if some:
            yield sorted(some, key=_order)


def since(
    keys: Keys, start_ms: int = 0, after: Mapping[str, bytes] | None = None
) -> Generator[Call[Any] | list[Logged], Any, None]:
    """Read what is in all logs at the moment: `pages` of the `logs` that are there."""
    yield from pages((yield from logs(keys)), start_ms, after)


def _order(one: Logged) -> tuple[int, int]:
    ms, _, nth = one.entry.partition(b"-")
    return int(ms), int(nth)
