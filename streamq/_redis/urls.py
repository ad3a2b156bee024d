"""What a URL says about where Redis is."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from redis.connection import parse_url

from streamq.config import display_url
from streamq.errors import ConfigError

EMBEDDED = "embedded://"
_SCHEMES = ("redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://")
_CLUSTER_SCHEMES = ("redis+cluster://", "rediss+cluster://")
_CLUSTER_FORM = "redis+cluster://[user:password@]HOST[:6379][,HOST...]"
_CLUSTER_PORT = 6379
_SENTINEL_PORT = 26379
_SENTINEL_FORM = "redis+sentinel://[user:password@]HOST[:26379][,HOST...]/SERVICE[/DB]"

# There is no standard for such URLs; this is the form of redisvl, LangChain, docket, Prefect, and Redis-Sentinel-Url.
_SENTINEL = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://(?P<login>[^@/?#]*@)?(?P<hosts>[^@/?#;\s]+)"
    r"/(?P<service>[^@/?#]+)(?P<database>/\d*)?(?P<query>\?[^#]*)?"
)

_CLUSTER = re.compile(
    r"(?P<scheme>rediss?)\+cluster://(?P<login>[^@/?#]*@)?(?P<hosts>[^@/?#;\s]+)/?(?P<query>\?[^#]*)?"
)

# What may stand behind the "?" of a URL; other options of redis-py would break what is set on purpose.
_QUERY_OPTIONS = {
    "db",
    "username",
    "password",
    "client_name",
    "socket_connect_timeout",
    "ssl_cert_reqs",
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_ca_data",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
    "ssl_check_hostname",
}
_SENTINEL_OPTIONS = {"sentinel_username", "sentinel_password"}

# A connection that went dead without a word is noticed within half a minute, also by one who only listens.
KEEPALIVE: dict[str, Any] = {
    "socket_keepalive": True,
    "socket_keepalive_options": {
        getattr(socket, name): value
        for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    },
}


@dataclass(frozen=True)
class Place:
    """Where Redis is.

    Attributes:
        options: of redis-py's connections, as far as the URL has any.
        directory: of an embedded server.
        service: what the Sentinels call the master.
        sentinels: host and port of each Sentinel.
        sentinel_options: of the connections to them.
    """

    options: dict[str, Any] = field(default_factory=dict)
    directory: Path | None = None
    service: str = ""
    sentinels: tuple[tuple[str, int], ...] = ()
    sentinel_options: dict[str, Any] = field(default_factory=dict)


class Address(NamedTuple):
    """Where a node of a cluster is."""

    host: str
    port: int


@dataclass(frozen=True)
class ClusterPlace:
    """Where a cluster is.

    Attributes:
        seeds: nodes that are asked first.
        before: what stands before the host in the URL of each node.
        after: what stands behind its port.
    """

    seeds: tuple[Address, ...]
    before: str
    after: str

    def url_of(self, address: Address) -> str:
        """Make the URL of one node."""
        host = f"[{address.host}]" if ":" in address.host else address.host
        return f"{self.before}{host}:{address.port}{self.after}"


def is_cluster(url: str) -> bool:
    """Tell whether `url` is that of a Redis Cluster."""
    return url.startswith(_CLUSTER_SCHEMES)


def check_url(url: str) -> None:
    """Look at `url`, of a server or of a cluster, without connecting.

    Raises:
        ConfigError: it is of no form that streamq knows.
    """
    if is_cluster(url):
        read_cluster(url)
    else:
        read_url(url)


def read_cluster(url: str) -> ClusterPlace:
    """Read what `url` says about a cluster.

    Raises:
        ConfigError: it is not of the form for clusters.
    """
    found = _CLUSTER.fullmatch(url)
    if not found:
        raise ConfigError(f"cannot use the URL {display_url(url)!r}: its form must be {_CLUSTER_FORM}")
    before, after = f"{found['scheme']}://{found['login'] or ''}", found["query"] or ""
    try:
        _check_query(after[1:], _QUERY_OPTIONS - {"db"})  # a cluster has one database
        seeds = tuple(Address(*_read_host(host, parse_url, _CLUSTER_PORT)) for host in found["hosts"].split(","))
        place = ClusterPlace(seeds, before, after)
        _read_plain(place.url_of(seeds[0]), parse_url)
    except ValueError as error:
        raise _unusable(url, error) from None
    return place


def read_url(url: str, parse: Any = parse_url) -> Place:
    """Read what `url` says of one server; `parse` is the function of redis-py for the kind of connection.

    Raises:
        ConfigError: it is of no form that streamq knows, or that of a cluster.
    """
    if is_cluster(url):
        raise ConfigError(
            f"cannot use the URL {display_url(url)!r}: tasks and queues need a single server, or Sentinel; a Redis"
            " Cluster can have the channels: give it as events_url"
        )
    if url.startswith(EMBEDDED):
        directory = url.removeprefix(EMBEDDED)
        if not directory:
            raise ConfigError("embedded:// needs a folder, such as embedded://./data or embedded:///var/lib/shop")
        return Place(directory=Path(directory).expanduser().absolute())
    if not url.startswith(_SCHEMES):
        known = ", ".join((*_SCHEMES, *_CLUSTER_SCHEMES, EMBEDDED))
        raise ConfigError(f"cannot use the URL {display_url(url)!r}: it must begin with one of {known}")
    try:
        return _read_sentinel(url, parse) if "+sentinel://" in url else Place(_read_plain(url, parse))
    except ValueError as error:
        raise _unusable(url, error) from None


def _unusable(url: str, error: ValueError) -> ConfigError:
    # The error's text may quote a password that was not escaped.
    why = f"percent-encode what is special in its password ({type(error).__name__})" if "@" in url else error
    return ConfigError(f"cannot use the URL {display_url(url)!r}: {why}")


def _read_plain(url: str, parse: Any) -> dict[str, Any]:
    """Read a URL as redis-py does, but raise ValueError for what it would take and not as it is meant."""
    options: dict[str, Any] = parse(url)
    parts = urlsplit(url)
    _check_query(parts.query, _QUERY_OPTIONS)
    if parts.scheme != "unix" and not re.fullmatch(r"/?|/\d+", parts.path):
        raise ValueError(f"the path {parts.path!r} is no database number")
    return options if "path" in options else {**KEEPALIVE, **options}


def _check_query(query: str, known: set[str]) -> dict[str, list[str]]:
    found = parse_qs(query)
    if strange := found.keys() - known:
        raise ValueError(f"unknown option {', '.join(sorted(strange))}")
    return found


def _read_sentinel(url: str, parse: Any) -> Place:
    found = _SENTINEL.fullmatch(url)
    if not found:
        raise ConfigError(f"cannot use the URL {display_url(url)!r}: its form must be {_SENTINEL_FORM}")
    scheme, query = found["scheme"], (found["query"] or "")[1:]
    asked = _check_query(query, _QUERY_OPTIONS | _SENTINEL_OPTIONS)
    own = "&".join(part for part in query.split("&") if part.partition("=")[0] not in _SENTINEL_OPTIONS)
    # What is the server's is read as if it stood in the URL of a server.
    options = _read_plain(f"{scheme}://{found['login'] or ''}{found['database'] or ''}?{own}", parse)
    for unknown in ("host", "port"):
        options.pop(unknown, None)
    login = {name.removeprefix("sentinel_"): asked[name][0] for name in _SENTINEL_OPTIONS & asked.keys()}
    if options.pop("connection_class", None) is not None:
        options["ssl"] = True
    tls = {name: value for name, value in options.items() if name.startswith("ssl")}
    return Place(
        options=options,
        service=unquote(found["service"]),
        sentinels=tuple(_read_host(host, parse, _SENTINEL_PORT) for host in found["hosts"].split(",")),
        sentinel_options={**KEEPALIVE, **tls, **login},
    )


def _read_host(host: str, parse: Any, port: int) -> tuple[str, int]:
    address = parse(f"redis://{host}")
    if not address.get("host"):
        raise ValueError("a host without a name")
    return address["host"], address.get("port", port)
