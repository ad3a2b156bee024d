"""What a URL says about where Redis is."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from redis.connection import parse_url

from streamq.config import display_url
from streamq.errors import ConfigError

EMBEDDED = "embedded://"
_SCHEMES = ("redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://")
_SENTINEL_PORT = 26379
_SENTINEL_FORM = "redis+sentinel://[user:password@]HOST[:26379][,HOST...]/SERVICE[/DB]"

# There is no standard for such URLs; this is the form of redisvl, LangChain, docket, Prefect, and Redis-Sentinel-Url.
_SENTINEL = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://(?P<login>[^@/?#]*@)?(?P<hosts>[^@/?#;\s]+)"
    r"/(?P<service>[^@/?#]+)(?P<database>/\d*)?(?P<query>\?[^#]*)?"
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


def check_url(url: str) -> None:
    """Look at `url` without connecting.

    Raises:
        ConfigError: it is of no form that streamq knows.
    """
    read_url(url)


def read_url(url: str, parse: Any = parse_url) -> Place:
    """Read what `url` says; `parse` is the function of redis-py for the kind of connection.

    Raises:
        ConfigError: it is of no form that streamq knows.
    """
    if url.startswith(EMBEDDED):
        directory = url.removeprefix(EMBEDDED)
        if not directory:
            raise ConfigError("embedded:// needs a folder, such as embedded://./data or embedded:///var/lib/shop")
        return Place(directory=Path(directory).expanduser().absolute())
    if not url.startswith(_SCHEMES):
        known = ", ".join((*_SCHEMES, EMBEDDED))
        raise ConfigError(f"cannot use the URL {display_url(url)!r}: it must begin with one of {known}")
    try:
        return _read_sentinel(url, parse) if "+sentinel://" in url else Place(_read_plain(url, parse))
    except ValueError as error:
        # The error's text may quote a password that was not escaped.
        why = f"percent-encode what is special in its password ({type(error).__name__})" if "@" in url else error
        raise ConfigError(f"cannot use the URL {display_url(url)!r}: {why}") from None


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
        sentinels=tuple(_read_host(host, parse) for host in found["hosts"].split(",")),
        sentinel_options={**KEEPALIVE, **tls, **login},
    )


def _read_host(host: str, parse: Any) -> tuple[str, int]:
    address = parse(f"redis://{host}")
    if not address.get("host"):
        raise ValueError("a Sentinel without a name")
    return address["host"], address.get("port", _SENTINEL_PORT)
