"""The names of tasks that were given none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def default_name(function: Callable[..., Any]) -> str:
    """Name a task ``module.function``; a script is named as it would be if a worker imported it."""
    module = function.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec, path = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name if spec else Path(path).stem if path else module
    return f"{module}.{function.__name__}"
