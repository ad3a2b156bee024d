"""One policy for everything that goes wrong with Redis: what it means to streamq, and what follows.

`POLICY` is the whole of it; the connections, the producers and the workers take what they do from there. redis-py's
own retries are off, everywhere: it knows neither which calls may be sent twice nor when to look for another server.
Every call of ours may be sent twice. Who sends again does so after pauses of full jitter below a bound that doubles,
so that a fleet does not come back in step: callers for `PATIENCE_SECONDS` in all, workers for as long as it takes.
"""

from __future__ import annotations

import random
from enum import Enum, auto
from typing import NamedTuple

from redis import exceptions as redis_errors

from streamq.errors import BrokerError, BrokerOutOfMemory, BrokerRefused, BrokerReset, BrokerUnavailable

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0
PATIENCE_SECONDS = 5.0


class Then(Enum):
    """What follows an error.

    Attributes:
        RETRY: the call is sent again; the server is the right one, and its sockets are good.
        RESOLVE: all idle sockets are closed and the call is sent again over a new one, so that DNS or Sentinel is asked
            who the master is by now.
        REMAKE: a worker makes the stream and its group again, and says so once a minute; a caller is told.
        RAISE: the caller is told, and a worker does not start: by itself it would never go away.
    """

    RETRY = auto()
    RESOLVE = auto()
    REMAKE = auto()
    RAISE = auto()


class Rule(NamedTuple):
    """One line of the policy.

    Attributes:
        sign: the words a reply begins with, or a class of redis-py's or of sockets'.
        means: what streamq raises.
        then: what follows.
        prefix: what the message of the raised error begins with.
    """

    sign: str | type[Exception]
    means: type[BrokerError]
    then: Then
    prefix: str = ""

    def error(self, cause: Exception) -> BrokerError:
        """Make the error that says it, and has its cause also before it is raised."""
        error = self.means(self.prefix + _text(cause))
        error.__cause__ = cause
        return error


# The first line that fits counts: a class stands before those it is derived from, a longer text before a shorter one.
# redis-py takes the first word off a reply that it has a class for, so that some errors have a line for either form.
POLICY = (
    # Not allowed.
    Rule("NOAUTH", BrokerRefused, Then.RAISE),
    Rule("WRONGPASS", BrokerRefused, Then.RAISE),
    Rule("NOPERM", BrokerRefused, Then.RAISE),
    Rule("DENIED", BrokerRefused, Then.RAISE),
    Rule(redis_errors.AuthenticationError, BrokerRefused, Then.RAISE),
    Rule(redis_errors.AuthorizationError, BrokerRefused, Then.RAISE),
    Rule(redis_errors.NoPermissionError, BrokerRefused, Then.RAISE),
    Rule(redis_errors.ClusterCrossSlotError, BrokerRefused, Then.RAISE),
    Rule(redis_errors.AskError, BrokerRefused, Then.RAISE, "this is one node of a cluster, and another has the slot: "),
    Rule(redis_errors.InvalidResponse, BrokerRefused, Then.RAISE, "this is not a Redis server: "),
    # Full. What frees memory is allowed all the same, so this reaches only who enqueues.
    Rule("OOM", BrokerOutOfMemory, Then.RAISE),
    Rule(redis_errors.OutOfMemoryError, BrokerOutOfMemory, Then.RAISE),
    # Not the master, or not for long.
    Rule("READONLY", BrokerUnavailable, Then.RESOLVE),
    Rule(redis_errors.ReadOnlyError, BrokerUnavailable, Then.RESOLVE),
    Rule("MASTERDOWN", BrokerUnavailable, Then.RESOLVE),
    Rule(redis_errors.MasterDownError, BrokerUnavailable, Then.RESOLVE),
    Rule("UNBLOCKED force", BrokerUnavailable, Then.RESOLVE),  # it was the master, and is a replica now
    Rule("WAIT cannot be used with replica", BrokerUnavailable, Then.RESOLVE),
    Rule("WAITAOF cannot be used with replica", BrokerUnavailable, Then.RESOLVE),
    Rule("NOREPLICAS", BrokerUnavailable, Then.RESOLVE),  # cut off from its replicas, of which one may be master by now
    Rule("LOADING", BrokerUnavailable, Then.RESOLVE),  # restarted: another may have been made master meanwhile
    Rule(redis_errors.BusyLoadingError, BrokerUnavailable, Then.RESOLVE),
    # The right server, but not now.
    Rule("BUSY", BrokerUnavailable, Then.RETRY),
    Rule("MISCONF", BrokerUnavailable, Then.RETRY),
    Rule("TRYAGAIN", BrokerUnavailable, Then.RETRY),
    Rule(redis_errors.TryAgainError, BrokerUnavailable, Then.RETRY),
    Rule("CLUSTERDOWN", BrokerUnavailable, Then.RETRY),
    Rule(redis_errors.ClusterDownError, BrokerUnavailable, Then.RETRY),
    Rule("max number of clients reached", BrokerUnavailable, Then.RETRY),  # a new socket would be one too many
    Rule(redis_errors.MaxConnectionsError, BrokerUnavailable, Then.RETRY),  # ours: all are in use, and all are good
    # The data is gone, or was written by another.
    Rule("NOGROUP", BrokerReset, Then.REMAKE),
    Rule("UNBLOCKED", BrokerReset, Then.REMAKE),
    Rule("WRONGTYPE", BrokerReset, Then.REMAKE),
    # No answer. Sentinel knows no master just now: that is a ConnectionError too.
    Rule(redis_errors.ConnectionError, BrokerUnavailable, Then.RESOLVE),
    Rule(redis_errors.TimeoutError, BrokerUnavailable, Then.RESOLVE),
    Rule(OSError, BrokerUnavailable, Then.RESOLVE),
    # Anything else is a mistake in what was asked.
    Rule(Exception, BrokerError, Then.RAISE),
)


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def judge(error: Exception) -> Rule:
    """Find the line of the policy for `error`, raised by redis-py or a socket."""
    word, _, rest = _text(error).partition(" ")
    text = f"{word.rstrip(':')} {rest} "

    def fits(sign: str | type[Exception]) -> bool:
        return text.startswith(f"{sign} ") if isinstance(sign, str) else isinstance(error, sign)

    return next(rule for rule in POLICY if fits(rule.sign))


class Backoff:
    """Pauses for one who sends again: full jitter below a bound that doubles, so that no fleet comes back in step."""

    def __init__(self) -> None:
        self._bound = FIRST_PAUSE_SECONDS

    def next(self) -> float:
        """Return the seconds to wait now."""
        pause = random.uniform(0, self._bound)  # noqa: S311 - spreads load, hides nothing
        self._bound = min(self._bound * 2, LONGEST_PAUSE_SECONDS)
        return pause

    def reset(self) -> None:
        """Begin again with short pauses."""
        self._bound = FIRST_PAUSE_SECONDS
