"""What an error of redis-py means to streamq."""

from __future__ import annotations

from redis import exceptions as redis_errors

from streamq.errors import BrokerError, BrokerOutOfMemory, BrokerRefused, BrokerReset, BrokerUnavailable

_REFUSED = (
    redis_errors.AuthenticationError,
    redis_errors.AuthorizationError,
    redis_errors.NoPermissionError,
    redis_errors.ClusterCrossSlotError,
)
# The first words of replies for which redis-py has no class, or has one that says something else.
_REFUSED_WORDS = frozenset({"NOAUTH", "NOPERM", "WRONGPASS", "DENIED"})
_RESET_WORDS = frozenset({"NOGROUP", "UNBLOCKED", "WRONGTYPE"})
_AWAY_WORDS = frozenset(
    {"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "READONLY", "TRYAGAIN"}
)


def translate(error: Exception) -> BrokerError:
    """Make the `BrokerError` that says what `error`, raised by redis-py or a socket, means."""
    text = str(error) or type(error).__name__
    word = text.partition(" ")[0].rstrip(":")
    if isinstance(error, _REFUSED) or word in _REFUSED_WORDS:
        return BrokerRefused(text)
    if isinstance(error, redis_errors.OutOfMemoryError) or word == "OOM":
        return BrokerOutOfMemory(text)
    if word in _RESET_WORDS:
        return BrokerReset(text)
    if isinstance(error, redis_errors.InvalidResponse):
        return BrokerRefused(f"this is not a Redis server: {text}")
    away = (redis_errors.ConnectionError, redis_errors.TimeoutError, redis_errors.ReadOnlyError, OSError)
    if isinstance(error, away) or word in _AWAY_WORDS:
        return BrokerUnavailable(text)
    return BrokerError(text)
