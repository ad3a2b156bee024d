"""The channels of agents."""

from __future__ import annotations

ALL = "agent:all:events"
TASKS = "agent:coordination:tasks"
RESULTS = "agent:coordination:results"
PRESENCE = "agent:presence:events"


def events(agent: str) -> str:
    """Channel of what an agent publishes."""
    return f"agent:{agent}:events"


def inbox(agent: str) -> str:
    """Durable channel of what is sent to an agent; its instances share it."""
    return f"agent:{agent}:inbox"


def replies(agent: str, instance: str) -> str:
    """Durable channel, kept for some minutes, of the replies to one instance of an agent."""
    return f"agent:{agent}:replies:{instance}"


def tasks(kind: str, capability: str | None) -> str:
    """Durable channel of the assignments of one type, and with one capability, if one is asked for."""
    return f"{TASKS}:{kind}" if capability is None else f"{TASKS}:{kind}:{capability}"
