"""Listens to a Redis Cluster, by one `Hub` for each node that has something to say.

What is published to all nodes is heard at any of them: one connection, to another node each time it is made. What is
published to a shard is heard at the node that has the slot of the channel: one connection to each such node. When a
slot moves, or its node goes, a thread asks who has it now and subscribes there.

What is published while a listener has no connection is lost to it, as with a single server, and the gap is told. What
is not told is that two nodes cannot reach each other: what is published at the one to all nodes is then not heard at
the other. The numbers of senders show it with the next message that comes through.
"""

from __future__ import annotations

import random
import threading

from streamq._redis.cluster import SyncCluster
from streamq._redis.failures import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from streamq._redis.hub import Hub, Kind, Sink
from streamq._redis.slots import is_redirect
from streamq._redis.urls import Address
from streamq.errors import BrokerError, BrokerUnavailable

_JOIN_SECONDS = 2.0


class _Topic:
    """One sharded channel, and for whom."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sinks: tuple[Sink, ...] = ()
        self.seat: _Seat | None = None
        self.confirmed = False
        self.is_lost = False  # who has the slot is to be asked anew
        self.heard_until: float | None = None  # Unix time; None: it has not been lost yet
        self.error: BrokerError | None = None


class _Seat:
    """The sink of one topic at one node's hub. When the topic is elsewhere, what still comes here counts no more."""

    def __init__(self, owner: ClusterHub, topic: _Topic, address: Address, hub: Hub) -> None:
        self._owner = owner
        self.topic = topic
        self.address = address
        self.hub = hub

    def take(self, channel: bytes, data: bytes) -> None:
        if self.topic.seat is self:
            for sink in self.topic.sinks:
                sink.take(channel, data)

    def joined(self, _since: float | None) -> None:
        self._owner.seat_joined(self)

    def away(self, error: BrokerError) -> None:
        self._owner.seat_lost(self, error, is_left=False)

    def refused(self, error: BrokerError) -> None:
        self._owner.seat_lost(self, error, is_left=True)


class ClusterHub:
    """Subscribes names and passes on what comes, as `Hub` does. Every method may be called from any thread.

    Args:
        cluster: where to listen; sockets are opened when something is subscribed.
    """

    def __init__(self, cluster: SyncCluster) -> None:
        self._cluster = cluster
        self._any_node = Hub(cluster)
        # A hub calls its sinks with its own lock held, so no method of a hub is called with this one held.
        self._changed = threading.Condition()
        self._topics: dict[str, _Topic] = {}
        self._left: list[_Seat] = []  # are to be unsubscribed
        self._hubs: dict[Address, Hub] = {}
        self._thread: threading.Thread | None = None
        self._is_closing = False

    def subscribe(self, kind: Kind, name: str, sink: Sink) -> None:
        """Have `sink` hear what is published under a name, or under names that match a pattern."""
        if kind is not Kind.SHARD:
            self._any_node.subscribe(kind, name, sink)
            return
        with self._changed:
            topic = self._topics.setdefault(name, _Topic(name))
            topic.sinks = (*topic.sinks, sink)
            if topic.confirmed:
                sink.joined(None)
            elif topic.error is not None:
                sink.away(topic.error)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="streamq-shards", daemon=True)
                self._thread.start()
            self._changed.notify()

    def unsubscribe(self, kind: Kind, name: str, sink: Sink) -> None:
        """Have `sink` hear no more of it."""
        if kind is not Kind.SHARD:
            self._any_node.unsubscribe(kind, name, sink)
            return
        with self._changed:
            topic = self._topics.get(name)
            if topic is None:
                return
            topic.sinks = tuple(one for one in topic.sinks if one is not sink)
            if not topic.sinks:
                del self._topics[name]
                self._leave(topic)
                self._changed.notify()

    def close(self) -> None:
        """Stop listening; the threads end and their sockets are closed."""
        self._any_node.close()
        with self._changed:
            self._is_closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=_JOIN_SECONDS)

    # ---- what the hubs of the nodes tell

    def seat_joined(self, seat: _Seat) -> None:
        """Note that everything is heard from now on."""
        topic = seat.topic
        with self._changed:
            if topic.seat is not seat:
                return
            topic.confirmed, topic.is_lost, topic.error = True, False, None
            for sink in topic.sinks:
                sink.joined(topic.heard_until)
            self._changed.notify()

    def seat_lost(self, seat: _Seat, error: BrokerError, *, is_left: bool) -> None:
        """Note that nothing is heard there for now, or, with `is_left`, that nothing will be."""
        topic = seat.topic
        if not is_left:
            self._cluster.lost(seat.address)
        with self._changed:
            if topic.seat is not seat:
                return
            topic.is_lost = True
            if topic.confirmed:
                topic.confirmed, topic.heard_until = False, seat.hub.heard_at
            if is_left:
                topic.seat = None
            has_moved = is_left and is_redirect(error)
            topic.error = None if has_moved else error
            is_final = is_left and not has_moved and not isinstance(error, BrokerUnavailable)
            if is_final:
                self._topics.pop(topic.name, None)
            sinks = () if has_moved else topic.sinks
            self._changed.notify()
        for sink in sinks:  # without the lock: one that has a hub of its own may wait here for room
            if is_final:
                sink.refused(error)
            else:
                sink.away(error)

    # ---- what the thread does

    def _run(self) -> None:
        failures = 0
        while True:
            with self._changed:
                left, self._left = self._left, []
                astray = [topic for topic in self._topics.values() if not topic.confirmed]
                if self._is_closing or not (left or self._topics):
                    hubs, self._hubs = self._hubs, {}
                    self._thread = None
                    break
                if not (left or astray):
                    failures = 0
                    self._changed.wait()
                    continue
            self._place_all(astray)
            for seat in left:
                seat.hub.unsubscribe(Kind.SHARD, seat.topic.name, seat)
            self._close_unused()
            with self._changed:
                if any(not topic.confirmed for topic in self._topics.values()) and not self._left:
                    bound = min(FIRST_PAUSE_SECONDS * 2**failures, LONGEST_PAUSE_SECONDS)
                    failures = min(failures + 1, 10)
                    self._changed.wait(random.uniform(bound / 2, bound))  # noqa: S311 - spreads load
        for hub in hubs.values():
            hub.close()

    def _place_all(self, astray: list[_Topic]) -> None:
        try:
            self._cluster.look_up(anew=any(topic.is_lost for topic in astray))
        except BrokerError as error:
            for topic in astray:
                self._not_placed(topic, error)
            return
        for topic in astray:
            try:
                address = self._cluster.owner(topic.name)
            except BrokerUnavailable as error:
                self._not_placed(topic, error)
            else:
                self._place(topic, address)

    def _place(self, topic: _Topic, address: Address) -> None:
        """Subscribe at the node that has the slot, unless that is where it is: that hub comes back by itself."""
        with self._changed:
            if not topic.sinks or topic.confirmed or (topic.seat is not None and topic.seat.address == address):
                return
            self._leave(topic)
            if address not in self._hubs:
                self._hubs[address] = Hub(self._cluster.node(address))
            topic.seat = seat = _Seat(self, topic, address, self._hubs[address])
        seat.hub.subscribe(Kind.SHARD, topic.name, seat)

    def _not_placed(self, topic: _Topic, error: BrokerError) -> None:
        with self._changed:
            sinks = () if topic.confirmed or topic.error is not None else topic.sinks
            topic.error = None if topic.confirmed else error
        for sink in sinks:
            sink.away(error)

    def _leave(self, topic: _Topic) -> None:
        seat, topic.seat = topic.seat, None
        if seat is not None:
            self._left.append(seat)

    def _close_unused(self) -> None:
        with self._changed:
            used = {id(topic.seat.hub) for topic in self._topics.values() if topic.seat is not None}
            used |= {id(seat.hub) for seat in self._left}
            unused = {address: hub for address, hub in self._hubs.items() if id(hub) not in used}
            for address in unused:
                del self._hubs[address]
        for hub in unused.values():
            hub.close()
