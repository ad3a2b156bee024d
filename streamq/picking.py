"""Which calls count as the same: what `by` says of their arguments, in one form whatever way they were passed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from streamq.codec import UNENCODABLE, encode_plain
from streamq.errors import EncodeError
from streamq.message import Lock
from streamq.uniqueness import OnlyOne


def lock_of(rule: OnlyOne, task: str, arguments: Mapping[str, Any]) -> Lock:
    """Make the lock that one call has to take; calls that count as the same get the same.

    Args:
        rule: says what counts.
        task: the task's name.
        arguments: of the call, by name, with the defaults.

    Raises:
        EncodeError: what counts does not fit into JSON.
    """
    counts = [(one, arguments[one]) if isinstance(one, str) else ("", one(arguments)) for one in rule.what or arguments]
    try:
        said = [rule.name, *((name, _plain(value)) for name, value in counts)]
    except UNENCODABLE as error:
        raise EncodeError(f"{task}(): what {rule.name}= takes of it cannot be sent as JSON: {error}") from error
    data = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return rule.lock._replace(name=f"{task}:{digest}")


def _plain(value: Any) -> Any:
    """Make a value of what JSON has; sets have no order of their own."""
    plain = from_json(encode_plain(value))
    return sorted(plain, key=json.dumps) if isinstance(value, (set, frozenset)) else plain
