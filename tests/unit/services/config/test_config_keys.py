"""The table of keys, and the names of variables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.records import Plain
from services.config.convert import from_text
from services.config.durations import format_duration
from services.config.keys import Key, KeyKind, key_table
from services.config.loader import load, plain_values
from services.config.model import Config

TABLE = key_table()


@pytest.mark.parametrize(
    ("path", "variable"),
    [
        ("environment", "NOVACRON_ENVIRONMENT"),
        ("database.postgres.password", "NOVACRON_DATABASE_POSTGRES_PASSWORD"),
        ("database.postgres.host", "NOVACRON_DATABASE_POSTGRES_HOST"),
        ("dwcp.enabled", "NOVACRON_DWCP_ENABLED"),
        ("dwcp.transport.maxStreams", "NOVACRON_DWCP_TRANSPORT_MAXSTREAMS"),
        ("dwcp.transport.enableRDMA", "NOVACRON_DWCP_TRANSPORT_ENABLERDMA"),
        ("security.zeroTrust.enabled", "NOVACRON_SECURITY_ZEROTRUST_ENABLED"),
        ("system.dataDir", "NOVACRON_SYSTEM_DATADIR"),
    ],
)
def test_variables_are_named_by_section_and_key(path: str, variable: str) -> None:
    """The names are those of the requirements."""
    assert TABLE.keys[path].variable == variable
    assert TABLE.variables[variable] == path


def test_no_two_keys_share_a_variable() -> None:
    """A name leads to one key, though it drops the capitals."""
    assert len(TABLE.variables) == len(TABLE.keys)


def test_every_key_says_what_it_means_and_expects() -> None:
    """No key has an empty description, and no expectation shows a type's inside."""
    for key in TABLE.keys.values():
        assert key.description.endswith("."), key.path
        assert key.expected, key.path
        assert "None" not in key.expected, key.path
        assert "<" not in key.expected, key.path


def test_only_passwords_are_secret() -> None:
    """The secrets are known by the table."""
    secrets = [key.path for key in TABLE.keys.values() if key.is_secret]

    assert secrets == [
        "database.postgres.password",
        "database.redis.password",
        "security.secrets.vault.secretId",
        "security.secrets.vault.token",
        "security.secrets.aws.secretAccessKey",
        "security.secrets.azure.clientSecret",
    ]


def test_sections_list_their_keys_with_full_paths() -> None:
    """The root and inner sections are known, parents first."""
    assert next(iter(TABLE.sections)) == ""
    parts = ("host", "port", "tls", "auth", "cors", "rateLimit")
    assert TABLE.sections["api"] == tuple(f"api.{part}" for part in parts)
    assert TABLE.sections["network.bridge"][0] == "network.bridge.enabled"


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("dwcp.enabled", "true", True),
        ("dwcp.enabled", "false", False),
        ("dwcp.enabled", "True", "True"),
        ("dwcp.enabled", "1", "1"),
        ("api.port", "8080", 8080),
        ("api.port", "+80", 80),
        ("api.port", " 80", " 80"),
        ("api.port", "80.0", "80.0"),
        ("api.port", "0x50", "0x50"),
        ("api.port", "1_000", "1_000"),
        ("api.port", "", ""),
        ("platform.nodeId", "007", "007"),
        ("platform.nodeId", "true", "true"),
        ("system.shutdownTimeout", "30s", "30s"),
        ("system.logDir", "", None),
        ("system.logDir", "/logs", "/logs"),
        ("database.redis.password", "", ""),
        ("database.redis.password", "${X}", "${X}"),
        ("platform.roles", "backend, orchestration", ["backend", "orchestration"]),
        ("platform.roles", "backend,", ["backend", ""]),
        ("platform.roles", "", []),
        ("dwcp.transport.cpus", "0,1", [0, 1]),
        ("dwcp.transport.cpus", "0-1", ["0-1"]),
    ],
)
def test_texts_become_what_a_file_would_have(path: str, text: str, value: Plain) -> None:
    """Switches, numbers and lists are converted strictly; what is none stays a text."""
    converted = from_text(TABLE.keys[path], text)

    assert converted == value
    assert type(converted) is type(value)


def _single(key: Key) -> st.SearchStrategy[Plain]:
    if key.kind is KeyKind.SWITCH:
        return st.booleans()
    if key.kind is KeyKind.WHOLE:
        return st.integers(-(10**17), 10**17)
    if key.kind is KeyKind.DURATION:
        return st.integers(0, 10**9).map(lambda ms: format_duration(ms / 1000))
    if key.kind is KeyKind.CHOICE:
        return st.sampled_from(key.choices)
    return st.text(st.characters(codec="ascii", exclude_characters=", \x00\n\t"), min_size=1)


def _written(value: Plain) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(_written, value)) if isinstance(value, list) else str(value)


@given(st.data())
def test_a_value_survives_being_a_variable(data: st.DataObject) -> None:
    """Whatever a file could say, a variable can say with the same result."""
    key = data.draw(st.sampled_from(list(TABLE.keys.values())))
    # A stripped list item can't begin or end with white space, which _single leaves out.
    single = _single(key).filter(lambda value: str(value).strip() == str(value))
    value = data.draw(st.lists(single, max_size=3) if key.is_list else single)

    assert from_text(key, _written(value)) == value


def test_the_built_in_values_survive_being_variables(directory) -> None:
    """Every default, written as a variable, gives the default configuration."""
    environ = {
        key.variable: "" if key.default is None else _written(key.default)
        for key in TABLE.keys.values()
        if not key.is_secret
    }
    environ["NOVACRON_ENVIRONMENT"] = "lab"

    config = load(directory.path, None, environ).config

    expected = {**plain_values(Config()), "environment": "lab"}
    assert plain_values(config) == expected
