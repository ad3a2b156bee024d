"""A member of a group that consumes a durable channel: it takes, acknowledges, and takes over what the dead have left.

It reads when it is woken by what is published, and looks by itself now and then: Pub/Sub is only the wake-up.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from streamq._redis.hub import Kind
from streamq._redis.keys import ChannelKeys
from streamq._redis.scripts import Call
from streamq.broker import calls as shared
from streamq.broker import channels as calls
from streamq.broker.channels import Batch, Kept, Retention
from streamq.broker.reach import Reach
from streamq.channels.envelope import Envelope, EnvelopeCodec
from streamq.channels.gaps import Gap
from streamq.channels.listener import Listener, Pause, Steps, insist
from streamq.channels.readers import Complaints, kept_message
from streamq.channels.renewing import Renewer
from streamq.channels.signal import Signal
from streamq.errors import BrokerError, BrokerReset, BrokerUnavailable

T = TypeVar("T")

_log = logging.getLogger("streamq.channels")
_LOOK_SECONDS = 5.0  # after which a wake-up that got lost has cost no more
_PAUSE_SECONDS = 1.0  # before a log that cannot be read is looked at again
_CLAIM_MOST = 100


class _WakeUp:
    """The sink of one who needs no more than to be woken."""

    def __init__(self, signal: Signal) -> None:
        self._signal = signal

    def take(self, _channel: bytes, _data: bytes) -> None:
        self._signal.set()

    def joined(self, _since: float | None) -> None:
        self._signal.set()

    def away(self, _error: BrokerError) -> None:
        pass  # reading finds out by itself

    def refused(self, error: BrokerError) -> None:
        if not isinstance(error, BrokerUnavailable):  # else the app was closed
            _log.warning("a group is not woken, and looks every %g s: %s", _LOOK_SECONDS, error)


class _Held:
    """What a member has taken and not acknowledged; the renewer's thread asks for it."""

    def __init__(self, keys: ChannelKeys, group: str, consumer: str, lease: float) -> None:
        self.keys, self.group, self.consumer = keys, group, consumer
        self.lease_ms = round(lease * 1000)
        self.renewal_seconds = lease / 4
        self.entries: set[str] = set()
        self.lock = threading.Lock()

    def renewal(self) -> Call[list[bytes]] | None:
        with self.lock:
            entries = [entry.encode() for entry in self.entries]
        return shared.renew(self.keys.log, self.consumer, entries, group=self.group) if entries else None

    def lost(self, entries: list[bytes]) -> None:
        with self.lock:
            names = {entry.decode() for entry in entries} & self.entries
            self.entries -= names
        if names:
            _log.warning("%d messages of %s went to another member of %s", len(names), self.keys.name, self.group)


class GroupListener(Listener[Envelope[T] | Gap], Generic[T]):
    """Gives the messages that this member of a group takes; made by `Channel.group`.

    Attributes:
        name: of this member.
    """

    def __init__(
        self,
        reach: Reach,
        renewer: Renewer,
        keys: ChannelKeys,
        codec: EnvelopeCodec[T],
        group: str,
        *,
        start: str,
        lease: float,
        prefetch: int,
        auto_ack: bool,
        consumer: str | None,
        retention: Retention,
        kind: Kind,
    ) -> None:
        super().__init__(reach)
        self.name = consumer or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._renewer = renewer
        self._keys = keys
        self._codec = codec
        self._group = group
        self._from = start
        self._prefetch = prefetch
        self._auto_ack = auto_ack
        self._retention = retention
        self._kind = kind
        self._held = _Held(keys, group, self.name, lease)
        self._complaints = Complaints()
        self._in_hand: str | None = None  # was given, and the next has not been asked for
        self._given: list[str] = []  # are handled, and to be acknowledged
        self._cursor = "0-0"
        self._next_sweep = 0.0
        self._has_all = False  # that was there when it read last, and it is woken when there is more
        self._is_finishing = False

    def _start(self) -> Callable[[], object]:
        hub, kind, channel = self._reach.hub, self._kind, self._keys.told(sharded=self._kind is Kind.SHARD)
        sink, renewer, held = _WakeUp(self._signal), self._renewer, self._held

        def stop() -> None:
            hub.unsubscribe(kind, channel, sink)
            renewer.remove(held)

        hub.subscribe(kind, channel, sink)
        renewer.add(held)
        return stop

    def _begin(self) -> Steps[Envelope[T] | Gap]:
        """Make the group, so that it gets what is published from now on."""
        self._ready.extend((yield from self._fetch()) or ())
        return []

    def _next(self) -> Steps[Envelope[T] | Gap]:
        yield from self._opening()
        if self._ready:
            return []
        yield from self._acknowledge()
        return None if self._is_over else (yield from self._more())

    @property
    def _is_over(self) -> bool:
        return self._is_finishing or self._is_closed

    def _more(self) -> Steps[Envelope[T] | Gap]:
        found: list[Envelope[T] | Gap] = []
        while not found and not self._is_over:
            if self._has_all and not self._signal.is_set:
                yield Pause(max(0.01, min(_LOOK_SECONDS, self._next_sweep - time.monotonic())))
            self._signal.clear()
            self._has_all = False
            try:
                found = (yield from self._sweep()) or (yield from self._fetch()) or []
            except BrokerReset as error:  # something else lies there by now
                _log.warning("the log of channel %s cannot be read: %s", self._keys.name, error)
                self._has_all = True
                self._next_sweep = time.monotonic() + _PAUSE_SECONDS
        return found

    def _acknowledge(self) -> Steps[Envelope[T] | Gap]:
        done = list(self._given)
        if done:
            self._drop(done)  # first: a renewal that is under way would take what is acknowledged for lost
            yield from insist(calls.ack(self._keys, self._group, self.name, done))
            self._given = self._given[len(done) :]
        return []

    def _fetch(self) -> Steps[Envelope[T] | Gap]:
        call = calls.fetch(
            self._keys, self._group, self.name, count=self._prefetch, start=self._from, retention=self._retention
        )
        batch: Batch = yield from insist(call)
        self._has_all = len(batch.kept) < self._prefetch
        return self._take(batch)

    def _sweep(self) -> Steps[Envelope[T] | Gap]:
        """Take over what the dead have left, a bounded number at a time."""
        if time.monotonic() < self._next_sweep:
            return []
        call = calls.claim(
            self._keys,
            self._group,
            self.name,
            lease_ms=self._held.lease_ms,
            cursor=self._cursor,
            count=min(self._prefetch, _CLAIM_MOST),
        )
        batch: Batch = yield from insist(call)
        self._cursor = batch.cursor
        if batch.cursor == "0-0":
            self._next_sweep = time.monotonic() + self._held.renewal_seconds
        # While Redis was away nothing was renewed: what this member still has in its hands is not to come twice.
        return self._take(batch._replace(kept=[kept for kept in batch.kept if kept.entry not in self._held.entries]))

    def _take(self, batch: Batch) -> list[Envelope[T] | Gap]:
        found: list[Envelope[T] | Gap] = []
        if batch.missed:
            found.append(Gap("trimmed", batch.missed, None, self._keys.name))
        with self._held.lock:
            self._held.entries |= {kept.entry for kept in batch.kept}
        for kept in batch.kept:
            self.counts.received += 1
            found += self._read(kept)
        return found

    def _read(self, kept: Kept) -> list[Envelope[T] | Gap]:
        try:
            return [kept_message(self._codec, kept)]
        except ValueError as error:
            self._complaints.skip(self._keys.name, str(error), self.counts)
            self._given.append(kept.entry)  # else it would come for ever
            return []

    def __next__(self) -> Envelope[T] | Gap:
        self._is_asked()
        return self._give(super().__next__())

    async def __anext__(self) -> Envelope[T] | Gap:
        self._is_asked()
        return self._give(await super().__anext__())

    def _is_asked(self) -> None:
        if self._in_hand is not None:
            self._given.append(self._in_hand)
            self._in_hand = None

    def _give(self, item: Envelope[T] | Gap) -> Envelope[T] | Gap:
        if self._auto_ack and isinstance(item, Envelope):
            self._in_hand = item.entry
        return item

    def _drop(self, entries: list[str]) -> None:
        with self._held.lock:
            self._held.entries -= set(entries)

    @contextlib.contextmanager
    def _dropped(self, entries: list[str]) -> Iterator[None]:
        """Renew them no more, unless they cannot be acknowledged."""
        with self._held.lock:
            held = self._held.entries & set(entries)
        self._drop(entries)
        try:
            yield
        except BaseException:
            with self._held.lock:
                self._held.entries |= held
            raise

    def has(self, message: Envelope[T]) -> bool:
        """Tell whether a message is still this member's, as far as is known; its lease may have run out."""
        return message.entry in self._held.entries

    async def ack(self, *messages: Envelope[T]) -> bool:
        """Acknowledge messages: they are handled, and nobody of the group gets them again.

        Returns:
            False if one is not this member's any more: another has it, or has handled it, or, if the reply to this was
            lost and it was sent again, it is acknowledged.

        Raises:
            BrokerError: Redis does not do what is asked; acknowledging again is safe.
        """
        entries = [message.entry for message in messages if message.entry is not None]
        with self._dropped(entries):
            return not await self._reach.on_loop.run(calls.ack(self._keys, self._group, self.name, entries))

    def ack_sync(self, *messages: Envelope[T]) -> bool:
        """Acknowledge messages from a thread, as `ack` does."""
        entries = [message.entry for message in messages if message.entry is not None]
        with self._dropped(entries):
            return not self._reach.sync.run(calls.ack(self._keys, self._group, self.name, entries))

    # ---- the end

    def finish(self) -> None:
        """Take nothing more; what was given before can still be acknowledged. Whoever waits comes to the end."""
        self._is_finishing = True
        self._signal.set()

    def close(self) -> None:
        """Take nothing more; what is handled is acknowledged, and the rest given back to the group."""
        for call in self._leaving():
            with contextlib.suppress(BrokerError):  # then the lease brings it back
                self._reach.sync.run(call)
        super().close()

    async def aclose(self) -> None:
        """Take nothing more, as `close` does."""
        for call in self._leaving():
            with contextlib.suppress(BrokerError):  # then the lease brings it back
                await self._reach.on_loop.run(call)
        super().close()

    def _leaving(self) -> list[Call[Any]]:
        if self._stop is None or not self._stop.alive:
            return []
        given, self._given = list(self._given), []
        left = sorted(self._held.entries - set(given))
        self._ready.clear()
        self._drop([*given, *left])
        made: list[Call[Any]] = []
        if given:
            made.append(calls.ack(self._keys, self._group, self.name, given))
        if left:
            made.append(calls.release(self._keys, self._group, self.name, left, self._held.lease_ms))
        return [*made, shared.retire(self._keys.log, self.name, group=self._group)]
