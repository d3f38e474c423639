"""Starts of the security process: quick and private, or refused with a reason."""

from __future__ import annotations

import asyncio
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.errors import NovacronError
from services.data.errors import DatabaseRefusedError, DatabaseUnavailableError
from services.data.model import PostgresSettings
from services.security.errors import KeysSchemaError, MasterKeyError, SecurityFileError
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.system.security_node import Node, migrate, node, postgres_settings, rows, run

pytestmark = [pytest.mark.postgres, pytest.mark.process]


@pytest.fixture
def database(postgres_database: PostgresDatabase) -> PostgresDatabase:
    """A database with the platform's schema."""
    asyncio.run(migrate(postgres_settings(postgres_database)))
    return postgres_database


def start_error(state: Path, postgres: PostgresSettings) -> BaseException:
    """The error with which a start ends."""

    async def scenario() -> BaseException:
        found = Node(state, postgres)
        try:
            await found.service.init(found.context)
        except NovacronError as exc:
            return exc
        await found.service.terminate()
        raise AssertionError("it started")

    return asyncio.run(scenario())


def test_a_broken_master_key_ends_the_start(database: PostgresDatabase, tmp_path: Path) -> None:
    """No key is replaced, and no record is signed with another one."""
    postgres = postgres_settings(database)
    directory = tmp_path / "security"
    directory.mkdir(mode=0o700)
    key = directory / "master.key"
    key.write_bytes(b"short")
    key.chmod(0o600)

    error = start_error(tmp_path, postgres)

    assert isinstance(error, MasterKeyError)
    assert "5 bytes and not 32" in str(error)
    assert key.read_bytes() == b"short"
    assert rows(database) == []


def test_a_lost_master_key_ends_the_start(database: PostgresDatabase, tmp_path: Path) -> None:
    """A node that has signed records does not go on with a new key."""
    postgres = postgres_settings(database)

    async def first() -> None:
        async with node(tmp_path, postgres):
            pass

    run(first())
    (tmp_path / "security/master.key").unlink()

    error = start_error(tmp_path, postgres)

    assert isinstance(error, MasterKeyError)
    assert "restore it from a backup" in str(error)


def test_an_open_audit_file_ends_the_start(database: PostgresDatabase, tmp_path: Path) -> None:
    """A file that others may read is not written on to."""
    directory = tmp_path / "security"
    directory.mkdir(mode=0o700)
    (directory / "audit.jsonl").touch()
    (directory / "audit.jsonl").chmod(0o644)

    error = start_error(tmp_path, postgres_settings(database))

    assert isinstance(error, SecurityFileError)
    assert "mode 0644" in str(error)


def test_a_refusing_or_missing_server_ends_the_start(
    postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """Wrong credentials are critical; a server that is away is worth another try."""
    known = postgres_settings(postgres_database)
    wrong = replace(known, user="locked", password="wrong")
    away = replace(known, host=str(tmp_path))

    assert isinstance(start_error(tmp_path, wrong), DatabaseRefusedError)
    error = start_error(tmp_path, away)
    assert isinstance(error, DatabaseUnavailableError)
    assert error.retryable
    assert not (tmp_path / "security").exists()


def test_a_database_without_the_schema_ends_the_start(
    postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """Waiting does not bring a table; the message names it."""
    error = start_error(tmp_path, postgres_settings(postgres_database))

    assert isinstance(error, KeysSchemaError)
    assert "keyset_mirror" in str(error)


def test_files_and_directory_are_private(database: PostgresDatabase, tmp_path: Path) -> None:
    """Everything below the directory is mode 0600, the directory 0700."""

    async def scenario() -> None:
        async with node(tmp_path, postgres_settings(database)):
            pass

    run(scenario())
    directory = tmp_path / "security"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert {"master.key", "keyset", "keyset.copy", "audit.jsonl"} <= set(modes)
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_start_is_quick(database: PostgresDatabase, tmp_path: Path) -> None:
    """A start takes well below the node's second: 80 ms, three times that on a busy machine."""

    async def scenario() -> float:
        begin_s = time.perf_counter()
        async with node(tmp_path, postgres_settings(database)):
            return time.perf_counter() - begin_s

    fastest_s = min(asyncio.run(scenario()) for _ in range(3))
    assert fastest_s < 0.24
