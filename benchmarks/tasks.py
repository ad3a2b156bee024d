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


@app.task(rate_limit="1000000/s", concurrency=10_000)
async def noop_limited() -> None:
    """Do nothing, under limits that let in all."""
