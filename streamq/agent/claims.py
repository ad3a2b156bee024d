"""Claims: names that one agent has at a time, for a time."""

from __future__ import annotations

import secrets
from types import TracebackType
from typing import Self

from streamq._redis.scripts import Call
from streamq.broker import agents as calls
from streamq.channels.broadcast import Broadcast
from streamq.checks import is_number
from streamq.config import CENTURY_SECONDS, check_channel
from streamq.errors import ConfigError


class Claim:
    """A name that is this agent's until the time is over; made by ``agent.claim``. ``async with`` releases it.

    It is a promise among those who ask, not a lock of what the name means: who needs longer renews in time, and who
    cannot is to stop, since another may have it.

    Attributes:
        name: what is claimed.
        token: of this claim; no other has it.
    """

    def __init__(self, broadcast: Broadcast, name: str, token: str, seconds: float) -> None:
        self.name = name
        self.token = token
        self._broadcast = broadcast
        self._ms = round(seconds * 1000)

    def __repr__(self) -> str:
        return f"<claim {self.name}>"

    async def renew(self, seconds: float | None = None) -> bool:
        """Have it last for so many seconds from now on; None: as many as at first.

        Returns:
            False if it is lost: its time was over.

        Raises:
            BrokerError: Redis does not do what is asked.
        """
        ms = self._ms if seconds is None else milliseconds(seconds)
        call = calls.renew_claim(self._broadcast.keys, self.name, self.token, ms)
        return not await self._broadcast.reach.on_loop.run(call)

    async def release(self) -> bool:
        """End it, if it is still this one: another's is left alone.

        Returns:
            False if it was lost before.

        Raises:
            BrokerError: Redis does not do what is asked; it ends by itself when its time is over.
        """
        call = calls.release_claim(self._broadcast.keys, self.name, self.token)
        return await self._broadcast.reach.on_loop.run(call)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.release()


class Renewal:
    """Has a claim renewed, for as long as the renewer knows it.

    Attributes:
        renewal_seconds: how often.
    """

    def __init__(self, broadcast: Broadcast, claim: Claim, seconds: float) -> None:
        self.renewal_seconds = seconds / 4
        self._call = calls.renew_claim(broadcast.keys, claim.name, claim.token, milliseconds(seconds))

    def renewal(self) -> Call[list[bytes]]:
        """The call that renews it."""
        return self._call

    def lost(self, entries: list[bytes]) -> None:
        """Do nothing: the first result counts."""


def milliseconds(seconds: float) -> int:
    """Give the time of a claim in ms.

    Raises:
        ConfigError: it is none.
    """
    if not is_number(seconds) or not 0.001 <= seconds <= CENTURY_SECONDS:  # noqa: PLR2004 - what Redis can keep
        raise ConfigError(f"a claim lasts for a number of seconds above 0, not {seconds!r}")
    return round(seconds * 1000)


async def take(broadcast: Broadcast, name: str, owner: str, seconds: float) -> Claim | None:
    """Claim a name, atomically, for the one who is called `owner`; None: another has it.

    Raises:
        ConfigError: the name or the time cannot be used.
        BrokerError: Redis does not do what is asked; if it is claimed all the same, that ends when its time is over.
    """
    check_channel(name)
    token = f"{owner}/{secrets.token_hex(8)}"
    call = calls.take_claim(broadcast.keys, name, token, milliseconds(seconds))
    holder = await broadcast.reach.on_loop.run(call)
    return Claim(broadcast, name, token, seconds) if holder == token else None


async def holder_of(broadcast: Broadcast, name: str) -> str | None:
    """Name the owner of a claim; None: nobody has it."""
    token = await broadcast.reach.on_loop.run(calls.claim_holder(broadcast.keys, name))
    return token.rpartition("/")[0] or None
