"""Commands, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from tests.workers import ROOT, until


def run(url, *words, stdin=""):
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "streamq", *words],
        cwd=ROOT,
        env={**os.environ, "STREAMQ_URL": url},
        capture_output=True,
        input=stdin,
        text=True,
        timeout=30,
        check=False,
    )


class Printing:
    """A command whose output is read while it runs."""

    def __init__(self, url, *words, stdout=None):
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streamq", *words],
            stdout=stdout or self._out,
            stderr=self._err,
            cwd=ROOT,
            env={**os.environ, "STREAMQ_URL": url},
        )

    @property
    def errors(self):
        return os.pread(self._err.fileno(), 1_000_000, 0).decode()

    @property
    def lines(self):
        return os.pread(self._out.fileno(), 1_000_000, 0).decode().splitlines()

    def until_said(self, text):
        """Wait for a text on standard error."""
        until(lambda: text in self.errors or self.process.poll() is not None, why=f"{text!r} was not said")
        assert text in self.errors

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._out.close()
        self._err.close()
