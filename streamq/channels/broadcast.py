"""What all channels of an app share in one process."""

from __future__ import annotations

from streamq._redis.keys import Keys
from streamq.broker import channels as calls
from streamq.broker.reach import Reach
from streamq.channels.publisher import Publisher
from streamq.channels.renewing import Renewer
from streamq.config import Settings


class Broadcast:
    """What all channels of an app share in this process.

    Args:
        settings: of the app.
        reach: the app's own server.

    Attributes:
        reach: the server of channels: the app's, or that of ``events_url``.
        publisher: sends what is published there.
        renewer: renews the leases of what groups have.
    """

    def __init__(self, settings: Settings, reach: Reach) -> None:
        self.settings = settings
        self.keys = Keys(settings.namespace)
        self.reach = reach if settings.events_url is None else Reach(settings.events_url)
        self.publisher = Publisher(self.reach, lambda name: calls.note(self.keys, name))
        self.renewer = Renewer(self.reach)

    def close(self) -> None:
        """Close what threads use."""
        self.renewer.close()
        self.reach.close()

    async def aclose(self) -> None:
        """Close what this event loop and threads use."""
        self.renewer.close()
        await self.reach.aclose()
