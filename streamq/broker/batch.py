"""The call that enqueues messages of several queues, all or none. Pure: nothing is sent here."""

from __future__ import annotations

from collections.abc import Sequence

from streamq._redis.keys import GROUP, Keys
from streamq._redis.scripts import Call, Word, load
from streamq.errors import BrokerError, BrokerRefused
from streamq.message import Message
from streamq.sending import level_of

_ENQUEUE_ALL = load("enqueue_all")


def enqueue_all(keys: Keys, messages: Sequence[Message]) -> Call[set[str]]:
    """Put messages on their queues, all or none; those with a known id are left alone.

    Returns the queues whose names are to be noted: those that are new, and those that had a message already, because
    the reply that said that they are new may have got lost.
    """
    words: list[Word] = []
    args: list[Word] = [GROUP]
    for message in messages:
        queue = keys.queue(message.queue)
        words += (queue.levels[level_of(message.options)], queue.delayed, queue.record(message.id))
        args += (queue.events, queue.name, message.id, message.task, message.args)
        args += (message.delay_ms, message.options)

    def read(reply: list[int]) -> set[str]:
        return {messages[position].queue for position in reply}

    return Call(("EVALSHA", _ENQUEUE_ALL.digest, len(words), *words, *args), read, _ENQUEUE_ALL)


def clarified(error: BrokerError, messages: Sequence[Message]) -> BrokerError:
    """Say what it means when a cluster refuses keys of different slots; any other error says it itself."""
    if "hash to the same slot" not in str(error):  # the server's words, but for the first, which redis-py takes away
        return error
    queues = ", ".join(sorted({message.queue for message in messages}))
    return BrokerRefused(
        f"a Redis Cluster takes no transaction over the queues {queues}, which lie in different slots;"
        " nothing was enqueued"
    )
