"""A task that comes by itself, and says so in a file. ``$STREAMQ_TEST_TICKS`` says which."""

from __future__ import annotations

import os

from streamq import StreamQ, current, every

# So short that a second message of an instant would find no record of the first.
app = StreamQ(result_ttl=0.05)


@app.task(schedule=every(seconds=0.2), missed="all")
async def tick() -> None:
    context = current()
    with open(os.environ["STREAMQ_TEST_TICKS"], "a") as ticks:  # noqa: ASYNC230, PTH123 - appended in one write
        ticks.write(f"{context.id} {context.deliveries}\n")
