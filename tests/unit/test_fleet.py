"""What a worker makes of its server."""

from __future__ import annotations

import pytest

from streamq import BrokerRefused
from streamq.broker.server import name_server


@pytest.mark.parametrize(
    ("info", "name"),
    [
        ({"redis_version": "7.0.15"}, "Redis 7.0.15"),
        ({"redis_version": "10.2.0"}, "Redis 10.2.0"),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, "Valkey 9.1.2"),
    ],
)
def test_a_server_has_a_name(info, name):
    assert name_server(info) == name


def test_an_old_server_is_refused():
    """Its scripts would fail in the middle of the work."""
    with pytest.raises(BrokerRefused, match=r"Redis 6\.2\.14; streamq needs Redis 7\.0"):
        name_server({"redis_version": "6.2.14"})
