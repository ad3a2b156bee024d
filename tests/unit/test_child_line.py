"""The line between a child process and its supervisor."""

from __future__ import annotations

import asyncio
import socket

import pytest

from streamq.cli.child import Line
from streamq.cli.loading import run_on_loop
from streamq.worker.stop import Stop


@pytest.mark.parametrize("unread", [False, True])
def test_a_child_stops_when_its_supervisor_is_gone(unread):
    """Also when the supervisor has not read all that the child said: then the line ends with an error."""

    async def end_the_line() -> None:
        ours, theirs = socket.socketpair()
        line, stop = Line(ours.detach()), Stop()
        line.listen(asyncio.get_running_loop(), stop)
        if unread:
            line.say(report={})
        theirs.close()
        async with asyncio.timeout(5):
            await stop.asked.wait()
        line._socket.close()

    run_on_loop(end_the_line())
