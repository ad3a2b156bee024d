"""The tree of errors is the one that the module's docstring shows."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

import streamq
from streamq import errors

CLASSES = {
    name: kind for name, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__
}


def drawn() -> list[tuple[str, str | None]]:
    """Read the trees in the docstring, as pairs of a class and its base."""
    found: list[tuple[str, str | None]] = []
    above: list[str] = []
    for line in errors.__doc__.splitlines():
        if match := re.match(r"^([│ ├└─]*)([A-Z]\w+)(?: {2,}\S|$)", line):
            depth = len(match[1]) // 4
            above = [*above[:depth], match[2]]
            found.append((match[2], above[depth - 1] if depth else None))
    return found


def test_the_docstring_shows_every_class_under_its_base():
    """What is drawn is what is there, and each class but the root has one line."""
    tree = drawn()
    assert {name for name, _ in tree} == set(CLASSES)
    below_the_root = [name for name, base in tree if base is not None]
    assert len(below_the_root) == len(set(below_the_root)) == len(CLASSES) - 1
    for name, base in tree:
        assert CLASSES[name].__bases__ == (CLASSES[base] if base else Exception,)


def test_there_is_one_root():
    """``except StreamqError`` catches whatever streamq raises, and nothing that it does not."""
    assert all(issubclass(kind, streamq.StreamqError) for kind in CLASSES.values())


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_is_exported_and_described(name):
    assert getattr(streamq, name) is CLASSES[name]
    assert name in streamq.__all__
    assert CLASSES[name].__doc__


def test_a_failed_task_tells_what_happened():
    """The first line is for people in a hurry; the remote traceback follows where there is one."""
    failed = errors.TaskFailed("17", "shop.OutOfStock", "no tea", "Traceback ...")
    assert str(failed) == "shop.OutOfStock: no tea (task 17)\n\nTraceback ..."
    assert str(errors.TaskFailed("17", "ValueError", "no")) == "ValueError: no (task 17)"
    assert (failed.task_id, failed.type_name, failed.message) == ("17", "shop.OutOfStock", "no tea")


def test_a_failed_task_of_a_flow_shows_what_it_has_stopped():
    """In short: of the names only the last part, and of very many only the first and the last ones."""
    path = ("shop.fetch", "group", "shop.sums.total")
    failed = errors.TaskFailed("17", "ValueError", "no tea", "Traceback ...", path)
    assert failed.path == path
    assert str(failed).splitlines()[0] == "ValueError: no tea (task 17; fetch -> group -> total)"
    many = errors.TaskFailed("17", "ValueError", "no", path=tuple(f"shop.t{n}" for n in range(100)))
    ends = ("t0 -> t1 -> t2 -> t3 -> t4", "t95 -> t96 -> t97 -> t98 -> t99")
    assert str(many) == f"ValueError: no (task 17; {ends[0]} -> … -> {ends[1]})"


def test_errors_survive_a_copy():
    """Frameworks copy and pickle exceptions; none may lose what it says."""
    failed = errors.TaskFailed("17", "ValueError", "no", "Traceback ...", ("fetch", "total"))
    for again in (copy.copy(failed), pickle.loads(pickle.dumps(failed))):  # noqa: S301 - our own
        assert vars(again) == vars(failed)
        assert str(again) == str(failed)
