"""The HTTP server for probes and metrics. Only a worker that is asked to have it imports this.

It runs in threads of the supervisor, which does no work of its own, so an answer does not wait for user code.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from streamq.errors import ConfigError, MissingExtra
from streamq.worker.tally import Tally

_POLL_SECONDS = 0.1  # how soon it sees that it should end
_SLOWEST_CLIENT_SECONDS = 5.0
_TEXT = "text/plain; charset=utf-8"


class Health:
    """Serves ``/live``, ``/ready`` and ``/metrics``.

    Args:
        tally: what is known of the children.
        host: the address to listen on; None: all of them, because probes come from outside of the container.
        port: 0: any that is free.

    Raises:
        ConfigError: nothing can listen there.
    """

    def __init__(self, tally: Tally, host: str | None, port: int) -> None:
        try:
            self._server = _Server(tally, host, port)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"cannot listen on {_place(host or '*', port)} for --health-port: {error}") from None
        self.address = "http://" + _place(host or "0.0.0.0", self._server.server_address[1])  # noqa: S104 - to be shown

    def start(self) -> None:
        """Answer from now on, until the process ends."""
        serve = partial(self._server.serve_forever, poll_interval=_POLL_SECONDS)
        threading.Thread(target=serve, name="streamq-health", daemon=True).start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, tally: Tally, host: str | None, port: int) -> None:
        self.tally = tally
        both = host is None and socket.has_dualstack_ipv6()
        self.address_family = socket.AF_INET6 if both or ":" in (host or "") else socket.AF_INET
        self._both = both
        super().__init__((host or "", port), _Handler)

    def server_bind(self) -> None:
        if self._both:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # That of HTTPServer would look up this host's name, which can take long.
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SLOWEST_CLIENT_SECONDS

    def do_GET(self) -> None:
        tally = self.server.tally
        match self.path.partition("?")[0]:
            case "/live":
                self._verdict(tally.troubles())
            case "/ready":
                self._verdict(tally.hindrances())
            case "/metrics":
                self._metrics(tally)
            case _:
                self._answer(HTTPStatus.NOT_FOUND, "there are /live, /ready and /metrics\n")

    do_HEAD = do_GET  # noqa: N815 - so named by http.server

    def do_POST(self) -> None:
        self._answer(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD\n", headers={"Allow": "GET, HEAD"})

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_POST  # noqa: N815 - so named by http.server

    def _verdict(self, against: list[str]) -> None:
        if against:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "".join(f"{line}\n" for line in against))
        else:
            self._answer(HTTPStatus.OK, "ok\n")

    def _metrics(self, tally: Tally) -> None:
        from streamq.worker.exposition import expose  # noqa: PLC0415 - needs an extra

        try:
            text, kind = expose(tally)
        except MissingExtra as error:
            self._answer(HTTPStatus.NOT_IMPLEMENTED, f"{error}\n")
        else:
            self._answer(HTTPStatus.OK, text, kind)

    def _answer(
        self, status: HTTPStatus, text: str, kind: str = _TEXT, headers: Mapping[str, str] | None = None
    ) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        """Name no versions to strangers."""
        return "streamq"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - see above
        """Log nothing: probes come every few seconds."""
