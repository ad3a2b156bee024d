"""Judges what a server said. Pure: nothing is asked here."""

from __future__ import annotations

from collections.abc import Callable

from streamq.broker.diagnosis import Answers
from streamq.broker.server import name_server
from streamq.doctor.findings import Finding, Level
from streamq.doctor.releases import check_release
from streamq.errors import BrokerError, BrokerRefused

_OLDEST_VALKEY = 8  # older ones are not tested with
_FULL = 0.8  # of the memory: time to act while there is room
_CLOCK_SECONDS = 1.0
_SHOWN = 3
# Redis' own default for subscribers, in its redis.conf: 32mb 8mb 60.
_PUBSUB_HARD, _PUBSUB_SOFT, _PUBSUB_SECONDS = 32 * 1024**2, 8 * 1024**2, 60


def judge(answers: Answers) -> list[Finding]:
    """Judge a server by its answers."""
    try:
        server = name_server(answers.info)
    except BrokerRefused as error:
        return [Finding(Level.REFUSED, "server", str(error), "install a newer one")]
    if "sentinel" in (answers.info.get("redis_mode"), answers.info.get("server_mode")):
        return [Finding(Level.REFUSED, "server", f"{server}, a Sentinel: it keeps no data", "give its server's URL")]
    found = [_server(server), check_release(server, tls=answers.settings.url.startswith("rediss"))]
    return found + [finding for name, check in _CHECKS.items() if (finding := _run(name, check, answers))]


def _run(name: str, check: Callable[[Answers], Finding | None], answers: Answers) -> Finding | None:
    try:
        return check(answers)
    except ValueError as error:  # of a server that is not quite like Redis
        return Finding(Level.UNKNOWN, name, f"what the server says of this is not understood: {error}")


def _server(server: str) -> Finding:
    kind, _, number = server.partition(" ")
    if kind == "Valkey" and int(number.partition(".")[0]) < _OLDEST_VALKEY:
        return Finding(Level.WARNING, "server", f"{server}: streamq is not tested with it", "install Valkey 8 or newer")
    return Finding(Level.OK, "server", server)


def _commands(answers: Answers) -> Finding:
    found = answers.forbidden
    if isinstance(found, BrokerError):
        return _no_scripts(found)
    if not found:
        return Finding(Level.OK, "commands", "all that streamq does is permitted")
    names = sorted({command.partition(" ")[0] for command in found})
    few = f"{', '.join(found[:_SHOWN])}{', ...' if len(found) > _SHOWN else ''}"
    return Finding(
        Level.REFUSED,
        "commands",
        f"this user may not do all that streamq does: {few}",
        f"permit {', '.join(names)} for the keys and channels of the namespace, in the user's ACL",
    )


def _no_scripts(error: BrokerError) -> Finding:
    text = str(error)
    if not isinstance(error, BrokerRefused) and not text.startswith("unknown command"):
        return Finding(Level.UNKNOWN, "commands", f"whether all that streamq does is permitted is not known: {text}")
    if "evalsha" in text.lower():
        return Finding(Level.REFUSED, "commands", f"this user may not run scripts: {text}", "permit EVALSHA and EVAL")
    return Finding(
        Level.WARNING,
        "commands",
        f"once the server has forgotten the scripts, as after a restart, nothing works: {text}",
        "permit EVAL",
    )


def _eviction(answers: Answers) -> Finding:
    policy = answers.info.get("maxmemory_policy")
    if policy is None:
        return Finding(Level.UNKNOWN, "eviction", "maxmemory-policy is not known", "see that it is noeviction")
    if policy == "noeviction":
        return Finding(Level.OK, "eviction", "maxmemory-policy is noeviction: nothing is deleted for want of memory")
    lost = "results before their time" if policy.startswith("volatile-") else "whole streams, and with them their tasks"
    return Finding(
        Level.REFUSED,
        "eviction",
        f"maxmemory-policy is {policy}: for want of memory the server deletes {lost}",
        "CONFIG SET maxmemory-policy noeviction, and the same in the server's configuration",
    )


def _memory(answers: Answers) -> Finding:
    used, limit = (int(answers.info.get(name, 0)) for name in ("used_memory", "maxmemory"))
    text, then = "maxmemory", "when it is full, nothing can be enqueued"
    if not limit:
        limit = int(answers.info.get("total_system_memory", 0))
        text, then = "the machine's memory, as there is no maxmemory", "when that is full, the kernel may kill it"
    if not used or not limit:
        return Finding(Level.UNKNOWN, "memory", "whether the memory is full is not known")
    text = f"it uses {used / limit:.0%} of {text}"
    if used < _FULL * limit:
        return Finding(Level.OK, "memory", text)
    return Finding(Level.WARNING, "memory", f"{text}: {then}", "streamq queues shows what waits there")


def _persistence(answers: Answers) -> Finding:
    log = answers.info.get("aof_enabled")
    if log is None:
        return Finding(Level.UNKNOWN, "persistence", "whether anything is written to disk is not known")
    if log != "0":
        return Finding(Level.OK, "persistence", "each write goes to an append-only file")
    points = None if isinstance(answers.config, BrokerError) else answers.config.get("save")
    if points is None:
        text = "there is no append-only file: a crash loses what no snapshot has"
    elif points:
        longest = max(map(int, points.split()[::2]))
        text = f"only snapshots are written (save {points}): a crash may lose all of the last {longest} s"
    else:
        text = "nothing is written to disk: a restart loses every task"
    if answers.settings.durability == "fsync":
        text += ", and durability='fsync' cannot be had"
    advice = "CONFIG SET appendonly yes, and the same in the server's configuration"
    return Finding(Level.WARNING, "persistence", text, advice)


def _fsync(answers: Answers) -> Finding | None:
    if answers.info.get("aof_enabled", "0") == "0":
        return None
    how = _setting(answers, "appendfsync", "fsync", "see that it is everysec or always")
    if isinstance(how, Finding):
        return how
    if how == "no" and answers.embedded:
        text = "appendfsync is no, as embedded:// has it: no kill loses anything, a power cut may lose some seconds"
        return Finding(Level.OK, "fsync", text)
    if how == "no":
        # "Usually Linux will flush data every 30 seconds with this configuration": redis.io, Redis persistence.
        text = "appendfsync is no: a power cut may lose the last half minute"
        return Finding(Level.WARNING, "fsync", text, "CONFIG SET appendfsync everysec")
    loss = "nothing that was acknowledged" if how == "always" else "about a second"
    return Finding(Level.OK, "fsync", f"appendfsync is {how}: a power cut loses {loss}")


def _disk(answers: Answers) -> Finding:
    names = ["rdb_last_bgsave_status"]
    if answers.info.get("aof_enabled", "0") != "0":
        names += ["aof_last_write_status", "aof_last_bgrewrite_status"]
    said = {name: answers.info.get(name) for name in names}
    failed = [name for name, status in said.items() if status not in {"ok", None}]
    if failed:
        text = f"its last write to disk failed ({', '.join(failed)}): it may refuse all writes (MISCONF)"
        return Finding(Level.WARNING, "disk", text, "see the server's log, and the room on its disk")
    if None in said.values():
        return Finding(Level.UNKNOWN, "disk", "whether its writes to disk succeed is not known")
    return Finding(Level.OK, "disk", "its last writes to disk succeeded")


def _role(answers: Answers) -> Finding:
    info = answers.info
    role = info.get("role")
    if role is None:
        return Finding(Level.UNKNOWN, "role", "whether it takes writes is not known", "see that it is no replica")
    if role == "master":
        return Finding(Level.OK, "role", "it is a primary")
    text = f"it is a replica of {info.get('master_host', '?')}:{info.get('master_port', '?')}: it takes no writes"
    return Finding(Level.REFUSED, "role", text, "give the URL of its primary")


def _replicas(answers: Answers) -> Finding | None:
    if answers.info.get("role") != "master":
        return None
    count = int(answers.info.get("connected_slaves", 0))
    connected = "1 replica is connected" if count == 1 else f"{count or 'no'} replicas are connected"
    waits = answers.settings.durability == "replica"
    if not count and waits:
        return Finding(Level.WARNING, "replicas", f"{connected}, and durability='replica' waits for one")
    if not count or waits:
        return Finding(Level.OK, "replicas", connected)
    # INFO has this field if min-replicas-to-write is set (genRedisInfoString in redis' server.c).
    if "min_slaves_good_slaves" in answers.info:
        return Finding(Level.OK, "replicas", f"{connected}; without any, writes are refused (min-replicas-to-write)")
    return Finding(
        Level.WARNING,
        "replicas",
        f"{connected}, and min-replicas-to-write is 0: a failover loses what they have not got yet",
        "enqueue with durability='replica' what must not be lost",
    )


def _cluster(answers: Answers) -> Finding:
    enabled = answers.info.get("cluster_enabled")
    if enabled == "0":
        return Finding(Level.OK, "cluster", "cluster mode is off")
    if enabled is None:
        return Finding(Level.UNKNOWN, "cluster", "whether it is part of a cluster is not known")
    text = "cluster mode is on, and streamq talks to this node alone: queues of other nodes fail (MOVED)"
    return Finding(Level.WARNING, "cluster", text, "use a server without cluster mode")


def _timeout(answers: Answers) -> Finding:
    seconds = _setting(answers, "timeout", "timeout", "see that it is 0")
    if isinstance(seconds, Finding):
        return seconds
    if seconds == "0":
        return Finding(Level.OK, "timeout", "idle connections are kept")
    return Finding(
        Level.WARNING,
        "timeout",
        f"connections are cut after {seconds} s of silence (timeout): the next call over one fails, and is sent again",
        "CONFIG SET timeout 0; tcp-keepalive finds dead ones",
    )


def _pubsub(answers: Answers) -> Finding:
    limits = _setting(answers, "client-output-buffer-limit", "pubsub", "see that it has pubsub 32mb 8mb 60 or more")
    if isinstance(limits, Finding):
        return limits
    words = limits.split()
    hard, soft, seconds = map(int, words[words.index("pubsub") + 1 :][:3])
    small = 0 < hard < _PUBSUB_HARD or 0 < soft < _PUBSUB_SOFT  # 0 means no limit
    small = small or (soft == _PUBSUB_SOFT and seconds < _PUBSUB_SECONDS)
    text = f"client-output-buffer-limit is pubsub {hard} {soft} {seconds}"
    if not small:
        return Finding(Level.OK, "pubsub", text)
    return Finding(
        Level.WARNING,
        "pubsub",
        f"{text}: listeners are cut off early, and miss events",
        'CONFIG SET client-output-buffer-limit "pubsub 32mb 8mb 60"',
    )


def _clock(answers: Answers) -> Finding:
    if "server_time_usec" not in answers.info:
        return Finding(Level.UNKNOWN, "clock", "its time is not known")
    ahead = answers.clock_ahead
    if abs(ahead) <= _CLOCK_SECONDS:
        return Finding(Level.OK, "clock", "its clock agrees with this machine's")
    text = f"its clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    return Finding(Level.WARNING, "clock", text, "synchronise both; streamq goes by the server's")


def _setting(answers: Answers, name: str, check: str, advice: str) -> str | Finding:
    """Return a setting's value; if it is not known, what there is to say about that."""
    if isinstance(answers.config, BrokerError):
        return Finding(Level.UNKNOWN, check, f"{name} is not known: {answers.config}", advice)
    value = answers.config.get(name)
    return Finding(Level.UNKNOWN, check, f"{name} is not known", advice) if value is None else value


_CHECKS: dict[str, Callable[[Answers], Finding | None]] = {
    "commands": _commands,
    "eviction": _eviction,
    "memory": _memory,
    "persistence": _persistence,
    "fsync": _fsync,
    "disk": _disk,
    "role": _role,
    "replicas": _replicas,
    "cluster": _cluster,
    "timeout": _timeout,
    "pubsub": _pubsub,
    "clock": _clock,
}
