"""The app under test; ``$STREAMQ_URL`` says where its server is."""

from __future__ import annotations

from benchmarks.names import NAMESPACE
from streamq import StreamQ

app = StreamQ(namespace=NAMESPACE)


@app.task
async def noop() -> None:
    """Do nothing, on the event loop."""


@app.task
def noop_in_thread() -> None:
    """Do nothing, in a thread."""
