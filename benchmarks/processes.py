"""Starts the measured processes: each on its own core, each ended by its own id."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from benchmarks.machine import only_child, pinned
from benchmarks.server import Server

_START_SECONDS = 30.0
_JOB_SECONDS = 600.0


class Processes:
    """Runs jobs of modules of `benchmarks`, such as `bare` and `ours`, and workers, against one server.

    Args:
        server: the server.
        celery: a Python that has Celery, if that is measured.
    """

    def __init__(self, server: Server, celery: str | None = None) -> None:
        self._server = server
        self._celery = celery
        self._cores = server.cores
        self._environment = {**os.environ, "STREAMQ_URL": server.url, "BENCHMARK_URL": server.bare_url}

    def job(self, side: str, job: str, count: int, *, beside_server: bool = False) -> Any:
        """Run a job to its end, and return what it tells."""
        with pinned(self._cores.server if beside_server else self._cores.measured):
            process = subprocess.Popen(
                self._command(side, job, count), env=self._environment, stdout=subprocess.PIPE, text=True
            )
        with process:
            try:
                told, _ = process.communicate(timeout=_JOB_SECONDS)
            finally:
                process.kill()
        if process.returncode != 0:
            raise RuntimeError(f"{side} {job} ended with code {process.returncode}")
        return json.loads(told) if told else None

    def _command(self, side: str, job: str, count: int) -> list[str]:
        python = (self._celery or "") if side == "celery_flows" else sys.executable
        return [python, "-m", f"benchmarks.{side}", job, str(count), str(self._server.pid or 0)]

    @contextmanager
    def bare(self, job: str) -> Iterator[int | None]:
        """Have a bare loop run meanwhile; gives its process id."""
        with self._meanwhile(self._command("bare", job, 0)) as (process, _):
            yield process.pid

    @contextmanager
    def meanwhile(self, side: str, job: str, count: int = 0, *, beside_server: bool = False) -> Iterator[None]:
        """Have a job run meanwhile that comes to no end by itself."""
        with self._meanwhile(self._command(side, job, count), beside_server=beside_server):
            yield

    @contextmanager
    def worker(self) -> Iterator[int | None]:
        """Have a streamq worker of one process run meanwhile; gives the id of the process that runs tasks."""
        command = [sys.executable, "-m", "streamq", "worker", "benchmarks.tasks:app"]
        with self._meanwhile(command) as (process, log):
            _until_ready(process, log)
            yield only_child(process.pid)

    @contextmanager
    def celery_worker(self) -> Iterator[int | None]:
        """Have a Celery worker of one process run meanwhile; gives its id."""
        command = [self._celery or "", "-m", "celery", "-A", "benchmarks.celery_flows", "worker"]
        command += ["--pool=threads", "--concurrency=8"]  # faster with no-ops than solo, and prefork with one process
        command += ["--loglevel=WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        with self._meanwhile(command) as (process, log):
            _until_ready(process, log)
            yield process.pid

    @contextmanager
    def _meanwhile(
        self, command: list[str], *, beside_server: bool = False
    ) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
        with tempfile.TemporaryFile() as log:
            with pinned(self._cores.server if beside_server else self._cores.measured):
                process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
            try:
                yield process, log
                if process.poll() is not None:
                    raise RuntimeError(f"{' '.join(command)} ended by itself:\n{_read(log)}")
            finally:
                process.terminate()
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _until_ready(process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while "is ready" not in (said := _read(log)):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the worker did not start:\n{said}")
        time.sleep(0.005)


def _read(log: IO[bytes]) -> str:
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), size, 0).decode(errors="replace")
