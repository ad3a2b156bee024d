"""Unit tests need no server, so what follows each of them is cheaper than elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import hypothesis
import pytest

from streamq import StreamQ
from tests.workers import until

hypothesis.settings.register_profile("unit", max_examples=40, database=None, deadline=None)
hypothesis.settings.load_profile("unit")


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Fail a test that leaves a thread of streamq's; what else is left pytest collects once, at the end."""
    before = set(threading.enumerate())
    yield
    ours = [t for t in threading.enumerate() if t not in before and t.name.startswith("streamq")]
    until(lambda: not any(thread.is_alive() for thread in ours), seconds=3, why=f"threads are left: {ours}")


@pytest.fixture
def app() -> StreamQ:
    """Give an app that never connects."""
    return StreamQ("redis://nowhere.invalid:1")
