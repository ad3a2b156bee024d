"""Holes that are known in releases of servers.

Only such as reach what streamq has to use: scripts, blocking reads, and TLS where the URL asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from streamq.doctor.findings import Finding, Level

Version = tuple[int, int, int]


class Hole(NamedTuple):
    """One hole.

    Attributes:
        name: its number.
        what: what it lets happen.
        fixed: by kind of server, the first release of each line without it, oldest first. Lines that are newer than
            the last one never had it.
        since: the first release with it.
        tls: only TLS connections are concerned.
    """

    name: str
    what: str
    fixed: Mapping[str, Sequence[Version]]
    since: Version = (0, 0, 0)
    tls: bool = False


HOLES = [
    # github.com/redis/redis/security/advisories/GHSA-4789-qfc9-5f9q, and the release notes of these releases.
    Hole(
        "CVE-2025-49844",
        "whoever may run scripts may run code on the server",
        {
            "Redis": [(6, 2, 20), (7, 2, 11), (7, 4, 6), (8, 0, 4), (8, 2, 2)],
            "Valkey": [(7, 2, 11), (8, 0, 6), (8, 1, 4)],
        },
    ),
    # github.com/redis/redis/security/advisories/GHSA-93m2-935m-8rj3 (from 7.2.0 on), the release notes of May 2026;
    # 7.2.14 came out with the others that day. Valkey: github.com/valkey-io/valkey/pull/3631 to 3634.
    Hole(
        "CVE-2026-23479",
        "where maxmemory-clients is set, a client may run code on the server",
        {
            "Redis": [(7, 2, 14), (7, 4, 9), (8, 2, 6), (8, 4, 3), (8, 6, 3)],
            "Valkey": [(7, 2, 13), (8, 0, 8), (8, 1, 7), (9, 0, 4)],
        },
        since=(7, 2, 0),
    ),
    # The record of CVE-2026-81934, as of 2026-08-31.
    Hole(
        "CVE-2026-81934",
        "over TLS anybody may run code on the server",
        {
            "Redis": [
                (6, 2, 24),
                (7, 2, 16),
                (7, 4, 11),
                (8, 2, 9),
                (8, 4, 6),
                (8, 6, 6),
                (8, 8, 2),
                (8, 10, 1),
            ]
        },
        tls=True,
    ),
    # The release notes of these releases, 2026-07-21.
    Hole(
        "CVE-2026-56684",
        "over TLS a client may crash the server or run code on it",
        {"Valkey": [(7, 2, 14), (8, 0, 10), (8, 1, 9), (9, 0, 5), (9, 1, 1)]},
        tls=True,
    ),
]

# Lines for which nothing more is released: endoflife.date/redis.
ENDED = {("Redis", (7, 0)): "July 2024", ("Redis", (8, 0)): "February 2026"}


def check_release(server: str, *, tls: bool) -> Finding:
    """Judge the release of a server by its number, such as ``Redis 7.0.15``."""
    kind, _, number = server.partition(" ")
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", number)
    if not found:
        return Finding(Level.UNKNOWN, "release", f"{server}: not a release whose holes could be known here")
    version: Version = (int(found[1]), int(found[2]), int(found[3]))
    holes = [hole for hole in HOLES if (tls or not hole.tls) and _is_open(hole, kind, version)]
    ended = ENDED.get((kind, version[:2]))
    if not holes and not ended:
        return Finding(Level.OK, "release", f"no hole that concerns streamq is known here in {server}")
    faults = [f"{hole.name} ({hole.what})" for hole in holes]
    text = f"by its number {server} has " + " and ".join(faults) if holes else server
    if ended:
        text += f"{', and' if holes else ''} gets no fixes since {ended}"
    return Finding(Level.WARNING, "release", text, _advice(holes, kind, version))


def _is_open(hole: Hole, kind: str, version: Version) -> bool:
    fixed = hole.fixed.get(kind, ())
    if not fixed or version < hole.since or version[:2] > fixed[-1][:2]:
        return False
    return not any(first[:2] == version[:2] and version >= first for first in fixed)


def _advice(holes: Sequence[Hole], kind: str, version: Version) -> str:
    """Name the release of the same line that closes all holes, if there is one."""
    first = [next((one for one in hole.fixed[kind] if one[:2] == version[:2]), None) for hole in holes]
    if not holes or None in first:
        return f"move to a newer line of {kind}, or to a package of this one that is kept up"
    enough = ".".join(map(str, max(one for one in first if one)))
    return f"install {kind} {enough} or newer, or see whether your package has the fix"
