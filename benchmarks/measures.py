"""The lines of the table, and what each of them means."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.machine import Figure


@dataclass
class Measure:
    """The figures of one line of the table, one a round; of a latency the rate is its ms, of memory its bytes.

    Attributes:
        title: what the line is called.
        explanation: what was measured.
        unit: of the figures.
        goal: what streamq's figure is to stay under; None: it is compared with the bare loop only.
        bare: figures of the bare loop.
        ours: figures of streamq.
        celery: figures of Celery, if it is measured too.
    """

    title: str
    explanation: str
    unit: str = "/s"
    goal: float | None = None
    bare: list[Figure] = field(default_factory=list)
    ours: list[Figure] = field(default_factory=list)
    celery: list[Figure] = field(default_factory=list)


def measures() -> dict[str, Measure]:
    """Make all of them, without figures."""
    return {**_tasks(), **_channels(), **_flows()}


def _tasks() -> dict[str, Measure]:
    return {
        "enqueue": Measure(
            "enqueue, single",
            "redis-py's XADD of a 100-byte field, against noop.delay(): one round trip each.",
        ),
        "enqueue_many": Measure(
            "enqueue, many",
            "a redis-py pipeline of XADDs, 250 to a round trip, against app.enqueue_many(noop.s() ...).",
        ),
        "drain": Measure(
            "drain, async",
            "XREADGROUP COUNT 100, an asyncio task for each on uvloop, a script that does XACK, XDEL and SET"
            " PX for each, against one worker process that stores results.",
        ),
        "drain_threads": Measure("drain, threads", "the same worker with a task that runs in threads."),
        "promotion_few": Measure(
            "promotion, few",
            "tasks whose time has come are moved to their stream, a hundred in a step, by one process, while a thousand"
            " others wait for theirs.",
        ),
        "promotion_many": Measure("promotion, many", "the same, while a million others wait."),
        "drain_limited": Measure(
            "drain, limited", "the same worker with a task that has a rate and a number of places, which let in all."
        ),
        "latency_p50": Measure(
            "latency p50",
            "XADD, a waiting XREADGROUP in another process, LPUSH and BLPOP, against noop.delay().get();"
            " less is better.",
            unit="ms",
        ),
        "latency_p99": Measure("latency p99", "of the same calls, the slowest in a hundred.", unit="ms"),
        "fair_p50": Measure(
            "fair p50",
            "noop.delay().get() for one tenant, while there are calls of another for the whole time.",
            unit="ms",
        ),
    }


def _channels() -> dict[str, Measure]:
    return {
        "tell_p50": Measure(
            "heard p50",
            "from before a message of a channel is published until another process has it: redis-py's asyncio publish"
            " and pubsub.listen() with json, against channel.publish() and channel.listen() with a pydantic model; both"
            " on uvloop.",
            unit="ms",
        ),
        "request_p50": Measure(
            "request p50",
            "agent.request() to an agent of another process, which gets it by its durable inbox, and its reply.",
            unit="ms",
        ),
        "publish": Measure(
            "publish, many",
            "a redis-py pipeline of PUBLISH, 250 to a round trip, against 250 calls of channel.publish() at a time.",
        ),
        "hear": Measure("hear", "the same listeners, of small messages that are published as fast as can be."),
        "hear_many": Measure("hear, many", "a thousand listeners of one process, deliveries to all of them together."),
        "listener_memory": Measure("listener", "memory of each of these thousand listeners.", unit="KB"),
        "stuck": Measure(
            "stuck listener",
            "the most that the server keeps in the buffers of its clients while 5,000 messages of 10 KB a second are"
            " published to a listener that reads nothing. The server closes the connection of the bare one at 32 MB.",
            unit="MB",
        ),
        "stuck_memory": Measure(
            "stuck, memory", "by how much the memory of the server grew at most meanwhile.", unit="MB"
        ),
    }


def _flows() -> dict[str, Measure]:
    return {
        "chain_hop": Measure(
            "chain hop p50",
            "in a chain of 50 no-ops, from the start of one to the start of the next, in one worker process. Bare: a"
            " worker's own script does XACK, XDEL, SET PX and XADD of the next, then XREADGROUP. Less is better.",
            unit="ms",
        ),
        "chain_p50": Measure(
            "chain of two p50",
            "from the call to the result of the second at the caller: chain(noop, noop).delay().get().",
            unit="ms",
        ),
        "chord_delay": Measure(
            "chord, delay",
            "members a second that the caller makes and enqueues, of a chord of no-ops; the process is the caller.",
        ),
        "chord": Measure(
            "chord, whole",
            "members a second from then to the body's result at the caller, with one worker process that waits;"
            " the process is the worker.",
        ),
        "chord_fullest": Measure(
            "chord, fullest",
            "by how much the memory of the server grew at most, a member: seen each 5 ms, when all were enqueued and"
            " no worker ran, and until the body had run. The ratio is to 1 KiB, which is to be kept under.",
            unit="B",
            goal=1024,
        ),
        "chord_end": Measure(
            "chord, end", "the same after the end, with all results and the graph kept.", unit="B", goal=1024
        ),
        "nested_fullest": Measure(
            "nested, fullest",
            "the growth at most with six chords of ten no-ops in each other: each but the innermost has the next one as"
            " its eleventh member. The ratio is to 1 MiB, which is to be kept under.",
            unit="KB",
            goal=1024,
        ),
        "nested_end": Measure("nested, end", "the same after the end, with all kept.", unit="KB", goal=1024),
    }
