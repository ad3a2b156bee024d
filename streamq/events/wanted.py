"""Which events to hear."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from streamq._redis.keys import Keys
from streamq.errors import ConfigError
from streamq.events.event import Event
from streamq.events.kinds import TYPES

# The server compares all patterns with each event that is published: beyond so many, one that matches more is cheaper.
_MOST_PATTERNS = 16


@dataclass(frozen=True)
class Wanted:
    """Which events to hear; all of them if nothing is said. Words may hold ``*`` and ``?``.

    Attributes:
        types: such as ``task.failed``, ``failed``, ``worker`` or ``worker.*``.
        tasks: names of tasks; events of workers are left out.
        queues: names of queues; events of workers are left out.

    Raises:
        ConfigError: there are no such events.
    """

    types: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for word in self.types:
            if not any(fnmatchcase(known, _whole_type(word)) for known in TYPES):
                raise ConfigError(f"there are no events of type {word!r}; there are {', '.join(TYPES)}")
        if not any(self._has_type(known) for known in TYPES):
            raise ConfigError(f"events of type {', '.join(self.types)} have no task and no queue to choose by")

    def _has_type(self, kind: str) -> bool:
        if (self.tasks or self.queues) and not kind.startswith("task."):
            return False
        return not self.types or any(fnmatchcase(kind, _whole_type(word)) for word in self.types)

    def __contains__(self, event: Event) -> bool:
        return self._has_type(event.type) and _matches(event.task, self.tasks) and _matches(event.queue, self.queues)

    def patterns(self, keys: Keys) -> list[str]:
        """Return patterns of channels that let the server leave out most of what is not wanted.

        No event matches two of them, since it would come twice. So words of which one holds a ``*`` become one ``*``,
        and what comes has still to be looked at.
        """
        kinds, words = zip(*(_whole_type(word).split(".", 1) for word in self.types or ("*",)), strict=True)
        of_workers = set(kinds) == {"worker"}
        events = _apart(words)
        queues = ["worker"] if of_workers else _apart(self.queues)
        tasks = ["*"] if of_workers else _apart(self.tasks)
        if len(events) * len(queues) * len(tasks) > _MOST_PATTERNS:
            events = ["*"] if len(events) > 1 else events
            queues = ["*"] if len(queues) > 1 else queues
            tasks = ["*"] if len(tasks) > 1 else tasks
        return [
            keys.events(queue=queue, task=task, event=event) for queue in queues for task in tasks for event in events
        ]


def _whole_type(word: str) -> str:
    if word in {"task", "worker"}:
        return f"{word}.*"
    return word if "." in word else f"*.{word}"


def _matches(name: str | None, words: tuple[str, ...]) -> bool:
    return not words or any(fnmatchcase(name or "", word) for word in words)


def _apart(words: tuple[str, ...]) -> list[str]:
    """Return parts of patterns of which none matches what another does, and which match all that the words do."""
    different = list(dict.fromkeys(words))
    # Redis and fnmatch agree on the meaning of * and ?, but not on that of brackets and backslashes.
    if not different or any(set(word) & set("[]\\") for word in different):
        return ["*"]
    # The * of another part of a pattern matches colons too, so that the end of a:b matches b.
    if len(different) > 1 and any(set(word) & set("*?:") for word in different):
        return ["*"]
    return different
