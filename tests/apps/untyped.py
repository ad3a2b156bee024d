"""An app with a task whose annotation names nothing."""

from __future__ import annotations

from streamq import StreamQ

app = StreamQ()


@app.task
async def lost(where: Nowhere) -> None:  # noqa: F821 - that is the point
    pass
