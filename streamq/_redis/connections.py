"""Connections to Redis: they run calls, and do what the policy in ``failures.py`` says when one fails.

Every call of ours can be sent twice without harm, so we retry here, by one rule for sync and async.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis.exceptions import NoScriptError, RedisError
from tenacity import (
    AsyncRetrying,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from streamq._redis.failures import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, PATIENCE_SECONDS, Then, judge
from streamq._redis.pools import READ_SECONDS, leave, open_async_pool, open_pool
from streamq._redis.scripts import Call, Word
from streamq.errors import BrokerError, BrokerUnavailable

T = TypeVar("T")

_FAILURES = (RedisError, OSError)

# For callers that wait.
PATIENCE: dict[str, Any] = {
    "retry": retry_if_exception_type(BrokerUnavailable),
    "wait": wait_random_exponential(multiplier=FIRST_PAUSE_SECONDS, max=LONGEST_PAUSE_SECONDS),
    "stop": stop_after_delay(PATIENCE_SECONDS),
    "reraise": True,
}


def _read_confirmed(calls: Sequence[Call[T]], confirm: Call[str], replies: Sequence[Any]) -> tuple[list[T], str]:
    *done, last = replies
    for reply in done:
        if isinstance(reply, Exception):
            raise reply
    values = [call.parse(reply) for call, reply in zip(calls, done, strict=True)]
    if not isinstance(last, Exception):
        return values, confirm.parse(last)
    rule = judge(last)
    if rule.means is BrokerUnavailable:  # no master any longer: what it was given may be lost
        raise last
    return values, str(rule.error(last))


class SyncConnection:
    """Runs calls from threads; opens as many sockets as there are calls at a time.

    Args:
        url: where the server is.
        read_timeout: seconds to wait for a reply.
        patient: try again for some seconds when the server is away, instead of raising at once.
    """

    def __init__(self, url: str, *, read_timeout: float = READ_SECONDS, patient: bool = False) -> None:
        self._patient = patient
        pool, self._sentinels = open_pool(url, read_timeout)
        self._directory = pool.connection_kwargs.get("directory")
        self.client = redis.Redis(connection_pool=pool)
        self.client.response_callbacks.clear()  # replies are parsed by the calls
        self._send: Any = self.client.execute_command

    def run(self, call: Call[T]) -> T:
        """Send `call` and read its reply.

        Raises:
            BrokerError: as the policy in ``failures.py`` says. After `BrokerUnavailable` it is not known whether the
                call was carried out; every call may be sent again.
        """
        try:
            return self._run_once(call)
        except BrokerUnavailable:
            if not self._patient:
                raise
        result: T = Retrying(**PATIENCE)(self._run_once, call)
        return result

    def _run_once(self, call: Call[T]) -> T:
        try:
            try:
                return call.parse(self._send(*call.words))
            except NoScriptError:
                return call.parse(self._send(*call.with_text))
        except _FAILURES as error:
            raise self.failed(error) from error

    def run_confirmed(self, calls: Sequence[Call[T]], confirm: Call[str]) -> tuple[list[T], str]:
        """Send `calls` and then `confirm`, which asks about them, over one socket and in one round trip.

        Returns:
            The replies to `calls`, and why they are not confirmed: nothing if they are.

        Raises:
            BrokerError: as `run` does, for any of them.
        """
        try:
            return self._run_confirmed_once(calls, confirm)
        except BrokerUnavailable:
            if not self._patient:
                raise
        result: tuple[list[T], str] = Retrying(**PATIENCE)(self._run_confirmed_once, calls, confirm)
        return result

    def _run_confirmed_once(self, calls: Sequence[Call[T]], confirm: Call[str]) -> tuple[list[T], str]:
        try:
            try:
                return _read_confirmed(calls, confirm, self._pipe((*(call.words for call in calls), confirm.words)))
            except NoScriptError:
                texts = (call.with_text for call in calls)
                return _read_confirmed(calls, confirm, self._pipe((*texts, confirm.words)))
        except _FAILURES as error:
            raise self.failed(error) from error

    def _pipe(self, commands: Iterable[Sequence[Word]]) -> list[Any]:
        pipeline: Any = self.client.pipeline(transaction=False)
        for words in commands:
            pipeline.execute_command(*words)
        # Raised by the pipeline itself, an error would have a text of redis-py's before the server's.
        replies: list[Any] = pipeline.execute(raise_on_error=False)
        return replies

    def failed(self, error: Exception) -> BrokerError:
        """Do what the policy says follows `error`, and return what it means."""
        rule = judge(error)
        if rule.then is Then.RESOLVE:
            self.client.connection_pool.disconnect(inuse_connections=False)
        return rule.error(error)

    def line(self) -> Any:
        """Open a socket for one who listens, and give it as redis-py's connection; `hang_up` closes it."""
        return self.client.connection_pool.get_connection()

    def hang_up(self, line: Any) -> None:
        """Close a socket that was opened by `line`."""
        line.disconnect()
        self.client.connection_pool.release(line)

    def close(self) -> None:
        """Close every socket; for an embedded server, cease to be one of its users."""
        self.client.connection_pool.disconnect()
        for sentinel in self._sentinels:
            sentinel.close()
        directory, self._directory = self._directory, None
        if directory is not None:
            leave(directory)


class AsyncConnection:
    """Runs calls on one event loop; otherwise as `SyncConnection`."""

    def __init__(self, url: str, *, read_timeout: float = READ_SECONDS, patient: bool = False) -> None:
        self._patient = patient
        pool, self._sentinels = open_async_pool(url, read_timeout)
        self._directory = pool.connection_kwargs.get("directory")
        self.client = redis.asyncio.Redis(connection_pool=pool)
        self.client.response_callbacks.clear()  # replies are parsed by the calls
        self._send: Any = self.client.execute_command

    async def run(self, call: Call[T]) -> T:
        """Send `call` and read its reply; raises as `SyncConnection.run`."""
        try:
            return await self._run_once(call)
        except BrokerUnavailable:
            if not self._patient:
                raise
        result: T = await AsyncRetrying(**PATIENCE)(self._run_once, call)
        return result

    async def _run_once(self, call: Call[T]) -> T:
        try:
            try:
                return call.parse(await self._send(*call.words))
            except NoScriptError:
                return call.parse(await self._send(*call.with_text))
        except _FAILURES as error:
            raise await self.failed(error) from error

    async def run_confirmed(self, calls: Sequence[Call[T]], confirm: Call[str]) -> tuple[list[T], str]:
        """Send `calls` and then `confirm`; as `SyncConnection.run_confirmed`."""
        try:
            return await self._run_confirmed_once(calls, confirm)
        except BrokerUnavailable:
            if not self._patient:
                raise
        result: tuple[list[T], str] = await AsyncRetrying(**PATIENCE)(self._run_confirmed_once, calls, confirm)
        return result

    async def _run_confirmed_once(self, calls: Sequence[Call[T]], confirm: Call[str]) -> tuple[list[T], str]:
        try:
            try:
                return _read_confirmed(
                    calls, confirm, await self._pipe((*(call.words for call in calls), confirm.words))
                )
            except NoScriptError:
                texts = (call.with_text for call in calls)
                return _read_confirmed(calls, confirm, await self._pipe((*texts, confirm.words)))
        except _FAILURES as error:
            raise await self.failed(error) from error

    async def run_together(self, *calls: Call[Any]) -> list[Any]:
        """Send plain commands in one round trip; the first that failed raises."""
        try:
            replies = await self._pipe(call.words for call in calls)
        except _FAILURES as error:
            raise await self.failed(error) from error
        for reply in replies:
            if isinstance(reply, Exception):
                raise await self.failed(reply) from reply
        return [call.parse(reply) for call, reply in zip(calls, replies, strict=True)]

    async def run_each(self, calls: Sequence[Call[T]]) -> list[T | BrokerError]:
        """Send calls in one round trip and over one socket, so in their order.

        Returns:
            For each its answer, or its error.

        Raises:
            BrokerUnavailable: the server is away. It is not known which of the calls were carried out.
        """
        try:
            return await self._run_each_once(calls)
        except BrokerUnavailable:
            if not self._patient:
                raise
        result: list[T | BrokerError] = await AsyncRetrying(**PATIENCE)(self._run_each_once, calls)
        return result

    async def _run_each_once(self, calls: Sequence[Call[T]]) -> list[T | BrokerError]:
        if len(calls) == 1:  # a pipeline costs more
            try:
                answer: T | BrokerError = await self._run_once(calls[0])
            except BrokerUnavailable:
                raise
            except BrokerError as error:
                answer = error
            return [answer]
        try:
            replies = await self._pipe(call.words for call in calls)
            missing = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            again = await self._pipe(calls[n].with_text for n in missing) if missing else ()
        except _FAILURES as error:
            raise await self.failed(error) from error
        for n, reply in zip(missing, again, strict=True):
            replies[n] = reply
        found: list[T | BrokerError] = []
        for call, reply in zip(calls, replies, strict=True):
            answer = await self.failed(reply) if isinstance(reply, Exception) else call.parse(reply)
            if isinstance(answer, BrokerUnavailable):
                raise answer from reply
            found.append(answer)
        return found

    async def _pipe(self, commands: Iterable[Sequence[Word]]) -> list[Any]:
        pipeline: Any = self.client.pipeline(transaction=False)
        for words in commands:
            pipeline.execute_command(*words)
        # Raised by the pipeline itself, an error would have a text of redis-py's before the server's.
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies

    async def failed(self, error: Exception) -> BrokerError:
        """Do what the policy says follows `error`, and return what it means."""
        rule = judge(error)
        if rule.then is Then.RESOLVE:
            # The pool's own disconnect() lets another task take a socket that is half closed.
            idle = self.client.connection_pool._available_connections  # noqa: SLF001
            taken = list(idle)
            idle.clear()
            for connection in taken:
                with contextlib.suppress(*_FAILURES):
                    await connection.disconnect(nowait=True)
            idle.extend(taken)
        return rule.error(error)

    def pubsub(self) -> Any:
        """Return a subscriber on a socket of its own."""
        return self.client.pubsub()

    async def close(self) -> None:
        """Close every socket; for an embedded server, cease to be one of its users."""
        await self.client.connection_pool.disconnect()
        for sentinel in self._sentinels:
            await sentinel.aclose()
        directory, self._directory = self._directory, None
        if directory is not None:
            await asyncio.to_thread(leave, directory)
