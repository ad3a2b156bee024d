"""How far it is from ``delay()`` to Redis."""

from __future__ import annotations

import sys
from pathlib import Path

import streamq

PACKAGE = str(Path(streamq.__file__).parent)


def functions_called(call):
    """Return the code objects of ours that `call` enters."""
    entered = []

    def note(frame, event, _arg):
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            entered.append(frame.f_code)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return entered


def test_a_warm_delay_is_short(basic, connection):
    """It passes through at most 12 functions of ours in 5 files, and is one command: one script."""
    basic.add.delay(1, 1)
    run = connection.client.execute_command
    run("CONFIG", "RESETSTAT")
    entered = functions_called(lambda: basic.add.delay(2, 2))
    sent = {
        line.split(b":")[0].removeprefix(b"cmdstat_"): int(line.split(b"calls=")[1].split(b",")[0])
        for line in run("INFO", "commandstats").splitlines()
        if line.startswith(b"cmdstat_")
    }
    assert len(entered) <= 12, [code.co_qualname for code in entered]
    files = {code.co_filename for code in entered}
    assert len(files) <= 5, files
    assert sent.pop(b"evalsha") == 1
    assert sent.pop(b"config|resetstat", 1) == 1
    inside_the_script = {b"exists", b"hexists", b"xadd", b"hset", b"time", b"pubsub|numsub"}
    assert set(sent) <= inside_the_script, sent
