"""What a worker and a process of its pool say to each other: frames of a length, a JSON header, a NUL, and a body."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from streamq.lifecycle import Became, Failed, FailedForNow, Outcome, Rejected, Succeeded, Unroutable
from streamq.message import Delivery, Message
from streamq.nodes import Chunk, Drawing

LENGTH = 4  # bytes


class Frame(NamedTuple):
    """One thing that is said."""

    header: Mapping[str, Any]
    body: bytes = b""


def pack(header: Mapping[str, Any], body: bytes = b"") -> bytes:
    """Make the bytes of a frame; JSON never has a NUL in it."""
    content = b"%b\0%b" % (json.dumps(header).encode(), body)
    return len(content).to_bytes(LENGTH, "big") + content


def unpack(content: bytes) -> Frame:
    """Read a frame, of which the length has been taken off."""
    header, _, body = content.partition(b"\0")
    return Frame(json.loads(header), body)


def pack_delivery(delivery: Delivery) -> bytes:
    """Say that a delivery is to be run."""
    message = delivery.message
    counts = (delivery.fence, delivery.enqueued_ms, delivery.attempt, delivery.deaths, delivery.since_ms)
    header = {
        "run": [message.id, message.task, message.queue],
        "counts": counts,
        "options": message.options.decode("latin-1"),
    }
    return pack(header, message.args)


def unpack_delivery(frame: Frame) -> Delivery:
    """Read what is to be run; where it is pending is the worker's business."""
    task_id, task, queue = frame.header["run"]
    message = Message(task_id, task, queue, frame.body, options=frame.header["options"].encode("latin-1"))
    return Delivery(message, "", b"", *frame.header["counts"])


def pack_outcome(outcome: Outcome, more: Mapping[str, Any]) -> bytes:
    """Say what a run has led to."""
    header: dict[str, Any] = {"outcome": type(outcome).__name__, **more}
    match outcome:
        case Succeeded(body) | Failed(body):
            return pack(header, body)
        case Became(drawing, own):
            chunks = [([(name, spec.decode()) for name, spec in fields], states) for fields, states in drawing.chunks]
            return pack({**header, "drawing": [chunks, *drawing[1:]]}, own or b"")
        case FailedForNow(body, with_it) | Rejected(body, with_it) | Unroutable(body, with_it):
            return pack({**header, "with": with_it}, body)
        case _:
            raise TypeError(f"{outcome!r} is no outcome of a function")


def unpack_outcome(frame: Frame) -> Outcome:
    """Read what a run has led to."""
    match frame.header["outcome"]:
        case "Succeeded":
            return Succeeded(frame.body)
        case "Failed":
            return Failed(frame.body)
        case "Became":
            chunks, *more = frame.header["drawing"]
            parts = (Chunk([(name, spec.encode()) for name, spec in fields], states) for fields, states in chunks)
            return Became(Drawing(tuple(parts), *more), frame.body or None)
        case "FailedForNow":
            return FailedForNow(frame.body, frame.header["with"])
        case "Unroutable":
            return Unroutable(frame.body, frame.header["with"])
        case _:
            return Rejected(frame.body, frame.header["with"])
