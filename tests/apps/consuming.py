"""A member of a group: ``python -m tests.apps.consuming GROUP LEASE FILE [stuck]``; writes what it gets to a file.

With ``stuck`` it takes one message and handles it for ever.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from streamq import StreamQ

app = StreamQ()
orders = app.channel("orders", int, durable=True)


def main(group: str, lease: str, marker: str, *stuck: str) -> None:
    """Consume."""
    with orders.group(group, lease=float(lease)) as messages, Path(marker).open("a") as file:
        for message in messages:
            print(message.payload, message.deliveries, file=file, flush=True)
            while stuck:
                time.sleep(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
