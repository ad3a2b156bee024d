"""Tasks of whose calls there is to be only one. ``$STREAMQ_URL`` says which server."""

from __future__ import annotations

from streamq import StreamQ, by

app = StreamQ()


@app.task(unique=by("user_id"))
async def report(user_id: int, *, fresh: bool = False) -> str:
    return f"{user_id} {fresh}"


@app.task(debounce=by("doc_id", seconds=0.3))
def index(doc_id: int, text: str) -> str:
    return f"{doc_id} {text}"


@app.task(throttle=by("user_id", seconds=60))
async def remind(user_id: int, text: str = "") -> str:
    return f"{user_id} {text}"


@app.task
async def plain(number: int) -> int:
    return number
