"""A proxy between clients and the server. It knows which call passes, and can make it fail.

    with Proxy(server_url) as proxy:
        lost = proxy.strike("finish", Fault.AFTER)  # the reply to the next one
        ...  # clients use proxy.url
        assert lost.struck
        assert "finish" in proxy.names

Calls of scripts have the script's name, others the words that say what is done: ``XREADGROUP``, ``CLIENT UNBLOCK``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from streamq._redis import scripts
from streamq._redis.urls import EMBEDDED

_FOLDER = Path(scripts.__file__).parent / "lua"
SCRIPTS = {
    script.digest.encode(): script.name
    for script in (scripts.load(path.stem) for path in sorted(_FOLDER.glob("[!_]*.lua")))
}
_TWO_WORDS = {"CLIENT", "CONFIG", "PUBSUB", "SCRIPT", "XGROUP", "XINFO"}
_SUBSCRIBING = {"SUBSCRIBE", "PSUBSCRIBE"}
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER without time: close() sends RST


class Fault(StrEnum):
    """What can happen to a call."""

    BEFORE = "before"
    """The connection is reset; the server never sees the call."""
    AFTER = "after"
    """The server carries the call out; its reply is dropped, and the connection closed."""
    DELAY = "delay"
    """The server carries the call out; its reply is held back."""
    HOLE = "hole"
    """A black hole: the server never sees the call, and the client has to find out by itself."""


@dataclass(eq=False)
class Strike:
    """A fault that is to come, or has.

    Attributes:
        name: of the calls that it waits for.
        fault: what happens to one of them.
        nth: to which of them, counted from 1.
        seconds: how long a reply is held back; None: until `release`.
        struck: it has happened; of a call that is carried out, afterwards.
    """

    name: str
    fault: Fault
    nth: int
    seconds: float | None
    struck: bool = False
    _released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Let a reply go that is held back."""
        self._released.set()

    async def wait(self) -> None:
        """Hold a reply back; for the proxy."""
        loop = asyncio.get_running_loop()
        end = loop.time() + (60 if self.seconds is None else self.seconds)
        while not self._released.is_set() and loop.time() < end:  # noqa: ASYNC110 - any thread may release it
            await asyncio.sleep(0.005)


class Passed(NamedTuple):
    """A call that came by, and what happened to it."""

    name: str
    fault: Fault | None


class Proxy:
    """Listens on a port of its own, and passes on to a server what it receives; a thread of its own does so.

    Args:
        server_url: ``redis://`` or ``embedded://DIR``; somebody else sees to it that the embedded server runs.

    Attributes:
        url: for clients.
        passed: all calls, in the order in which they came.
    """

    def __init__(self, server_url: str) -> None:
        self.url = ""
        self.passed: list[Passed] = []
        self._connect = _way_to(server_url)
        self._strikes: list[Strike] = []
        self._storm: Callable[[str, int], Fault | None] = lambda _name, _nth: None
        self._storm_seconds = 0.0
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="streamq-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def names(self) -> list[str]:
        """Name all calls, in the order in which they came."""
        return [one.name for one in self.passed]

    def strike(self, name: str, fault: Fault, *, nth: int = 1, seconds: float | None = 0.3) -> Strike:
        """Have a fault happen to the `nth` call from now on that has this name."""
        strike = Strike(name, fault, nth, seconds)
        with self._lock:
            self._strikes.append(strike)
        return strike

    def storm(self, seed: int, share: float, faults: Collection[Fault] = tuple(Fault), *, seconds: float = 0.3) -> None:
        """Have faults happen to a share of all calls.

        Whether and how the n-th call of a name is struck follows from the seed alone, in whatever order calls come.

        Args:
            seed: another one strikes others.
            share: of the calls, 0 to 1; 0 ends the storm.
            faults: which faults may happen.
            seconds: how long replies are held back.
        """
        kinds = tuple(faults)

        def choose(name: str, nth: int) -> Fault | None:
            drawn = hashlib.blake2b(f"{seed} {name} {nth}".encode(), digest_size=8).digest()
            strikes = int.from_bytes(drawn[:6], "big") < share * 2**48
            return kinds[int.from_bytes(drawn[6:], "big") % len(kinds)] if strikes else None

        with self._lock:
            self._storm, self._storm_seconds = choose, seconds

    # ---- in the thread

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._lines: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._attend, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        self._ready.set()
        await self._stop.wait()
        server.close()
        while self._lines:
            await _end(*self._lines)

    def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = asyncio.create_task(self._relay(reader, writer))
        self._lines.add(line)
        line.add_done_callback(self._lines.discard)
        line.add_done_callback(lambda _line: writer.close())  # also if it was ended before it had begun

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it or the server goes, or a fault ends it."""
        requests: asyncio.Queue[tuple[bytes, list[bytes]]] = asyncio.Queue()
        try:
            line = _Line(*await self._connect(), writer)
            both = [asyncio.create_task(_listen(reader, requests)), asyncio.create_task(self._carry(requests, line))]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                line.close()  # first: this may be ended for good while it ends both
                await _end(*both)
        except OSError:
            pass  # the server is away, and so the client has to see

    def _note(self, name: str) -> Strike | None:
        """Take down a call, and find out what is to happen to it."""
        found = None
        with self._lock:
            self._seen[name] += 1
            for strike in self._strikes:
                if strike.name == name and strike.nth > 0:
                    strike.nth -= 1
                    if strike.nth == 0 and found is None:
                        found = strike
            if found is None and (fault := self._storm(name, self._seen[name])) is not None:
                found = Strike(name, fault, 0, self._storm_seconds)
            self.passed.append(Passed(name, found and found.fault))
        return found

    async def _carry(self, requests: asyncio.Queue[tuple[bytes, list[bytes]]], line: _Line) -> None:
        while True:
            request, words = await requests.get()
            name = name_of(words)
            strike = self._note(name)
            fault = strike.fault if strike else None
            if strike and fault in (Fault.BEFORE, Fault.HOLE):
                strike.struck = True
                if fault is Fault.HOLE:
                    await asyncio.Event().wait()  # until the client gives up
                line.reset()
                return
            reply = await line.ask(request)
            if strike:
                strike.struck = True
                if fault is Fault.AFTER:
                    return
                await strike.wait()
            line.answer(reply)
            if name in _SUBSCRIBING:
                line.stream()


class _Line:
    """One client's connection to the server."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._client = client
        self._streaming: asyncio.Task[None] | None = None

    async def ask(self, request: bytes) -> bytes:
        """Have the server carry out a call; returns its reply, if one belongs to the call."""
        self._writer.write(request)
        return b"" if self._streaming else await _read_reply(self._reader)

    def answer(self, reply: bytes) -> None:
        self._client.write(reply)

    def stream(self) -> None:
        """Pass on whatever the server sends: from now on it is not only replies."""
        if self._streaming is None:
            self._streaming = asyncio.create_task(self._pump())

    async def _pump(self) -> None:
        with contextlib.suppress(OSError):
            while data := await self._reader.read(65536):
                self._client.write(data)
        self._client.close()

    def reset(self) -> None:
        self._client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._client.transport.abort()

    def close(self) -> None:
        if self._streaming:
            self._streaming.cancel()
        self._writer.close()


def _way_to(url: str) -> Callable[[], Coroutine[object, object, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    if url.startswith(EMBEDDED):
        from streamq._redis import embedded  # noqa: PLC0415 - an extra

        directory = Path(url.removeprefix(EMBEDDED))
        path = embedded.acquire(directory)
        embedded.release(directory)
        return lambda: asyncio.open_unix_connection(path)
    parts = urlsplit(url)
    return lambda: asyncio.open_connection(parts.hostname, parts.port or 6379)


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def name_of(words: list[bytes]) -> str:
    """Name a call."""
    first = words[0].decode().upper()
    if first == "EVALSHA":
        return SCRIPTS.get(words[1], first)
    if first == "EVAL":
        return SCRIPTS.get(hashlib.sha1(words[1], usedforsecurity=False).hexdigest().encode(), first)
    return f"{first} {words[1].decode().upper()}" if first in _TWO_WORDS else first


async def _listen(reader: asyncio.StreamReader, requests: asyncio.Queue[tuple[bytes, list[bytes]]]) -> None:
    """Read what a client sends, until it goes; also while the server is at work, so that its going is noticed."""
    with contextlib.suppress(OSError, EOFError):
        while True:
            head = await reader.readuntil(b"\r\n")
            parts, words = [head], []
            for _ in range(int(head[1:])):
                size = await reader.readuntil(b"\r\n")
                body = await reader.readexactly(int(size[1:]) + 2)
                parts += (size, body)
                words.append(body[:-2])
            requests.put_nowait((b"".join(parts), words))


async def _read_reply(reader: asyncio.StreamReader) -> bytes:
    """Read one whole reply, as it is."""
    head = await reader.readuntil(b"\r\n")
    kind, size = head[:1], head[1:-2]
    if kind == b"$" and int(size) >= 0:
        return head + await reader.readexactly(int(size) + 2)
    if kind == b"*":
        return head + b"".join([await _read_reply(reader) for _ in range(int(size))])
    return head
