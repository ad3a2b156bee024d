"""An app whose lifespan fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streamq import StreamQ


@asynccontextmanager
async def lifespan(_app: StreamQ) -> AsyncIterator[None]:
    raise ConnectionError("there is no database")
    yield


app = StreamQ(lifespan=lifespan)
