"""Keys that the benchmark uses. All begin with `NAMESPACE`, and nothing else on the server is touched."""

from __future__ import annotations

from streamq._redis.keys import Keys
from streamq.config import DEFAULT_QUEUE

NAMESPACE = "bench"
QUEUE_STREAM = Keys(NAMESPACE).queue(DEFAULT_QUEUE).ready
BARE_STREAM = f"{NAMESPACE}:bare:stream"
BARE_RESULT = f"{NAMESPACE}:bare:result:"
CHANNEL_NAME = "prices"
CHANNEL = Keys(NAMESPACE).channel(CHANNEL_NAME).channel
BARE_CHANNEL = f"{NAMESPACE}:bare:channel"
BARE_REPLY = f"{NAMESPACE}:bare:reply"
