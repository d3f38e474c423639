"""The embedded servers' configuration."""

from __future__ import annotations

from services.data import server_config
from services.data.model import EmbeddedPostgresSettings, EmbeddedRedisSettings


def test_postgres_listens_on_its_socket_only_and_is_durable() -> None:
    """No port is opened, and what was committed survives a power cut."""
    settings = EmbeddedPostgresSettings(directory="/s/postgres", socket_dir="/s/run/pg")

    options = server_config.postgres_options(settings)

    assert options["listen_addresses"] == ""
    assert options["unix_socket_directories"] == "/s/run/pg"
    assert {options[name] for name in ("fsync", "full_page_writes", "synchronous_commit")} == {"on"}


def test_text_values_are_quoted_and_numbers_are_not() -> None:
    """A quote or backslash in a path can't end the value."""
    text = server_config.postgres_conf({"a": "it's \\ here", "b": 5})

    assert text.splitlines()[1:] == ["a = 'it''s \\\\ here'", "b = 5"]


def test_hba_lets_nobody_in_but_mapped_peers() -> None:
    """Each rule is local, by peer, through the map."""
    rules = [line.split() for line in server_config.pg_hba().splitlines() if line[0] != "#"]

    assert [rule[1] for rule in rules] == ["all", "replication"]
    assert all(rule[0] == "local" and rule[-2:] == ["peer", "map=novacron"] for rule in rules)


def test_ident_map_names_each_account_once() -> None:
    """The service's user and the node's user may be the same."""
    lines = server_config.pg_ident(["novacron", "root", "novacron"], "novacron").splitlines()

    assert lines[1:] == ['novacron "novacron" "novacron"', 'novacron "root" "novacron"']


def test_redis_listens_on_its_socket_only_and_keeps_nothing() -> None:
    """A bounded cache that opens no port and writes no file."""
    settings = EmbeddedRedisSettings(directory="/s/redis", socket="/r/s", memory_max_mib=7)

    arguments = server_config.redis_arguments(settings)

    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert options["--port"] == "0"
    assert options["--unixsocket"] == "/r/s"
    assert options["--maxmemory"] == "7mb"
    assert (options["--save"], options["--appendonly"]) == ("", "no")
    assert options["--supervised"] == "systemd"
