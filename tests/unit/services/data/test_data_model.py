"""The level's settings."""

from __future__ import annotations

import pytest

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire
from services.data.model import CacheSettings, DatabaseSettings, PostgresSettings


def test_defaults_are_the_stated_ones() -> None:
    """Pool, lifetime and retry as the requirements have them."""
    settings = from_wire(DatabaseSettings, {"node_id": "n1", "postgres": {"host": "db"}}).postgres

    assert (settings.pool_size, settings.max_idle_conns) == (20, 5)
    assert settings.conn_max_lifetime_s == 3600
    assert settings.ssl_mode == "require"
    assert (settings.retry_attempts, settings.retry_initial_s) == (5, 2.0)


@pytest.mark.parametrize("key", ["pool_size", "retry_attempts", "max_idle_conns"])
def test_counts_below_their_least_are_refused(key: str) -> None:
    """A pool without a connection is no pool."""
    with pytest.raises(RemoteProtocolError, match="at least"):
        from_wire(PostgresSettings, {"host": "db", key: -1})


def test_passwords_do_not_show() -> None:
    """A settings record may end in a log line."""
    settings = DatabaseSettings(node_id="n1", postgres=PostgresSettings(host="db", password="hush"))
    cache = from_wire(CacheSettings, {"node_id": "n1", "redis": {"password": "hush"}})

    assert "hush" not in repr(settings)
    assert "hush" not in repr(cache)
