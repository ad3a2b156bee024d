"""The process that keeps one embedded server for as long as it has users, then stops it.

It runs as ``python keeper.py DIR SOCKET BINARY``, by path and without ``site``, so that it starts in a few
milliseconds and stays small. Everything that must hold at ``kill -9`` hangs on locks that the kernel drops:

- ``users.lock``: shared, held by every process that uses the server; the keeper stops when it gets it alone.
- ``keeper.lock``: held by the keeper. No two keepers.
- ``server.lock``: inherited and thereby held by the server itself, so that a new keeper never starts a second
  server on the same append-only file while an old one is still alive or dying.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from types import FrameType

USERS_LOCK: Final = "users.lock"
KEEPER_LOCK: Final = "keeper.lock"
SERVER_LOCK: Final = "server.lock"
SOCKET: Final = "valkey.sock"
LOG: Final = "valkey.log"

POLL_SECONDS: Final = 0.2
STOP_SECONDS: Final = 10.0
STEP_SECONDS: Final = 0.005
# On Linux a server ends with its keeper; one that still answers after this time will not, and is adopted.
ADOPT_AFTER_SECONDS: Final = 0.5
# A server makes its socket in the first milliseconds, before it loads its file. One whose socket was not seen for so
# long has lost it before this process could look.
SOCKET_SECONDS: Final = 2.0

_PR_SET_PDEATHSIG: Final = 1
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def open_lock(path: Path) -> int:
    """Open a lock file, made where it is missing; the descriptor is not inherited by new programs."""
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def try_lock(fd: int) -> bool:
    """Take the lock alone, without waiting; False where anyone else holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(fd: int) -> bool:
    """Whether anyone else holds the lock; holds it no longer than the look takes."""
    if not try_lock(fd):
        return True
    # Unlocked and not only closed: a fork of another thread may have copied the descriptor.
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def ask(socket_path: Path, command: str) -> bytes:
    """Send one inline command to the server.

    Args:
        socket_path: where the server listens.
        command: without arguments that need quotes.

    Returns:
        The first piece of the raw reply; empty where nothing answers within a second.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            connection.connect(str(socket_path))
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(65536)
    except OSError:
        return b""


class _Child:
    """A server that this keeper has started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._gone = False

    def gone(self) -> bool:
        if not self._gone:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._gone = pid == self.pid
            # A server that exits has written why itself, and that shall stay the last line of the log.
            if self._gone and os.WIFSIGNALED(status):
                _say(f"the server (pid {pid}) was killed by signal {os.WTERMSIG(status)}")
        return self._gone


class _Adopted:
    """A server that has outlived the keeper that started it. Its lock tells whether it lives."""

    def __init__(self, pid: int, server_lock: int) -> None:
        self.pid = pid
        self._lock = server_lock

    def gone(self) -> bool:
        return not is_locked(self._lock)


def _find_left_server(server_lock: int, socket_path: Path) -> _Adopted | None:
    """Wait until no server of an earlier keeper lives, or return it where it goes on answering."""
    started = time.monotonic()
    while not try_lock(server_lock):
        waited = time.monotonic() - started
        if waited > STOP_SECONDS:
            raise SystemExit("keeper: an earlier server still runs but does not answer")
        if waited > ADOPT_AFTER_SECONDS:
            _, found, rest = ask(socket_path, "INFO server").partition(b"process_id:")
            if found:
                return _Adopted(int(rest.split()[0]), server_lock)
        time.sleep(STEP_SECONDS)
    return None


def _server_command(directory: Path, socket_path: Path, binary: str) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(directory),
        "appendonly": "yes",
        # Each write is the kernel's before its reply is sent, so that no kill can lose it. With "everysec" it is held
        # back while an fsync is slow, and a kill -9 then loses what was acknowledged (451 to 3,569 writes, in 3 of 6
        # runs with an fsync of 600 ms). A power cut may lose some seconds.
        "appendfsync": "no",
        "save": "",
        "logfile": str(directory / LOG),
        "daemonize": "no",
        "maxmemory-policy": "noeviction",
    }
    return [binary, *(word for name, value in options.items() for word in (f"--{name}", value))]


def _die_with_parent() -> None:
    if sys.platform == "linux":
        # Without it a server outlives its keeper, until the next one adopts it.
        with contextlib.suppress(ImportError, OSError, AttributeError):
            import ctypes  # noqa: PLC0415  # users import this module too, and have no use for it

            # Not SIGKILL: the server may be in the middle of a rewrite of its file.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _run_server(command: list[str], server_lock: int, keeper_pid: int) -> NoReturn:
    """Become the server, in a fork of the keeper that has all signals blocked."""
    try:
        _die_with_parent()
        if os.getppid() != keeper_pid:  # the keeper died before that was set
            os._exit(1)
        os.set_inheritable(server_lock, True)  # noqa: FBT003  # the signature of os
        for number in (*_STOP_SIGNALS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execv(command[0], command)  # noqa: S606  # no shell is wanted
    except OSError as error:
        _say(f"cannot run {command[0]}: {error}")
    finally:
        os._exit(127)


def _start_server(command: list[str], server_lock: int) -> _Child:
    """Start the server as a child that holds ``server_lock`` and, on Linux, ends with this process."""
    keeper_pid = os.getpid()
    # A signal that came while the child still has the handlers of the keeper would be lost.
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    pid = os.fork()
    if pid == 0:
        _run_server(command, server_lock, keeper_pid)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Kept by the server alone, so that it ends with the server.
    os.close(server_lock)
    return _Child(pid)


def _stop(server: _Child | _Adopted) -> None:
    """End the server: cleanly, or by force where that takes more than ``STOP_SECONDS``."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, kind)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            if server.gone():
                return
            time.sleep(STEP_SECONDS)
        _say(f"the server does not end on {kind.name}")


class _Signals:
    """Wakes a waiting keeper at the end of its child and at a request to stop."""

    def __init__(self) -> None:
        self.stop = False
        self._wakeup, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in _STOP_SIGNALS:
            signal.signal(number, self._ask_to_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # A thread of the user may have had signals blocked; keeper and server would inherit that.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stop = True

    def wait(self, seconds: float) -> None:
        """Sleep for so long, or until a signal comes."""
        if select.select([self._wakeup], [], [], seconds)[0]:
            os.read(self._wakeup, 4096)


def _keep(server: _Child | _Adopted, users_lock: int, socket_path: Path, signals: _Signals) -> bool:
    """Return when the server has gone: whether for want of users, else by itself or by a signal to stop."""
    deadline = time.monotonic() + SOCKET_SECONDS
    while not server.gone():
        unused = try_lock(users_lock)
        has_socket = socket_path.exists()
        if has_socket:
            deadline = time.monotonic()
        # Without its socket nobody reaches the server again: users can only start another.
        if unused or signals.stop or (time.monotonic() > deadline and not has_socket):
            _stop(server)
            return unused
        signals.wait(POLL_SECONDS if has_socket else STEP_SECONDS)
    return False


def _publish(directory: Path, socket_path: Path) -> None:
    """Say by a link where the socket is, so that users with another ``TMPDIR`` find it too."""
    link = directory / SOCKET
    if link != socket_path:
        link.unlink(missing_ok=True)
        link.symlink_to(socket_path)


def _remove_socket(directory: Path, socket_path: Path, *, unused: bool) -> None:
    socket_path.unlink(missing_ok=True)
    # Users go on to trust the folder's name, so it is given up only when there are none.
    if unused and socket_path.parent != directory:
        (directory / SOCKET).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            socket_path.parent.rmdir()


def _say(text: str) -> None:
    sys.stderr.write(f"keeper {os.getpid()}: {text}\n")
    sys.stderr.flush()


def _leave_parent() -> None:
    """Go on in a child whose parent has ended, so that it is no child, and no zombie, of a user."""
    if os.fork() != 0:
        os._exit(0)


def main(directory: Path, socket_path: Path, binary: str) -> None:
    """Become the keeper of a directory; returns in a new process, when the server has ended.

    The process that was started ends as soon as the keeper holds its lock and no earlier server is in the
    way, so that who waits for it knows that whatever answers from then on is the server of this keeper.

    Args:
        directory: resolved, existing.
        socket_path: where the server shall listen; its folder exists.
        binary: the server's program.
    """
    keeper_lock = open_lock(directory / KEEPER_LOCK)
    if not try_lock(keeper_lock):
        return
    signals = _Signals()
    server_lock = open_lock(directory / SERVER_LOCK)
    server: _Child | _Adopted | None = _find_left_server(server_lock, socket_path)
    _leave_parent()
    if server is None:
        _publish(directory, socket_path)
        server = _start_server(_server_command(directory, socket_path, binary), server_lock)
    unused = _keep(server, open_lock(directory / USERS_LOCK), socket_path, signals)
    _remove_socket(directory, socket_path, unused=unused)


def _run(arguments: list[str]) -> NoReturn:
    directory, socket_path, binary = arguments
    main(Path(directory), Path(socket_path), binary)
    raise SystemExit(0)


if __name__ == "__main__":
    _run(sys.argv[1:])
