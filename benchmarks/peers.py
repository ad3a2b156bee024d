"""Other task queues that are measured in the same run, in an environment that stays for the next one."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

_FOLDER = Path(".benchmarks")
_CELERY = ("celery[redis]==5.7.0", "hiredis==3.5.0")


def celery_python() -> str:
    """Return a Python that has Celery; it is installed if there is none yet."""
    folder = _FOLDER / f"celery-{sys.version_info.major}.{sys.version_info.minor}"
    python = folder.absolute() / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    wanted = folder / "installed"
    if not wanted.exists() or wanted.read_text() != "\n".join(_CELERY):
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *_CELERY], check=True)
        wanted.write_text("\n".join(_CELERY))
    return str(python)
